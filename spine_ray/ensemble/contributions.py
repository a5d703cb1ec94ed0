"""What each member brings: left out, shared out by Shapley, and how members differ."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.pool import PoolName, member_disagreement, pooled

MOST_FOR_SHAPLEY = 12
"""Members up to which all subsets are tried: 4096 of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How a pool does before its final temperature."""

    log_loss: float
    accuracy: float

    def __sub__(self, other: "Scores") -> "Scores":
        """Return the differences."""
        return Scores(log_loss=self.log_loss - other.log_loss, accuracy=self.accuracy - other.accuracy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """A pool taken apart; one entry a member."""

    whole: Scores
    left_out: tuple[Scores | None, ...]
    """The pool without the member minus the whole pool: a log-loss above 0 is what it saves. None for one model."""
    shapley: tuple[Scores, ...] | None
    """The member's part of the way from the class frequencies to the pool; the parts add up to it all. A useful
    member's log-loss is below 0, its accuracy above. None for more than 12 members."""
    disagreement: tuple[float, ...]
    """Mean KL(pool || member), nats."""
    mean_loss: float
    """Weighted mean of the members' log-losses, nats."""
    gained: float
    """What disagreement takes off it: `whole.log_loss` = `mean_loss` - `gained`, exactly, nats."""
    error_inconsistency: NDArray[np.float64]
    """(members, members) share of rows on which exactly one of two is right (Gontijo-Lopes et al. 2021)."""


def take_apart(
    values: NDArray[np.float64], labels: NDArray[np.int64], weights: Sequence[float], pool: PoolName
) -> Parts:
    """Take a pool apart.

    Args:
        values: (members, samples, classes), the members' calibrated, floored log-probabilities.
        labels: (samples,).
        weights: (members,), above 0, summing to 1; those of a subset are scaled up to sum to 1.
        pool: Which pool.
    """
    shares = np.asarray(weights, np.float64)
    members = range(len(values))
    pools = _Subsets(values, labels, shares, pool)
    whole = pools.scores(members)
    rest = [[other for other in members if other != member] for member in members]
    mixed = pooled(pool, values, shares)
    every = np.arange(len(labels))
    losses = np.array([-member[every, labels].mean() for member in values])
    is_right = np.stack([member.argmax(axis=1) == labels for member in values])
    return Parts(
        whole=whole,
        left_out=tuple(pools.scores(others) - whole if others else None for others in rest),
        shapley=_shapley(pools, len(values)) if len(values) <= MOST_FOR_SHAPLEY else None,
        disagreement=tuple(map(float, member_disagreement(mixed, values))),
        mean_loss=float(shares @ losses),
        gained=float(shares @ losses) - whole.log_loss,
        error_inconsistency=(is_right[:, None] != is_right[None, :]).mean(axis=2),
    )


class _Subsets:
    """Pools of some of the members, by adding and subtracting."""

    def __init__(
        self, values: NDArray[np.float64], labels: NDArray[np.int64], shares: NDArray[np.float64], pool: PoolName
    ) -> None:
        lines = values if pool == "log" else np.exp(values)
        # (members, classes, samples): few classes, so that reductions run along the rows
        self._lines = np.ascontiguousarray(lines.transpose(0, 2, 1)) * shares[:, None, None]
        self._shares, self._labels, self._pool = shares, labels, pool
        self._every = np.arange(len(labels))

    def add(self, total: NDArray[np.float64], member: int, sign: int) -> None:
        """Add a member to a sum of members, or take it away."""
        total += sign * self._lines[member]

    def empty(self) -> NDArray[np.float64]:
        """Return the sum of no members."""
        return np.zeros(self._lines.shape[1:])

    def scores(self, members: Sequence[int]) -> Scores:
        """Return how a subset does."""
        return self.scores_of(self._lines[list(members)].sum(axis=0), float(self._shares[list(members)].sum()))

    def scores_of(self, total: NDArray[np.float64], weight: float) -> Scores:
        """Return how the pool of a sum of members does; of no members, how the class frequencies do."""
        if weight == 0.0:
            shares = np.bincount(self._labels) / len(self._labels)
            present = shares[shares > 0]
            return Scores(log_loss=-float(present @ np.log(present)), accuracy=float(shares.max()))
        mean = total / weight
        of_label = mean[self._labels, self._every]
        losses = np.log(np.exp(mean).sum(axis=0)) - of_label if self._pool == "log" else -np.log(of_label)
        return Scores(log_loss=float(losses.mean()), accuracy=float((mean.argmax(axis=0) == self._labels).mean()))

    def weight(self, is_in: NDArray[np.bool_]) -> float:
        """Return the weight of a subset; exactly 0 of none."""
        return float(self._shares[is_in].sum()) if is_in.any() else 0.0


def _shapley(pools: _Subsets, members: int) -> tuple[Scores, ...]:
    """Return the exact Shapley values (Shapley 1953): all subsets in Gray-code order, one member changed at a time."""
    losses, accuracies = np.zeros(2**members), np.zeros(2**members)
    is_in, total = np.zeros(members, np.bool_), pools.empty()
    for step in range(2**members):
        subset = step ^ (step >> 1)
        if step:
            changed = (step & -step).bit_length() - 1
            is_in[changed] = not is_in[changed]
            pools.add(total, changed, 1 if is_in[changed] else -1)
        scores = pools.scores_of(total, pools.weight(is_in))
        losses[subset], accuracies[subset] = scores.log_loss, scores.accuracy
    return tuple(
        Scores(log_loss=_value(losses, member, members), accuracy=_value(accuracies, member, members))
        for member in range(members)
    )


def _value(worth: NDArray[np.float64], member: int, members: int) -> float:
    """Return a member's Shapley value, given what every subset is worth by its bits."""
    subsets = np.arange(len(worth))
    without = subsets[(subsets >> member) & 1 == 0]
    sizes = np.array([int(subset).bit_count() for subset in without])
    chances = np.array([1.0 / (members * math.comb(members - 1, size)) for size in range(members)])
    return float(chances[sizes] @ (worth[without | (1 << member)] - worth[without]))
