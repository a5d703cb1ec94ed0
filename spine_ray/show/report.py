"""What a report shows, as plain values: whoever gathers them knows studies, whoever draws them knows pages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.board import Answer, BoardRow, EnsembleBoard, FailureRow, FinalBoard
from spine_ray.show.words import duration_text
from spine_ray.study.events import Status

PictureKind = Literal["disagree", "all err"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPoint:
    """A completed trial: what it reaches and what it costs. Log-losses are OOF, nats; lower is better."""

    trial_id: str
    tier: str
    backbone: str
    family: str
    resolution: int
    """px."""
    freeze: float
    is_start: bool
    log_loss: float
    low: float | None = None
    """Lower end of the interval; None where it was not computed."""
    high: float | None = None
    minutes: float
    """Measured time of training and scoring, min."""
    cost_ms: float | None
    """Measured inference time of one image, ms; None where it was not measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """How a trial's log-loss fell."""

    trial_id: str
    tier: str
    backbone: str
    status: Status | None
    """None while it runs, or where it was interrupted."""
    steps: tuple[int, ...]
    """Epochs so far over all folds."""
    log_losses: tuple[float, ...]
    """Of the held-out rows of the folds so far, temperature-scaled, nats; lower is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disagreements:
    """How differently trials see the same rows, two by two, in the order of their families."""

    names: tuple[str, ...]
    families: tuple[str, ...]
    is_member: tuple[bool, ...]
    nats: tuple[tuple[float, ...], ...]
    """What an even log pool of the two gains over the mean of both, whatever the labels; 0 for the same answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeGain:
    """What ensembles of at most so many members gain over the best single model, cross-fitted; more is better."""

    members: int
    gain: float
    """Nats."""
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ReliabilityCurve:
    """How often a model is right by how sure it is, on OOF rows."""

    name: str
    error: float
    """Expected calibration error, 0 to 1; lower is better."""
    confidence: tuple[float, ...]
    """Mean of each bin, ascending."""
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    """Lower ends of the intervals of the accuracies, each row by itself."""
    high: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """How the answer does on one class, on OOF rows."""

    name: str
    rows: int
    """Rows of the class."""
    predicted: int
    """Rows that were taken for it."""
    hits: int
    """Rows that are both."""
    confused_with: str
    """What its rows are most often taken for; empty where they never are."""
    confused_rows: int

    @property
    def recall(self) -> float | None:
        """Share of its rows that were recognised; None where it has none."""
        return self.hits / self.rows if self.rows else None

    @property
    def precision(self) -> float | None:
        """Share of the rows taken for it that are of it; None where none were."""
        return self.hits / self.predicted if self.predicted else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A dev row worth a look, and what was said of it out of fold."""

    kind: PictureKind
    sample_id: str
    path: str
    label: str
    """The class it is filed under."""
    answer: str
    """The class that the answer holds for likeliest."""
    share: float
    """The probability that it gives to it."""
    disagreement: float
    """Weighted mean of KL(pool || member), nats."""
    said: tuple[tuple[str, str, float], ...]
    """Of each member: its name, the class it holds for likeliest, and the probability."""
    jpeg: bytes
    """A thumbnail."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Pictures of dev rows on which members disagree or all err; none of the test split."""

    pictures: tuple[Picture, ...]
    all_err: int
    """Rows on which every member errs."""
    rows: int
    note: str = ""
    """Why pictures are missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """What was predicted for one way the gates can decide."""

    name: str
    low: float
    """Wall time, s."""
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """What a search was predicted to take and what it took, wall time in seconds."""

    expected: tuple[Expected, ...]
    happened: str
    """The way the gates did decide; empty while nobody knows."""
    low: float | None
    high: float | None
    actual: float | None

    @property
    def line(self) -> str:
        """The comparison in words; empty while the search has not ended."""
        if self.actual is None or self.low is None or self.high is None:
            return ""
        beside = "inside" if self.low <= self.actual <= self.high else "outside"
        span = f"{self.low / 60:.1f} to {self.high / 60:.1f} min"
        return f"predicted {span} ({self.happened}), took {duration_text(self.actual)}: {beside} the range"


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPage:
    """All that a report shows."""

    study: str
    """Where it is."""
    made: str
    """When, as it is to be read."""
    answer: Answer
    board: tuple[BoardRow, ...]
    points: tuple[TrialPoint, ...] = ()
    """Every completed trial of the present rows."""
    curves: tuple[Curve, ...] = ()
    gates: tuple[GateDecision, ...] = ()
    ensemble: EnsembleBoard | None = None
    sizes: tuple[SizeGain, ...] = ()
    disagreements: Disagreements | None = None
    calibration: tuple[ReliabilityCurve, ...] = ()
    """Of the answer first, then of each member."""
    error_before: float | None = None
    """Expected calibration error of the answer without any temperature."""
    classes: tuple[ClassRow, ...] = ()
    """The worst recognised first."""
    gallery: Gallery | None = None
    final: FinalBoard | None = None
    changed: tuple[str, ...] = ()
    """What the last search changed, a sentence each."""
    failures: tuple[FailureRow, ...] = ()
    timing: Timing | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a reader must know of the study by name: rows, classes, folds, weights, seed, versions."""
    reproduce: tuple[str, ...] = ()
    """Commands that made the study."""
    made_of: Mapping[str, str] = field(default_factory=dict)
    """What these commands have to find again, by name: versions, fingerprints, hashes."""

    @property
    def title(self) -> str:
        """The study's own name: the last part of where it is."""
        return PurePath(self.study).name or self.study

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers of which anything is shown, from the first."""
        named = [*(curve.tier for curve in self.curves), *(row.tier for row in self.board)]
        return tuple(dict.fromkeys([*named, *(point.tier for point in self.points)]))
