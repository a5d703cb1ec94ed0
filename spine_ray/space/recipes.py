"""Start recipes: where every backbone begins, so that comparisons are of backbones and nothing else.

One table, by kind of weights and kind of network. Each cell says where it comes from: measured here, on which pictures
and backbones (docs/log.md has the figures), or from the literature. ImageNet weights were at hand for EfficientNets
alone, so of pretrained weights convolutions with batch-norms are measured; the cells of all others are the literature's
and NOT verified here.

For pretrained weights every fold begins with the head of its probe, which is near its best, so head and backbone share
one rate (linear probing, then fine-tuning: Kumar et al. 2022).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spine_ray.space.config import Recipe

WeightsKind = Literal["pretrained", "random"]
NetworkKind = Literal["convolution", "other"]

START_STEPS = 200
"""Training steps of a fold at a start recipe on pretrained weights, as far as the limits of its epochs allow."""
_LEAST_EPOCHS, _MOST_EPOCHS = 5, 50
_CONVOLUTIONS = (
    "efficientnet",
    "resnet",
    "regnet",
    "byobnet",
    "densenet",
    "inception",
    "vgg",
    "dla",
    "hrnet",
    "rexnet",
)
"""Families of convolutions with batch-norms."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting of a start recipe."""

    value: bool | int | float | str
    source: str
    """`measured (pictures, backbones): heading in docs/log.md`, or `literature: where`."""


def _measured(pictures: str, backbones: str, heading: str) -> str:
    return f"measured ({pictures}; {backbones}): {heading}"


_TUNES = _measured("emoji", "tf_efficientnet_lite0", "2026-11-28: fine-tunes from the probe's head, on real pictures")
_BEGUN = _measured(
    "digits and generated sets", "8 backbones", "2026-11-23: the start recipe for random weights, on digits"
)
_AUTOMM = "literature: AutoGluon Multimodal 1.6, configs/optim/default.yaml"
_RESNET = "literature: Szegedy et al. 2015 and He et al. 2016, training views"
_BIT = "literature: Kolesnikov et al. 2020 (BiT), mixup from 20,000 pictures on, no other regularisation"
_SHORT = "literature: Touvron et al. 2021 (DeiT), what regularises strongly wants hundreds of epochs"
_SMALL = "literature: Masters and Luschi 2018, batches of 32 or fewer generalise best"
_SURE = "literature: Mueller et al. 2019, what is smoothed must be calibrated anew, and members are calibrated anyway"
_PROPER = "literature: Gneiting and Raftery 2007, a proper score wants the classes as they are"

_TUNED: Mapping[str, Cell] = {
    "epochs": Cell(10, _TUNES),  # where the number of rows is not known; else those of START_STEPS
    "batch_size": Cell(32, _SMALL),
    "lr": Cell(5e-4, _TUNES),
    "layer_decay": Cell(1.0, _TUNES),
    "head_lr_factor": Cell(1.0, _TUNES),
    "weight_decay": Cell(0.05, _TUNES),
    "clip_norm": Cell(1.0, _AUTOMM),
    "warmup_share": Cell(0.1, _AUTOMM),
    "label_smoothing": Cell(0.0, _SURE),
    "class_weighting": Cell("none", _PROPER),
    "augment": Cell("medium", _TUNES),
    "crop_area_min": Cell(0.35, _TUNES),
    "crop_aspect_max": Cell(4 / 3, _RESNET),
    "symmetry": Cell("mirror", _RESNET),
    "color_jitter": Cell(0.0, _SHORT),
    "trivial_augment": Cell(False, _SHORT),
    "mixup": Cell(0.0, _BIT),
    "cutmix": Cell(0.0, _BIT),
    "drop_path": Cell(0.0, _BIT),
    "batch_norm": Cell("frozen", _TUNES),
}
_FROM_NOTHING: Mapping[str, Cell] = {
    "epochs": Cell(30, _BEGUN),
    "batch_size": Cell(32, _BEGUN),
    "lr": Cell(2e-3, _BEGUN),
    "layer_decay": Cell(1.0, "literature: Bao et al. 2022 (BEiT), it keeps what is pretrained; here nothing is"),
    "head_lr_factor": Cell(1.0, _BEGUN),
    "weight_decay": Cell(0.05, _BEGUN),
    "clip_norm": Cell(1.0, _BEGUN),
    "warmup_share": Cell(0.1, _BEGUN),
    "label_smoothing": Cell(0.1, _BEGUN),
    "class_weighting": Cell("none", _PROPER),
    "augment": Cell("light", _BEGUN),
    "crop_area_min": Cell(0.8, _BEGUN),
    "crop_aspect_max": Cell(4 / 3, _RESNET),
    "symmetry": Cell("none", _BEGUN),
    "color_jitter": Cell(0.0, _SHORT),
    "trivial_augment": Cell(False, _SHORT),
    "mixup": Cell(0.0, _SHORT),
    "cutmix": Cell(0.0, _SHORT),
    "drop_path": Cell(0.0, _BIT),
    "batch_norm": Cell("trained", "literature: Ioffe and Szegedy 2015; fresh statistics mean nothing"),
}
START_RECIPES: Mapping[tuple[WeightsKind, NetworkKind], Mapping[str, Cell]] = {
    ("pretrained", "convolution"): _TUNED,
    ("pretrained", "other"): {**_TUNED, "lr": Cell(1e-4, _AUTOMM), "layer_decay": Cell(0.9, _AUTOMM)},
    ("random", "convolution"): _FROM_NOTHING,
    ("random", "other"): {**_FROM_NOTHING, "lr": Cell(1e-3, _BEGUN)},
}
"""Settings by kind of weights and of network. Freeze depth is no third key: half frozen, the same rate served best."""


def network_kind(family: str) -> NetworkKind:
    """Return the kind of network of a family of backbones: convolutions with batch-norms, or any other."""
    return "convolution" if family in _CONVOLUTIONS else "other"


def start_recipe(weights: WeightsKind, family: str = "") -> Recipe:
    """Return the start recipe.

    Args:
        weights: Kind of the initial weights.
        family: Design lineage of the backbone; where it is not known, that of what is careful: a low rate.
    """
    values: dict[str, Any] = {name: cell.value for name, cell in START_RECIPES[weights, network_kind(family)].items()}
    return Recipe(**values)


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
