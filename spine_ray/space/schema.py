"""A search space: its tiers and what holds for all of them. Building one is checking it."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from spine_ray.space.cost_matrix import CostMatrix, check_cost_matrix
from spine_ray.space.duration import parse_duration
from spine_ray.space.fields import Around, Choice, Field, LogUniform, Scalar, Uniform, check_unique, field_to_plain
from spine_ray.space.recipes import START_RECIPES, start_recipe
from spine_ray.space.strict_yaml import write_yaml

Metric = Literal["log_loss", "accuracy", "balanced_accuracy", "macro_f1", "expected_cost"]
GateSetting = Literal["auto", "always", "never"]
METRICS: tuple[str, ...] = get_args(Metric)
GATE_SETTINGS: tuple[str, ...] = get_args(GateSetting)

FIXED_FIELDS = ("epochs", "batch_size")
"""Recipe fields that are one number within a tier: ASHA compares trials at equal epochs."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class TierSpace:
    """What one tier searches; where lists stand, the first value is the start."""

    name: str
    backbones: tuple[str, ...]
    """timm model names; every one of them is tried at its start recipe first."""
    resolutions: tuple[int | Literal["native"], ...] = (224,)
    """Sides of the square input, px."""
    freezes: tuple[float, ...] = (0.0,)
    """Freeze depths, 0.0 (all trained) to 1.0 (head only): the probe, made of pretrained weights even if not listed."""
    recipe: Mapping[str, Field] = field(default_factory=dict)
    """The recipe fields that leave the start recipe; all others keep its values."""
    overrides: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    """Per backbone: starting values of its own. They move where it starts, not what is searched."""
    trials: int = 8
    """The most fine-tunes of this tier, start recipes included; at least 1. Probes do not count."""
    gate: GateSetting = "auto"
    """The gate that stands before this tier: decided by evidence, always open, or never open."""
    question: str = ""
    """What this tier is to find out."""
    families: Mapping[str, str] = field(default_factory=dict)
    """Design lineage by backbone, once they were looked up; it decides which start recipe is whose."""
    natives: Mapping[str, int] = field(default_factory=dict)
    """The side at which a backbone was pretrained, px, by backbone, once they were looked up."""

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        _check_name("a tier", self.name)
        if not self.backbones:
            raise ValueError("a tier needs at least one backbone")
        _check_listed("backbone", self.backbones)
        _check_listed("resolution", self.resolutions)
        _check_listed("freeze", self.freezes)
        _check_whole("trials", self.trials, 1)
        _check_one_of("gate", self.gate, GATE_SETTINGS)
        _check_text("question", self.question)
        for name, searched in self.recipe.items():
            _check_field(name, searched)
        for backbone, own in self.overrides.items():
            if backbone not in self.backbones:
                raise ValueError(f"overrides: {backbone} is no backbone of this tier ({', '.join(self.backbones)})")
            for name, value in own.items():
                _check_override(name, value, self.recipe.get(name))

    def family_of(self, backbone: str) -> str:
        """Return the design lineage of a backbone, or an empty text where it was not looked up."""
        return self.families.get(backbone, "")

    def resolutions_of(self, backbone: str) -> tuple[int, ...]:
        """Return the sides of the input at which a backbone is tried, px, in the order of the space.

        At its native one nothing of position embeddings or attention windows is interpolated.

        Raises:
            ValueError: If the native one is among them and was not looked up.
        """
        if "native" in self.resolutions and backbone not in self.natives:
            raise ValueError(f"the native resolution of {backbone} was not looked up")
        sides = (self.natives[backbone] if each == "native" else each for each in self.resolutions)
        return tuple(dict.fromkeys(sides))

    @property
    def trained_freezes(self) -> tuple[float, ...]:
        """The freeze depths of fine-tunes: those below 1.0."""
        return tuple(freeze for freeze in self.freezes if freeze < 1.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of this tier's results must know, one line each."""
        lines = []
        left_out = self.backbones[self.trials :]
        if left_out:
            trials = "1 trial" if self.trials == 1 else f"{self.trials} trials"
            lines.append(
                f"tier {self.name}: {trials} for {len(self.backbones)} backbones, "
                f"so {', '.join(left_out)} will not be tried"
            )
        for backbone, values in self.overrides.items():
            told = ", ".join(f"{name} {value}" for name, value in values.items())
            lines.append(f"tier {self.name}: {backbone} does not start where the others do: {told}")
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the tier as a space file holds it."""
        return {
            "question": self.question,
            "backbone": list(self.backbones),
            "resolution": list(self.resolutions),
            "freeze": list(self.freezes),
            "recipe": {name: field_to_plain(value) for name, value in self.recipe.items()},
            "overrides": {backbone: dict(values) for backbone, values in self.overrides.items()},
            "trials": self.trials,
            "gate": self.gate,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """A search space as resolved: what is asked, how it is judged and what each tier searches."""

    name: str
    tiers: tuple[TierSpace, ...]
    """In climbing order."""
    file: Path
    """Where it was read from."""
    question: str = ""
    metric: Metric = "log_loss"
    """What is reported first. Members are chosen on log-loss whatever it is."""
    cost_matrix: CostMatrix = field(default_factory=dict)
    """What mistakes cost; every mistake costs 1 where nothing is said."""
    folds: int = 5
    """At least 2."""
    test_share: float = 0.2
    """Share of the rows in the test split, above 0 and below 1; data with a split of its own ignores it."""
    min_effect: float = 0.01
    """The smallest gain in log-loss that matters, nats; 0 or more."""
    max_collapsed_share: float = 0.5
    """The `sound` gate stops where a larger share of the classes with rows enough to say so collapsed; 0 to 1.

    By default it stops where most of them did: then what beats the class prior comes from a few classes.
    """
    small_data: int = 500
    """With fewer dev rows a tier behind the `plateau` gate opens frozen or part-frozen only; 0 or more."""
    max_members: int = 8
    """The most members of the ensemble; at least 1."""
    max_per_family: int | None = None
    """The most members of one family; None for no limit."""
    reduction: int = 3
    """ASHA's reduction factor: one of so many trials goes on; 1 stops nothing."""
    weights: str | None = None
    """What `--weights` is when nobody says: `auto`, `pretrained`, `random` or a folder."""
    budget: str | None = None
    """Wall time, such as `30m`, when nobody says; None for no limit."""
    audit: Mapping[str, float] = field(default_factory=dict)
    """The thresholds of the data audit that leave their defaults."""

    def __post_init__(self) -> None:
        """Refuse settings outside their ranges."""
        _check_name("a space", self.name)
        if not self.tiers:
            raise ValueError("a space needs at least one tier")
        check_unique(tuple(tier.name for tier in self.tiers))
        _check_text("question", self.question)
        _check_one_of("metric", self.metric, METRICS)
        check_cost_matrix(self.cost_matrix)
        _check_whole("folds", self.folds, 2)
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share must lie above 0 and below 1, not {self.test_share:g}")
        if not (math.isfinite(self.min_effect) and self.min_effect >= 0):
            raise ValueError(f"min_effect must be 0 or more (nats), not {self.min_effect:g}")
        if not 0 <= self.max_collapsed_share <= 1:
            raise ValueError(f"max_collapsed_share must lie in 0 to 1, not {self.max_collapsed_share:g}")
        _check_whole("small_data", self.small_data, 0)
        _check_whole("max_members", self.max_members, 1)
        if self.max_per_family is not None:
            _check_whole("max_per_family", self.max_per_family, 1)
        _check_whole("reduction", self.reduction, 1)
        if self.weights is not None and (not isinstance(self.weights, str) or not self.weights):
            raise ValueError(f"weights must be auto, pretrained, random or a folder, not {self.weights!r}")
        if self.budget is not None:
            parse_duration(self.budget)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know, one line each."""
        return tuple(line for tier in self.tiers for line in tier.notes)

    @property
    def text(self) -> str:
        """The resolved space as the text of a space file, which reads back as an equal space."""
        return write_yaml(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the resolved space as a space file holds it, inheritance spelt out."""
        return {
            "name": self.name,
            "question": self.question,
            "metric": self.metric,
            "cost_matrix": {truth: dict(row) for truth, row in self.cost_matrix.items()},
            "folds": self.folds,
            "test_share": self.test_share,
            "min_effect": self.min_effect,
            "max_collapsed_share": self.max_collapsed_share,
            "small_data": self.small_data,
            "max_members": self.max_members,
            "max_per_family": self.max_per_family,
            "reduction": self.reduction,
            "weights": self.weights,
            "budget": self.budget,
            "audit": dict(self.audit),
            "tiers": {tier.name: tier.to_dict() for tier in self.tiers},
        }


def _check_listed(key: str, values: tuple[Any, ...]) -> None:
    if not values:
        raise ValueError(f"{key} is an empty list")
    for value in values:
        if key == "backbone" and (not isinstance(value, str) or not value):
            raise ValueError(f"backbone must be a name or a list of names, not {value!r}")
        if key == "resolution" and value != "native":
            if isinstance(value, str):
                raise ValueError(f"resolution must be a whole number of px or `native`, not {value!r}")
            _check_whole("resolution", value, 1)
        if key == "freeze" and not 0.0 <= value <= 1.0:
            raise ValueError(f"freeze must lie in 0.0 (all trained) to 1.0 (head only), not {value:g}")
    try:
        check_unique(values)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error


def _check_field(name: str, searched: Field) -> None:
    if name in FIXED_FIELDS and isinstance(searched, Choice | LogUniform | Uniform | Around):
        raise ValueError(f"recipe.{name} must be one number within a tier, because trials are compared at equal epochs")
    for value in _extremes(name, searched):
        _check_value(name, value)


def _extremes(name: str, searched: Field) -> Iterator[Scalar]:
    """Yield the values that decide whether all of the field's values are allowed."""
    match searched:
        case Choice():
            yield from searched.values
        case LogUniform() | Uniform():
            yield from (searched.low, searched.high)
        case Around():
            for start in sorted(_starts(name)):
                yield from (start * searched.low, start * searched.high)
        case _:
            yield searched


def _starts(name: str) -> set[float]:
    starts: set[float] = set()
    for cells in START_RECIPES.values():
        value = cells[name].value
        if isinstance(value, (bool, str)) or value <= 0:
            raise ValueError(f"recipe.{name} cannot be searched around its start, which is {value!r}")
        starts.add(value)
    return starts


def _check_value(name: str, value: Scalar) -> None:
    """Let the recipe itself judge a value."""
    values: dict[str, Any] = {name: value}
    try:
        replace(start_recipe("random"), **values)
    except ValueError as error:
        raise ValueError(f"recipe.{str(error).removeprefix('recipe.')}") from error


def _check_override(name: str, value: Scalar, searched: Field | None) -> None:
    if name in FIXED_FIELDS:
        raise ValueError(f"overrides: {name} must be the same for all backbones of a tier")
    if not isinstance(value, Scalar):
        raise ValueError(f"overrides: {name} must be a single value, not {value!r}")
    _check_value(name, value)
    match searched:
        case Choice() if value not in searched.values:
            raise ValueError(f"overrides: {name} {value} is none of {', '.join(map(str, searched.values))}")
        case LogUniform() | Uniform() if not searched.low <= float(value) <= searched.high:
            raise ValueError(f"overrides: {name} {value} lies outside {searched.low:g} to {searched.high:g}")
        case Around():
            if float(value) <= 0:
                raise ValueError(f"overrides: {name} is searched around its start, which cannot be {value}")
            for end in (searched.low, searched.high):
                _check_value(name, float(value) * end)
        case _:
            pass


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"the name of {what} must be letters, digits, - and _ after a letter, not {name!r}")


def _check_text(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{key} must be text, not {value!r}")


def _check_whole(key: str, value: object, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{key} must be a whole number of at least {low}, not {value!r}")


def _check_one_of(key: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(allowed)}, not {value!r}")
