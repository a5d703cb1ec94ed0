"""Backbones of which a claim about any backbone is checked."""

TINY = ("test_efficientnet", "test_byobnet", "test_resnet", "test_convnext", "test_vit", "test_vit2")
"""timm's smallest, for the suite."""
LADDER = (
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet50",
    "vit_small_patch16_224",
    "deit3_small_patch16_224",
    "swin_tiny_patch4_window7_224",
)
"""Those that people use, for a drill."""
