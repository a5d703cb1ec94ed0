"""How predictions do on labelled rows: four scores, each with its interval, from a few numbers a row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import bootstrap_interval, row_losses, share_interval

BINS = 15
"""Of confidence, equally wide."""
_DRAWS = 400
_PARTS = 5


@dataclass(frozen=True, slots=True)
class Score:
    """One number with its 95 % interval over rows, or groups of rows."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Scorecard:
    """All that is said of predictions on labelled rows."""

    rows: int
    log_loss: Score
    """nats; lower is better."""
    accuracy: Score
    balanced_accuracy: Score
    """Mean recall of the classes that have rows."""
    calibration_error: Score
    """Mean gap between confidence and accuracy over bins of confidence; lower is better, never quite 0 by chance.

    Resampled rows have more of that chance than the rows themselves, which the interval leaves out.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What is kept of each labelled row: little, so that a million rows are no burden."""

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    losses: NDArray[np.float64]
    """nats."""
    confidence: NDArray[np.float64]
    groups: NDArray[np.int64] | None
    """Rows of one group stay together in intervals; None: every row for itself."""


def score_rows(judged: Judged, *, seed: int = 0) -> Scorecard:
    """Score predictions.

    Raises:
        ValueError: If there are fewer than two rows, or groups of rows.
    """
    hits = (judged.predicted == judged.labels).astype(np.float64)
    balanced, calibration = _resampled(judged, hits, seed)
    return Scorecard(
        rows=len(hits),
        log_loss=Score(float(judged.losses.mean()), *bootstrap_interval(judged.losses, judged.groups, seed=seed)),
        accuracy=Score(float(hits.mean()), *share_interval(hits, judged.groups, seed=seed)),
        balanced_accuracy=balanced,
        calibration_error=calibration,
    )


@dataclass(frozen=True, slots=True)
class Refitted:
    """A temperature fitted on labelled rows, and what it does to rows that it was not fitted on."""

    temperature: float
    """By which the pool's log-probabilities are divided once more."""
    before: float
    """Log-loss without it, nats."""
    after: float
    """Log-loss with temperatures fitted on the other rows, nats."""


def refit_temperature(predicted: NDArray[np.floating], labels: ArrayLike, groups: ArrayLike | None) -> Refitted:
    """Fit one temperature on labelled rows, and judge it cross-fitted in five parts.

    Args:
        predicted: Log-probabilities (rows, classes).
        labels: (rows,), class indices.
        groups: (rows,), rows of one group stay in one part; None: every row for itself.
    """
    truth = np.asarray(labels)
    _, owner = np.unique(np.arange(len(truth)) if groups is None else np.asarray(groups), return_inverse=True)
    part = np.random.default_rng(0).permutation(owner.max() + 1)[owner] % _PARTS
    after = np.array(row_losses(np.asarray(predicted, np.float64), truth))
    before = float(after.mean())
    for each in np.unique(part) if owner.max() else ():
        is_here = part == each
        temperature = fit_temperature(predicted[~is_here], truth[~is_here])
        after[is_here] = row_losses(log_probs(predicted[is_here], temperature), truth[is_here])
    return Refitted(fit_temperature(predicted, truth), before, float(after.mean()))


def _resampled(judged: Judged, hits: NDArray[np.float64], seed: int) -> tuple[Score, Score]:
    """Return balanced accuracy and calibration error, resampling whole groups."""
    places = np.arange(len(hits)) if judged.groups is None else np.asarray(judged.groups)
    _, owner = np.unique(places, return_inverse=True)
    count = int(owner.max()) + 1
    gaps = hits - judged.confidence
    bins = np.clip(np.ceil(judged.confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)

    def both(weights: NDArray[np.float64]) -> tuple[float, float]:
        rows = np.bincount(judged.labels, weights=weights)
        right = np.bincount(judged.labels, weights=weights * hits)
        present = rows > 0
        apart = np.abs(np.bincount(bins, weights=weights * gaps, minlength=BINS)).sum()
        return float((right[present] / rows[present]).mean()), float(apart / weights.sum())

    generator = np.random.default_rng(seed)
    drawn = np.array(
        [
            both(np.bincount(generator.integers(0, count, count), minlength=count)[owner].astype(np.float64))
            for _ in range(_DRAWS)
        ]
    )
    balanced, calibration = both(np.ones(len(hits)))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    chance = drawn[:, 1].mean() - calibration
    low[1], high[1] = min(max(0.0, low[1] - chance), calibration), max(high[1] - chance, calibration)
    if balanced in (0.0, 1.0):  # every resample looks the same: Wilson's interval can speak
        low[0], high[0] = share_interval(hits, judged.groups, seed=seed)
    return Score(balanced, float(low[0]), float(high[0])), Score(calibration, float(low[1]), float(high[1]))
