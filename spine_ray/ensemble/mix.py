"""An ensemble's arithmetic alone: from members' logits to what the pool says, for whatever rows come."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.pool import PoolName, floored, pooled


@dataclass(frozen=True, slots=True)
class Said:
    """What a pool says about some rows."""

    log_probs: NDArray[np.float64]
    """(rows, classes)."""
    disagreement: NDArray[np.float64]
    """(rows,) weighted mean over the members of KL(pool || member), nats, at least 0; needs no labels."""

    @property
    def confidence(self) -> NDArray[np.float64]:
        """The probability of the likeliest class, (rows,)."""
        return np.asarray(np.exp(self.log_probs.max(axis=1)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """Weights, temperatures and pool of an ensemble; of a single model, one of each."""

    weights: tuple[float, ...]
    """One a member, above 0, summing to 1."""
    temperatures: tuple[float, ...]
    """One a member; its logits are divided by it."""
    pool: PoolName
    final_temperature: float
    """The pool's log-probabilities are divided by it, then normalised."""

    def __post_init__(self) -> None:
        """Refuse what is no ensemble."""
        if not self.weights or len(self.weights) != len(self.temperatures):
            raise ValueError("an ensemble needs a member, and one weight and one temperature a member")
        if min(self.weights) <= 0.0 or not math.isclose(sum(self.weights), 1.0, rel_tol=1e-9):
            raise ValueError(f"weights must be above 0 and sum to 1, not {self.weights}")
        if min(*self.temperatures, self.final_temperature) <= 0.0:
            raise ValueError("temperatures must be above 0")
        if self.pool not in ("log", "prob"):
            raise ValueError(f"the pool must be log or prob, not {self.pool!r}")

    def say(self, logits: Sequence[NDArray[np.float32]]) -> Said:
        """Pool the members' logits, (rows, classes) each, in the order of the weights.

        Raises:
            ValueError: If there is not one block of logits a member.
        """
        values = np.stack(
            [floored(log_probs(block, each)) for block, each in zip(logits, self.temperatures, strict=True)]
        )
        pool = pooled(self.pool, values, self.weights)
        apart = np.einsum("m,rc,mrc->r", np.asarray(self.weights), np.exp(pool), pool[None] - values)
        return Said(log_probs=log_probs(pool, self.final_temperature), disagreement=np.maximum(apart, 0.0))

    def part(self, members: Sequence[int], final_temperature: float) -> "Mix":
        """Return the ensemble of some of the members, their weights in the same proportions."""
        total = sum(self.weights[member] for member in members)
        return Mix(
            weights=tuple(self.weights[member] / total for member in members),
            temperatures=tuple(self.temperatures[member] for member in members),
            pool=self.pool,
            final_temperature=final_temperature,
        )
