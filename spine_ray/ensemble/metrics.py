"""Scores of log-probabilities against labels, and the interval of a mean when rows come in groups."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_NORMAL_975 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""


def row_losses(log_probs: NDArray[np.float64], labels: ArrayLike) -> NDArray[np.float64]:
    """Return the log-loss of each row, (samples,), nats; lower is better. `log_probs` is (samples, classes)."""
    index = np.asarray(labels)
    losses: NDArray[np.float64] = -log_probs[np.arange(len(index)), index]
    return losses


def log_loss(log_probs: NDArray[np.float64], labels: ArrayLike) -> float:
    """Return the mean log-loss, nats; lower is better. `log_probs` is (samples, classes)."""
    return float(row_losses(log_probs, labels).mean())


def accuracy(log_probs: NDArray[np.float64], labels: ArrayLike) -> float:
    """Return the share of rows whose likeliest class is the label; higher is better."""
    return float((np.argmax(log_probs, axis=1) == np.asarray(labels)).mean())


def balanced_accuracy(log_probs: NDArray[np.float64], labels: ArrayLike) -> float:
    """Return the mean recall of the classes that have rows; higher is better."""
    hits, actual, _ = _counts(log_probs, labels)
    present = actual > 0
    return float((hits[present] / actual[present]).mean())


def macro_f1(log_probs: NDArray[np.float64], labels: ArrayLike) -> float:
    """Return the mean F1 of the classes that have rows or are predicted; higher is better."""
    hits, actual, predicted = _counts(log_probs, labels)
    total = actual + predicted
    present = total > 0
    return float((2.0 * hits[present] / total[present]).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """How often the likeliest class is right, by how sure the model was of it; bins without rows are left out."""

    confidence: NDArray[np.float64]
    """(bins,), mean probability of the likeliest class, ascending."""
    accuracy: NDArray[np.float64]
    """(bins,), share of rows on which it is the label."""
    rows: NDArray[np.int64]
    """(bins,)."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between the two over the rows, 0 to 1; lower is better."""
        return float((np.abs(self.accuracy - self.confidence) * self.rows).sum() / self.rows.sum())


def reliability(log_probs: NDArray[np.float64], labels: ArrayLike, *, bins: int = 15) -> Reliability:
    """Return how confidence and accuracy go together, in equally wide bins of confidence, closed on the right.

    Args:
        log_probs: (samples, classes).
        labels: (samples,).
        bins: How many bins there are from 0 to 1.
    """
    confidence = np.exp(np.max(log_probs, axis=1))
    is_right = np.argmax(log_probs, axis=1) == np.asarray(labels)
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    rows = np.bincount(place, minlength=bins)
    used = rows > 0
    return Reliability(
        confidence=np.bincount(place, weights=confidence, minlength=bins)[used] / rows[used],
        accuracy=np.bincount(place, weights=is_right, minlength=bins)[used] / rows[used],
        rows=rows[used],
    )


