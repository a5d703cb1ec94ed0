"""What a search will take: ranges over rehearsals, for every way the gates can decide; and what it took in the end."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

COVERED = (0.05, 0.95)
"""Share of the rehearsals below the low and the high end of a span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of one figure."""

    low: float
    high: float

    def __post_init__(self) -> None:
        """Refuse a range that is none."""
        if not 0.0 <= self.low <= self.high:
            raise ValueError(f"a span goes from a low end of at least 0 to a high end, not {self.low} to {self.high}")

    def __contains__(self, value: float) -> bool:
        """Say whether a figure lies in the range."""
        return self.low <= value <= self.high

    def times(self, low: float, high: float) -> "Span":
        """Return the range with its ends multiplied."""
        return Span(self.low * low, self.high * high)

    @classmethod
    def of(cls, values: Sequence[float]) -> "Span":
        """Return the range that holds all but the outermost of some figures."""
        low, high = np.quantile(values, COVERED)
        return cls(float(low), float(high))

    @classmethod
    def around(cls, spans: Sequence["Span"]) -> "Span":
        """Return the range that holds all of some ranges."""
        return cls(min(span.low for span in spans), max(span.high for span in spans))


@dataclass(frozen=True, kw_only=True, slots=True)
class Effort:
    """What one part of a search takes."""

    trials: float = 0.0
    epochs: float = 0.0
    """Over all folds."""
    images: float = 0.0
    """Trained on, counting repeats."""
    device_seconds: float = 0.0
    """Summed over the workers."""
    wall_seconds: float = 0.0
    disk_mb: float = 0.0
    """Of activations; they are in the cache, which evicts them by age."""
    peak_mb: float = 0.0
    """Of all workers together."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EffortSpan:
    """Ranges of what one part of a search takes."""

    trials: Span
    epochs: Span
    images: Span
    device_seconds: Span
    wall_seconds: Span
    disk_mb: Span
    peak_mb: Span

    @classmethod
    def of(cls, efforts: Sequence[Effort]) -> "EffortSpan":
        """Return the ranges over rehearsals of the same part."""
        return cls(**{name: Span.of([getattr(each, name) for each in efforts]) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One way the gates can decide, and what the search takes then."""

    name: str
    """In words."""
    verdicts: tuple[str, ...]
    """Of the gates, in the order in which they are asked."""
    tiers: tuple[tuple[str, EffortSpan], ...]
    """By name, in climbing order; a tier that stays shut is not there."""
    whole: EffortSpan
    """From the first word to the answer, what is spent already included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a search will take."""

    spent_seconds: float
    """Wall time until the prediction was made: start, looking at the data, decoding, measuring."""
    pixels_mb: float
    """Of the decoded pictures on disk."""
    workers: int
    device: str
    outcomes: tuple[Outcome, ...]
    note: str = ""
    """What the figures rest on, where it is not a measurement of this machine."""

    def __post_init__(self) -> None:
        """Refuse a prediction of nothing."""
        if not self.outcomes:
            raise ValueError("a prediction needs at least one outcome")

    @property
    def wall_seconds(self) -> Span:
        """Over all outcomes."""
        return Span.around([outcome.whole.wall_seconds for outcome in self.outcomes])

    def outcome_of(self, verdicts: Sequence[str]) -> Outcome | None:
        """Return the outcome in which the gates decide like this; None where nobody thought of it."""
        return next((outcome for outcome in self.outcomes if outcome.verdicts == tuple(verdicts)), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain values for JSON."""
        return asdict(self)


def told_against(prediction: Prediction, verdicts: Sequence[str], wall_seconds: float) -> dict[str, Any]:
    """Return what was predicted for the way the gates decided, beside what it took, as plain values.

    Args:
        prediction: Made before anything trained.
        verdicts: How the gates decided.
        wall_seconds: From the first word to the answer.
    """
    outcome = prediction.outcome_of(verdicts)
    span = outcome.whole.wall_seconds if outcome else prediction.wall_seconds
    return {
        "outcome": outcome.name if outcome else "another way than the predicted ones",
        "verdicts": list(verdicts),
        "predicted_low": span.low,
        "predicted_high": span.high,
        "actual": wall_seconds,
        "is_inside": wall_seconds in span,
    }
