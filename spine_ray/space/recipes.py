"""Start recipes: where every backbone begins, so that comparisons are of backbones and nothing else.

For pretrained weights, from the literature and NOT verified here, because no pretrained weights of the ladder's
backbones were at hand:

- full: AdamW at 1e-4, 10 % warm-up, cosine to 0 and gradients clipped at norm 1 are AutoGluon Multimodal's defaults
  (its `configs/optim/default.yaml`); a head ten times faster than the backbone is PyTorch Lightning's
  `BackboneFinetuning` default (`backbone_initial_ratio_lr=0.1`).
- part: twice the full rate with a head at 1e-3, which is what the Keras transfer-learning guide trains a new head with
  on a frozen base: an interpolation of the two, ours.

For random weights: measured on scikit-learn's digits and generated sets, see `docs/log.md`.
"""

from typing import Literal

from spine_ray.space.config import FreezeClass, Recipe

WeightsKind = Literal["pretrained", "random"]

_PRETRAINED_LR: dict[FreezeClass, float] = {"full": 1e-4, "part": 2e-4}
_PRETRAINED_HEAD_FACTOR: dict[FreezeClass, float] = {"full": 10.0, "part": 5.0}


def start_recipe(weights: WeightsKind, freeze: FreezeClass) -> Recipe:
    """Return the start recipe for a kind of weights and a freeze class.

    Args:
        weights: `pretrained` (from the literature, not verified here) or `random` (measured).
        freeze: The freeze class; with random weights it changes nothing.
    """
    if weights == "random":
        return Recipe(
            epochs=30,
            batch_size=32,
            lr=2e-3,
            head_lr_factor=1.0,
            weight_decay=0.05,
            clip_norm=1.0,
            warmup_share=0.1,
            label_smoothing=0.1,
            class_weighting="none",
            crop_area_min=0.8,
            flip=False,
            drop_path=0.0,
        )
    return Recipe(
        epochs=10,
        batch_size=32,
        lr=_PRETRAINED_LR[freeze],
        head_lr_factor=_PRETRAINED_HEAD_FACTOR[freeze],
        weight_decay=0.05,
        clip_norm=1.0,
        warmup_share=0.1,
        label_smoothing=0.1,
        class_weighting="none",
        crop_area_min=0.35,
        flip=True,
        drop_path=0.0,
    )
