import warnings
from dataclasses import dataclass

import pytest
import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from spine_ray.core.backbone import facts, make_model
from spine_ray.core.freeze import (
    classifier_names,
    depth_groups,
    freeze_backbone,
    freeze_untrained,
    frozen_share,
    snap,
    train_mode,
    trains_batch_norm,
)
from spine_ray.core.schedule import make_optimizer
from spine_ray.space.load import load_space

LADDER = {backbone: tier for tier in load_space("ladder").tiers for backbone in tier.backbones}
SMOKE = tuple(backbone for tier in load_space("smoke").tiers for backbone in tier.backbones)
NORMS = (nn.BatchNorm2d, nn.LayerNorm)


def on_meta(backbone, resolution=224):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return make_model(backbone, resolution, 2)


@pytest.mark.parametrize("backbone", LADDER)
def test_all_that_the_ladder_asks_for_can_be_built_and_frozen(backbone):
    tier = LADDER[backbone]
    assert tier.freezes == (0.0, 0.5, 1.0)
    # How deep a model is does not depend on the resolution, so the ends of the scale are looked at once.
    assert [frozen_share(backbone, tier.resolutions[0], freeze) for freeze in (0.0, 1.0)] == [0.0, 1.0]
    for resolution in tier.resolutions:
        assert 0.0 < frozen_share(backbone, resolution, 0.5) < 0.6
    costs = [facts(backbone, resolution, 1000).macs for resolution in tier.resolutions]
    assert costs == sorted(set(costs))


@dataclass(frozen=True)
class Oracle:
    """What three quarters of a backbone's depth are, counted by hand."""

    backbone: str
    groups: int
    frozen: tuple[str, ...]
    """Prefixes of the parameters of the nearest whole number of groups."""
    classifier: str


def blocks(prefix, count):
    return tuple(f"{prefix}{block}." for block in range(count))


ORACLES = (
    # stem + 3 + 4 + 6 + 3 blocks = 17; 12.75 is nearest to 13: the stem and 12 blocks.
    Oracle("resnet50", 17, ("conv1.", "bn1.", "layer1.", "layer2.", *blocks("layer3.", 5)), "fc."),
    # embedding + 12 blocks = 13; 9.75 is nearest to 10: the embedding and 9 blocks.
    Oracle(
        "vit_small_patch16_224",
        13,
        ("cls_token", "pos_embed", "patch_embed.", *blocks("blocks.", 9)),
        "head.",
    ),
    # stem + 1 + 2 + 2 + 3 + 3 + 4 + 1 blocks = 17; 13: the stem, 11 blocks of the first five stages, 1 of the sixth.
    Oracle("efficientnet_b0", 17, ("conv_stem.", "bn1.", *blocks("blocks.", 5), "blocks.5.0."), "classifier."),
    # embedding + 2 + 2 + 6 + 2 blocks = 13; 10: the embedding, 2 + 2 blocks, and 5 of the third stage.
    Oracle(
        "swin_tiny_patch4_window7_224",
        13,
        ("patch_embed.", "layers.0.", "layers.1.", "layers.2.downsample.", *blocks("layers.2.blocks.", 5)),
        "head.fc.",
    ),
    # stem + 1 + 2 + 3 + 4 + 2 + 3 + 1 blocks + the wide last convolution = 18; 13.5 goes up to 14: 12 blocks of the
    # first five stages and 1 of the sixth.
    Oracle(
        "mobilenetv3_large_100",
        18,
        ("conv_stem.", "bn1.", *blocks("blocks.", 5), "blocks.5.0."),
        "classifier.",
    ),
)


@pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.backbone)
def test_three_quarters_of_the_depth_are_what_counting_blocks_gives(oracle):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sizes = {name: each.numel() for name, each in timm.create_model(oracle.backbone).named_parameters()}
    backbone = {name: size for name, size in sizes.items() if not name.startswith(oracle.classifier)}
    frozen = {name for name in backbone if name.startswith(oracle.frozen)}
    model = on_meta(oracle.backbone)
    assert len(depth_groups(model)) == oracle.groups
    assert freeze_backbone(model, 0.75) == frozen
    share = sum(backbone[name] for name in frozen) / sum(backbone.values())
    assert frozen_share(oracle.backbone, 224, 0.75) == pytest.approx(share, rel=1e-12)


@pytest.mark.parametrize("backbone", SMOKE)
def test_the_share_grows_with_the_freeze_depth_from_nothing_to_everything(backbone):
    shares = [frozen_share(backbone, 32, freeze) for freeze in (0.0, 0.3, 0.5, 0.8, 1.0)]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)
    assert len(set(shares)) > 3


@pytest.mark.parametrize(
    ("freeze", "blocks", "frozen"),
    [
        (0.0, 17, 0),
        (1.0, 17, 17),
        (0.75, 17, 13),
        (0.5, 4, 2),
        (0.5, 5, 3),
        (0.12, 4, 0),
        (0.13, 4, 1),
        (1.0, 0, 0),
    ],
)
def test_a_freeze_depth_goes_to_the_nearest_block_boundary(freeze, blocks, frozen):
    assert snap(freeze, blocks) == frozen


