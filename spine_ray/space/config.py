"""One trial's configuration: backbone, resolution, freeze depth and, for a fine-tune, its recipe."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

CLASS_WEIGHTINGS = ("none", "balanced")
BATCH_NORMS = ("frozen", "trained")
SYMMETRIES = ("none", "mirror", "all")
AUGMENTATIONS: Mapping[str, Mapping[str, bool | float]] = {
    "none": {"crop_area_min": 1.0, "crop_aspect_max": 1.0, "color_jitter": 0.0, "trivial_augment": False},
    "light": {"crop_area_min": 0.8, "crop_aspect_max": 4 / 3, "color_jitter": 0.0, "trivial_augment": False},
    "medium": {"crop_area_min": 0.35, "crop_aspect_max": 4 / 3, "color_jitter": 0.0, "trivial_augment": False},
    "strong": {"crop_area_min": 0.2, "crop_aspect_max": 4 / 3, "color_jitter": 0.4, "trivial_augment": True},
}
"""What each position of the dial `augment` sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Every training setting that is not backbone, resolution or freeze depth."""

    epochs: int
    """Passes over a fold's training rows; at least 1. Always trained to the last one."""
    batch_size: int
    """Rows per optimizer step; at least 2 (batch-norm needs two)."""
    lr: float
    """Peak AdamW learning rate of the trained part of the backbone; above 0."""
    layer_decay: float
    """Factor from a block's rate to that of the block before it, above 0 to 1.0; the head's is not touched by it."""
    head_lr_factor: float
    """The head's peak learning rate in units of `lr`; above 0."""
    weight_decay: float
    """AdamW decoupled weight decay of matrices and kernels, not of biases, norms and what timm exempts; 0 or more."""
    clip_norm: float
    """Largest norm of the gradient of all trained parameters together; above 0."""
    warmup_share: float
    """Share of all steps with linear warm-up, 0 to 0.5; cosine decay to 0 follows."""
    label_smoothing: float
    """Mass spread over all classes in the training loss, 0 to 0.5."""
    class_weighting: str
    """`none`, or `balanced`: the loss of a row is weighted by rows / (classes * rows of its class)."""
    augment: str
    """A dial, `none`, `light`, `medium` or `strong`: it sets crops, colours and TrivialAugment where a space does not
    set them itself (`AUGMENTATIONS`)."""
    crop_area_min: float
    """Smallest share of the picture's central square that a training crop covers, 0.05 to 1.0."""
    crop_aspect_max: float
    """The most by which a training crop is stretched, either way, 1.0 to 4.0."""
    symmetry: str
    """`none`; `mirror`: half of the training views are mirrored left to right; `all`: turned by right angles too."""
    color_jitter: float
    """The most by which brightness, contrast and saturation of a training view change, as a share, 0 to 1.0."""
    trivial_augment: bool
    """Whether one of TrivialAugment's changes befalls each training view."""
    mixup: float
    """Two training inputs are mixed in shares drawn from Beta(mixup, mixup), 0 to 10; 0: they are not."""
    cutmix: float
    """The same for pasting a part of one input into another; with both, each batch has one of them."""
    drop_path: float
    """Stochastic depth rate of the deepest block, 0 to 0.5, where the backbone supports it."""

    batch_norm: str
    """`frozen`: batch-norms keep the statistics, scales and shifts that the weights came with; or `trained`."""

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        _check_whole("epochs", self.epochs, 1)
        _check_whole("batch_size", self.batch_size, 2)
        _check_range("lr", self.lr, 0.0, 10.0, open_low=True)
        _check_range("layer_decay", self.layer_decay, 0.0, 1.0, open_low=True)
        _check_range("head_lr_factor", self.head_lr_factor, 0.0, 1e4, open_low=True)
        _check_range("weight_decay", self.weight_decay, 0.0, 10.0)
        _check_range("clip_norm", self.clip_norm, 0.0, 1e6, open_low=True)
        _check_range("warmup_share", self.warmup_share, 0.0, 0.5)
        _check_range("label_smoothing", self.label_smoothing, 0.0, 0.5)
        _check_range("crop_area_min", self.crop_area_min, 0.05, 1.0)
        _check_range("drop_path", self.drop_path, 0.0, 0.5)
        _check_range("crop_aspect_max", self.crop_aspect_max, 1.0, 4.0)
        _check_range("color_jitter", self.color_jitter, 0.0, 1.0)
        _check_range("mixup", self.mixup, 0.0, 10.0)
        _check_range("cutmix", self.cutmix, 0.0, 10.0)
        if not isinstance(self.trivial_augment, bool):
            raise ValueError(f"recipe.trivial_augment must be true or false, not {self.trivial_augment!r}")
        _check_one_of("symmetry", self.symmetry, SYMMETRIES)
        _check_one_of("augment", self.augment, tuple(AUGMENTATIONS))
        _check_one_of("class_weighting", self.class_weighting, CLASS_WEIGHTINGS)
        _check_one_of("batch_norm", self.batch_norm, BATCH_NORMS)


RECIPE_FIELDS = tuple(field.name for field in fields(Recipe))


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialConfig:
    """Everything that decides a trial's OOF logits, given a study's data, folds, weights and seed."""

    backbone: str
    """timm model name, `arch` or `arch.tag`."""
    resolution: int
    """Side of the square input, px."""
    freeze: float
    """Share of the backbone's depth that is frozen, 0.0 (all trained) to 1.0 (head only)."""
    recipe: Recipe | None
    """How a fine-tune is trained; None for a probe, whose head is solved and not trained."""

    def __post_init__(self) -> None:
        """Refuse values outside their ranges, a probe with a recipe and a fine-tune without one."""
        _check_whole("resolution", self.resolution, 1)
        _check_range("freeze", self.freeze, 0.0, 1.0)
        if self.is_probe != (self.recipe is None):
            wanted = "a probe (freeze depth 1.0) has no recipe" if self.is_probe else "a fine-tune needs a recipe"
            raise ValueError(f"{wanted}: {self.backbone} at freeze depth {self.freeze:g}")

    @property
    def is_probe(self) -> bool:
        """Whether all of the backbone is frozen, so that a linear head is solved on its features."""
        return self.freeze == 1.0

    @property
    def training(self) -> Recipe:
        """The recipe of a fine-tune.

        Raises:
            ValueError: If this is a probe.
        """
        if self.recipe is None:
            raise ValueError(f"{self.trial_id} is a probe: it has no recipe")
        return self.recipe

    @property
    def trial_id(self) -> str:
        """Readable, safe in paths, and equal exactly when the configuration is equal."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        arch = self.backbone.partition(".")[0]
        kind = "probe" if self.is_probe else f"f{round(self.freeze * 100):03d}"
        return f"{arch}-{self.resolution}-{kind}-{digest}"

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrialConfig":
        """Build the configuration that `to_dict` wrote."""
        recipe = values["recipe"]
        return cls(**{**values, "recipe": None if recipe is None else Recipe(**recipe)})


def probe_config(backbone: str, resolution: int) -> TrialConfig:
    """Return the probe of a backbone at a resolution."""
    return TrialConfig(backbone=backbone, resolution=resolution, freeze=1.0, recipe=None)


def _check_whole(name: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, not {value!r}")


def _check_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"recipe.{name} must be one of {', '.join(allowed)}, not {value!r}")


def _check_range(name: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
    if not number or value > high or value < low or (open_low and value == low):  # type: ignore[operator]
        above = "above" if open_low else "from"
        raise ValueError(f"{name} must be a number {above} {low:g} to {high:g}, not {value!r}")