def expected_calibration_error(log_probs: NDArray[np.float64], labels: ArrayLike, *, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy over equally wide bins of confidence; lower is better.

    The top-label form of Guo et al. 2017 (arXiv 1706.04599).
    """
    return reliability(log_probs, labels, bins=bins).error


def expected_cost(log_probs: NDArray[np.float64], labels: ArrayLike, costs: NDArray[np.float64]) -> float:
    """Return what the decisions of least expected cost cost in the mean; lower is better.

    Args:
        log_probs: (samples, classes).
        labels: (samples,).
        costs: (classes, classes), of deciding the second where the first is true.
    """
    decisions = (np.exp(log_probs) @ costs).argmin(axis=1)
    return float(costs[np.asarray(labels), decisions].mean())


def scores_of(log_probs: NDArray[np.float64], labels: ArrayLike, costs: NDArray[np.float64]) -> dict[str, float]:
    """Return all the scores by name; arguments as those of `expected_cost`."""
    return {
        "expected_cost": expected_cost(log_probs, labels, costs),
        "log_loss": log_loss(log_probs, labels),
        "accuracy": accuracy(log_probs, labels),
        "balanced_accuracy": balanced_accuracy(log_probs, labels),
        "macro_f1": macro_f1(log_probs, labels),
        "calibration_error": expected_calibration_error(log_probs, labels),
    }


def bootstrap_interval(
    values: ArrayLike, groups: ArrayLike | None, *, seed: int, level: float = 0.95, draws: int = 1000
) -> tuple[float, float]:
    """Return the percentile interval of the mean of `values`, resampling whole groups.

    Args:
        values: (samples,).
        groups: (samples,), rows with equal entries stay together; None if every row stands for itself.
        seed: Seed of the resampling.
        level: Coverage, between 0 and 1.
        draws: Number of resamples.

    Raises:
        ValueError: If the shapes differ or there are fewer than two groups.
    """
    sums, sizes = group_sums(np.asarray(values, dtype=np.float64)[None, :], groups)
    count = len(sizes)
    if count < 2:
        raise ValueError(f"an interval needs at least 2 groups of rows, not {count}")
    generator = np.random.default_rng(seed)
    batch = max(1, 2**20 // count)
    means = []
    for start in range(0, draws, batch):
        drawn = generator.integers(0, count, size=(min(batch, draws - start), count), dtype=np.int32)
        means.append(sums[0][drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def group_sums(
    values: NDArray[np.float64], groups: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum (series, samples) over groups of samples.

    Returns:
        The sums, (series, groups), and the number of rows of each group, (groups,).

    Raises:
        ValueError: If there is not one group a sample.
    """
    samples = values.shape[1]
    if groups is None:
        return values, np.ones(samples)
    if np.shape(groups) != (samples,):
        raise ValueError(f"groups must have one entry a row: {samples} rows, groups {np.shape(groups)}")
    _, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    sums = np.empty((len(values), len(sizes)))
    for series, row in zip(values, sums, strict=True):
        row[:] = np.bincount(codes, weights=series, minlength=len(sizes))
    return sums, sizes.astype(np.float64)


def _counts(
    log_probs: NDArray[np.float64], labels: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return per class: rows predicted rightly, rows, rows predicted as it."""
    truth = np.asarray(labels)
    predicted = np.argmax(log_probs, axis=1)
    classes = np.shape(log_probs)[1]
    return (
        np.bincount(truth[predicted == truth], minlength=classes),
        np.bincount(truth, minlength=classes),
        np.bincount(predicted, minlength=classes),
    )


def share_interval(hits: ArrayLike, groups: ArrayLike | None, *, seed: int) -> tuple[float, float]:
    """Return a 95 % interval of a share of rows: the grouped bootstrap, or Wilson's where it cannot speak.

    When all rows are right (or all are wrong) every resample looks the same, so the bootstrap would claim certainty;
    Wilson's score interval (1927) over the groups does not.

    Args:
        hits: (samples,), 1 for right, 0 for wrong.
        groups: (samples,), rows of one group stay together; None: every row for itself.
        seed: Seed of the resampling.
    """
    right = np.asarray(hits, np.float64)
    share = float(right.mean())
    if 0.0 < share < 1.0:
        return bootstrap_interval(right, groups, seed=seed)
    count = len(right) if groups is None else len(np.unique(np.asarray(groups)))
    low, high = wilson_interval(np.array([share]), np.array([count]))
    return float(low[0]), float(high[0])


def wilson_interval(
    shares: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of Wilson's 95 % score interval (1927) of shares of so many independent cases each."""
    square = _NORMAL_975**2
    middle = (counts * shares + square / 2) / (counts + square)
    reach = _NORMAL_975 * np.sqrt(counts * shares * (1.0 - shares) + square / 4) / (counts + square)
    return np.clip(middle - reach, 0.0, 1.0), np.clip(middle + reach, 0.0, 1.0)