@pytest.mark.parametrize(
    "backbone", [*SMOKE, "convnext_tiny", "beit_base_patch16_224", "deit_tiny_distilled_patch16_224"]
)
def test_every_parameter_is_in_one_depth_group_or_in_the_classifier(backbone):
    model = on_meta(backbone)
    names = [name for group in depth_groups(model) for name in group] + classifier_names(model)
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        ("test_resnet", ["fc.weight", "fc.bias"]),
        ("swin_tiny_patch4_window7_224", ["head.fc.weight", "head.fc.bias"]),
        (
            "deit_tiny_distilled_patch16_224",
            ["head.weight", "head.bias", "head_dist.weight", "head_dist.bias"],
        ),
    ],
)
def test_the_classifier_is_all_that_ends_in_classes(backbone, names):
    assert classifier_names(on_meta(backbone)) == names


@pytest.mark.parametrize("freeze", [0.0, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("backbone", SMOKE)
def test_what_is_not_frozen_gets_gradients_and_the_classifier_is_never_frozen(backbone, freeze):
    model = on_meta(backbone, 64)
    frozen = freeze_backbone(model, freeze)
    assert {name for name, each in model.named_parameters() if not each.requires_grad} == frozen
    assert not frozen & set(classifier_names(model))
    # Freezing again means this depth, not more.
    assert freeze_backbone(model, 0.0) == frozenset()
    assert all(each.requires_grad for each in model.parameters())


def train_two_steps(model, recipe):
    optimizer = make_optimizer(model, frozenset(classifier_names(model)), recipe)
    train_mode(model)
    for step in range(2):
        images = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(step))
        loss = cross_entropy(model(images), torch.arange(6) % 2)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()


def is_changed(before, after):
    return {name for name, tensor in after.items() if not torch.equal(before[name], tensor)}


@pytest.mark.parametrize("freeze", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_vit"])
def test_training_moves_what_is_not_frozen_and_nothing_else(backbone, freeze, trial_config):
    torch.manual_seed(0)
    model = make_model(backbone, 64, 2)
    frozen = freeze_backbone(model, freeze)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_two_steps(model, trial_config(lr=0.01).recipe)
    changed = is_changed(before, model.state_dict())
    trained = {name for name, _ in model.named_parameters()} - frozen
    # A running mean belongs to the norm whose weight stands beside it.
    buffers = {name for name, _ in model.named_buffers() if name.rpartition(".")[0] + ".weight" in trained}
    assert changed == trained | buffers
    assert bool(frozen) == (freeze > 0)


@pytest.mark.parametrize("freeze", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("backbone", SMOKE)
def test_frozen_norms_are_in_eval_mode_and_the_others_in_training_mode(backbone, freeze):
    model = make_model(backbone, 64, 2).eval()
    frozen = freeze_backbone(model, freeze)
    train_mode(model)
    norms = {name: module for name, module in model.named_modules() if isinstance(module, NORMS)}
    assert norms
    for name, module in norms.items():
        assert module.training == (f"{name}.weight" not in frozen), name
    assert model.training
    assert model.get_classifier().training


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_frozen_batch_norms_stay_as_they_are_and_all_else_is_trained(backbone, trial_config):
    torch.manual_seed(0)
    model = make_model(backbone, 64, 2)
    config = trial_config(backbone, batch_norm="frozen", lr=0.01)
    assert freeze_untrained(model, config) == frozenset()
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_two_steps(model, config.recipe)
    trained = {name for name, _ in model.named_parameters() if name.rpartition(".")[0] not in norms}
    assert is_changed(before, model.state_dict()) == trained
    assert not trains_batch_norm(model)


def test_with_frozen_batch_norms_what_a_row_says_in_training_hangs_on_no_other_row(trial_config):
    torch.manual_seed(0)
    model = make_model("test_resnet", 64, 2)
    freeze_untrained(model, trial_config(batch_norm="frozen"))
    train_mode(model)
    images = torch.randn(6, 3, 64, 64)
    torch.testing.assert_close(model(images)[:2], model(images[:2]))


def test_a_frozen_part_is_one_function_of_the_image_in_spite_of_stochastic_depth():
    torch.manual_seed(0)
    model = make_model("test_vit", 32, 2, drop_path=0.5)
    freeze_backbone(model, 0.5)  # the embedding and 6 blocks: 3.5 of 7 groups go up to 4
    train_mode(model)
    seen = {}
    for block in (2, 5):
        model.blocks[block].register_forward_hook(
            lambda *parts, block=block: seen.setdefault(block, []).append(parts[2])
        )
    for _ in range(2):
        model(torch.ones(8, 3, 32, 32))
    assert torch.equal(*seen[2])
    assert not torch.equal(*seen[5])
