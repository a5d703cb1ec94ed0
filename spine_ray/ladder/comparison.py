"""The controlled comparison: trials side by side on the same rows, with intervals that hold for all pairs at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.metrics import group_sums

_DRAWS = 1000
_LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far trials are apart on the same rows; losses in nats, lower is better."""

    log_losses: NDArray[np.float64]
    """(trials,)."""
    margins: NDArray[np.float64]
    """(trials, trials), half the width of the interval of each difference; 0 on the diagonal."""

    def __post_init__(self) -> None:
        """Refuse margins that are not one a pair."""
        count = len(self.log_losses)
        if not count or self.margins.shape != (count, count):
            raise ValueError(f"{count} trials need (trials, trials) margins, not {self.margins.shape}")

    @property
    def leader(self) -> int:
        """The trial with the lowest log-loss."""
        return int(self.log_losses.argmin())

    @property
    def order(self) -> tuple[int, ...]:
        """The trials, lowest log-loss first."""
        return tuple(np.argsort(self.log_losses, kind="stable").tolist())

    def behind(self, trial: int) -> tuple[float, float]:
        """Return by how much a trial is worse than the leader, and half the width of that interval, nats."""
        return float(self.log_losses[trial] - self.log_losses[self.leader]), float(self.margins[trial, self.leader])

    def is_within_noise(self, trial: int) -> bool:
        """Say whether the rows cannot tell a trial from the leader."""
        gap, margin = self.behind(trial)
        return gap <= margin


def compare_losses(losses: NDArray[np.float64], groups: ArrayLike | None, *, seed: int) -> Comparison:
    """Compare trials pairwise by a bootstrap of whole groups of rows.

    The margins are simultaneous: in 95 % of samples of rows all differences of all pairs lie in their intervals at
    once, so they hold for whichever trial turned out to lead. They are the bootstrap form of Tukey's: the quantile of
    the largest of the studentised differences (Westfall and Young 1993, "max-t"). They cover rows, not seeds.

    Args:
        losses: (trials, samples), the same rows for all, nats.
        groups: (samples,), rows of one group stay together; None: every row for itself.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are no trials or fewer than 2 groups.
    """
    if losses.ndim != 2 or not len(losses):
        raise ValueError(f"a comparison needs losses as (trials, samples), not {losses.shape}")
    means = _resampled_means(losses, groups, seed)
    observed = losses.mean(axis=1)
    apart = means[:, :, None] - means[:, None, :]
    spread = apart.std(axis=0)
    centre = observed[:, None] - observed[None, :]
    scale = np.where(spread > 0.0, spread, np.inf)
    largest = (np.abs(apart - centre) / scale).max(axis=(1, 2))
    return Comparison(log_losses=observed, margins=float(np.quantile(largest, _LEVEL)) * spread)


def _resampled_means(losses: NDArray[np.float64], groups: ArrayLike | None, seed: int) -> NDArray[np.float64]:
    """Return the mean loss of every trial in every resample, (draws, trials)."""
    sums, sizes = group_sums(losses, groups)
    count = len(sizes)
    if count < 2:
        raise ValueError(f"an interval needs at least 2 groups of rows, not {count}")
    table = np.ascontiguousarray(np.vstack([sums, sizes]).T)
    generator = np.random.default_rng(seed)
    means = []
    batch = max(1, 2**21 // count)
    for start in range(0, _DRAWS, batch):
        size = min(batch, _DRAWS - start)
        drawn = generator.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        totals = times @ table
        means.append(totals[:, :-1] / totals[:, -1:])
    return np.concatenate(means)
