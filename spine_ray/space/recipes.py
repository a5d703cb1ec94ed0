"""Start recipes: where every backbone begins, so that comparisons are of backbones and nothing else.

For pretrained weights every fold begins with the head of its probe, which is near its best, so head and backbone share
one rate (linear probing, then fine-tuning: Kumar et al. 2022). The rate, frozen batch-norms and 200 steps were measured
on real pictures with ImageNet weights of one EfficientNet, see `docs/log.md`; of other families they are NOT verified.
AdamW, 10 % warm-up, cosine to 0 and gradients clipped at norm 1 are AutoGluon Multimodal's defaults (its
`configs/optim/default.yaml`). No label smoothing: it costs the calibration on which pools and cascades rest.

For random weights: measured on scikit-learn's digits and generated sets, see `docs/log.md`.
"""

import math
from typing import Literal

from spine_ray.space.config import FreezeClass, Recipe

WeightsKind = Literal["pretrained", "random"]

START_STEPS = 200
"""Training steps of a fold at a start recipe on pretrained weights, as far as the limits of its epochs allow."""
_LEAST_EPOCHS, _MOST_EPOCHS = 5, 50


def start_recipe(weights: WeightsKind, freeze: FreezeClass) -> Recipe:
    """Return the start recipe for a kind of weights and a freeze class.

    Args:
        weights: Of the initial weights.
        freeze: The freeze class; so far it changes nothing.
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
            batch_norm="trained",
        )
    return Recipe(
        epochs=10,
        batch_size=32,
        lr=5e-4,
        head_lr_factor=1.0,
        weight_decay=0.05,
        clip_norm=1.0,
        warmup_share=0.1,
        label_smoothing=0.0,
        class_weighting="none",
        crop_area_min=0.35,
        flip=True,
        drop_path=0.0,
        batch_norm="frozen",
    )


def start_epochs(rows: int, batch_size: int, steps: int = START_STEPS) -> int:
    """Return the epochs of a start recipe on pretrained weights: those of so many steps, at least 5, at most 50.

    Of few pictures an epoch is a handful of steps, so a number of epochs that suits many does not train a model on few
    (BiT-HyperRule counts in steps for that reason, Kolesnikov et al. 2020).

    Args:
        rows: Training rows of a fold.
        batch_size: Rows of a step.
        steps: As many as are wanted.
    """
    return min(_MOST_EPOCHS, max(_LEAST_EPOCHS, math.ceil(steps / max(1, rows // batch_size))))
