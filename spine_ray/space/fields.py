"""What a recipe field may be in a space: a fixed value or a distribution with its starting point."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from spine_ray.space.config import Recipe
from spine_ray.space.keys import check_names

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values; the first is where the search starts."""

    values: tuple[Scalar, ...]

    def __post_init__(self) -> None:
        """Refuse an empty list and values that are there twice."""
        if not self.values:
            raise ValueError("an empty list leaves nothing to choose from")
        check_unique(self.values)

    @property
    def start(self) -> Scalar:
        """The first value."""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class LogUniform:
    """Uniform in the logarithm between two positive numbers."""

    low: float
    high: float
    start: float

    def __post_init__(self) -> None:
        """Refuse ranges that are empty, not positive or without their start."""
        _check_range("log_uniform", self.low, self.high, self.start)
        if self.low <= 0:
            raise ValueError(f"log_uniform must begin above 0, not at {self.low:g}")


@dataclass(frozen=True, slots=True)
class Uniform:
    """Uniform between two numbers."""

    low: float
    high: float
    start: float

    def __post_init__(self) -> None:
        """Refuse ranges that are empty or without their start."""
        _check_range("uniform", self.low, self.high, self.start)


@dataclass(frozen=True, slots=True)
class Around:
    """Log-uniform between start / factor and start * factor, where start is the start recipe's value.

    What is sampled is a multiplier in `low` to `high` whose start is 1, so that one distribution serves every
    freeze class although their start recipes differ.
    """

    factor: float

    def __post_init__(self) -> None:
        """Refuse factors that leave no range."""
        if not (math.isfinite(self.factor) and self.factor > 1):
            raise ValueError(f"around_start must be a factor above 1, not {self.factor:g}")

    @property
    def low(self) -> float:
        """The smallest multiplier."""
        return 1.0 / self.factor

    @property
    def high(self) -> float:
        """The largest multiplier."""
        return self.factor

    @property
    def start(self) -> float:
        """The multiplier that leaves the start recipe as it is."""
        return 1.0


Distribution = Choice | LogUniform | Uniform | Around
Field = Scalar | Distribution

FORMS = (
    "a value, a list, {log_uniform: [low, high], start: x}, {uniform: [low, high], start: x} or {around_start: factor}"
)
_KINDS = ("log_uniform", "uniform", "around_start")
_FLOAT_FIELDS = frozenset(field.name for field in fields(Recipe) if field.type is float)


def read_field(name: str, raw: object) -> Field:
    """Return what a space file says of one recipe field.

    Whole numbers become floats where the recipe holds a float, so that `1` and `1.0` are one configuration.

    Raises:
        ValueError: If `raw` has none of the documented forms, or its numbers make no distribution.
    """
    if isinstance(raw, (list, tuple)):
        return Choice(tuple(_scalar(name, value) for value in raw))
    if isinstance(raw, Mapping):
        return _read_distribution(raw)
    return _scalar(name, raw)


def field_to_plain(field: Field) -> Any:
    """Return the form in which a space file holds the field."""
    match field:
        case Choice():
            return list(field.values)
        case LogUniform():
            return {"log_uniform": [field.low, field.high], "start": field.start}
        case Uniform():
            return {"uniform": [field.low, field.high], "start": field.start}
        case Around():
            return {"around_start": field.factor}
        case _:
            return field


def check_unique(values: tuple[Any, ...]) -> None:
    """Refuse a list that holds a value twice: a search would look there twice as often.

    Raises:
        ValueError: Naming the value.
    """
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{value} is there twice")


def as_number(what: str, raw: object) -> float:
    """Return a number as a float.

    Raises:
        ValueError: If `raw` is no number.
    """
    if isinstance(raw, bool) or not isinstance(raw, (int, float)):
        raise ValueError(f"{what} must be a number, not {raw!r}")
    return float(raw)


def _read_distribution(raw: Mapping[str, object]) -> Distribution:
    kind = next((key for key in _KINDS if key in raw), None)
    if kind is None:
        check_names(raw, _KINDS, "a distribution")
        raise ValueError(f"a distribution is one of {', '.join(_KINDS)}, not {dict(raw)!r}")
    if kind == "around_start":
        check_names(raw, ("around_start",), "around_start")
        return Around(as_number("around_start", raw["around_start"]))
    check_names(raw, (kind, "start"), kind)
    ends = raw[kind]
    if not isinstance(ends, (list, tuple)) or len(ends) != 2:
        raise ValueError(f"{kind} must be [low, high], not {ends!r}")
    if "start" not in raw:
        raise ValueError(f"{kind} needs its starting point: {{{kind}: [low, high], start: x}}")
    low, high = (as_number(kind, end) for end in ends)
    start = as_number(f"the start of {kind}", raw["start"])
    return LogUniform(low, high, start) if kind == "log_uniform" else Uniform(low, high, start)


def _scalar(name: str, raw: object) -> Scalar:
    if not isinstance(raw, (bool, int, float, str)):
        raise ValueError(f"must be {FORMS}, not {raw!r}")
    if name in _FLOAT_FIELDS and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    return raw


def _check_range(kind: str, low: float, high: float, start: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"{kind} must go from a lower to a higher number, not from {low:g} to {high:g}")
    if not low <= start <= high:
        raise ValueError(f"the start {start:g} lies outside {low:g} to {high:g}")
