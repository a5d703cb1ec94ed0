"""The pools' losses as convex functions of the weights, in the form in which a greedy search needs them.

Each member is encoded once as numbers per row; a pool of members is then the weighted mean of their encodings,
its row losses are a function of that mean, and its slope along a member is one product with that member's
encoding.
"""

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.pool import PoolName


class Objective(Protocol):
    """The log-loss of a pool as a function of the mean of its members' encodings."""

    def encode(self, log_probs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Encode one member's floored log-probabilities (samples, classes) as (numbers, samples)."""
        ...

    def row_losses(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the log-loss of each row, (samples,), of a mean encoding (numbers, samples)."""
        ...

    def direction(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the derivative of the mean log-loss by the mean encoding, (numbers, samples)."""
        ...


class LogObjective:
    """Log pool: a row's loss is log(sum of exp(mean log-probabilities)) - mean log-probability of its label."""

    def encode(self, log_probs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the log-probabilities by class, and the label's as the last line."""
        lines = np.empty((log_probs.shape[1] + 1, len(labels)))  # C order: sums over few classes run along rows
        lines[:-1] = log_probs.T
        lines[-1] = log_probs[np.arange(len(labels)), labels]
        return lines

    def row_losses(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the row losses; floored log-probabilities need no guard against underflow."""
        return np.asarray(np.log(np.exp(mean[:-1]).sum(axis=0)) - mean[-1])

    def direction(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the pool's probabilities by class, and -1 for the label's line, over the number of rows."""
        slope = np.exp(mean)
        slope[:-1] /= slope[:-1].sum(axis=0)
        slope[-1] = -1.0
        slope /= mean.shape[1]
        return slope


class ProbObjective:
    """Probability pool: a row's loss is -log(mean probability of its label)."""

    def encode(self, log_probs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the probability of the label; the other classes do not enter the loss."""
        return np.exp(log_probs[np.arange(len(labels)), labels])[None, :]

    def row_losses(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the row losses."""
        return np.asarray(-np.log(mean[0]))

    def direction(self, mean: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return -1 / (mean probability * number of rows)."""
        return np.asarray(-1.0 / (mean * mean.shape[1]))


OBJECTIVES: dict[PoolName, Objective] = {"log": LogObjective(), "prob": ProbObjective()}


def encoded(objective: Objective, log_probs: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Encode (members, samples, classes) log-probabilities as (members, numbers, samples)."""
    return np.stack([objective.encode(member, labels) for member in log_probs])


def duality_gap(
    objective: Objective, log_probs: NDArray[np.float64], labels: NDArray[np.int64], weights: ArrayLike
) -> float:
    """Return a bound on how much any convex weights of these members could still lower the log-loss, nats.

    The Frank-Wolfe gap: the loss is convex in the weights, so its tangent at them bounds it from below.

    Args:
        objective: The pool's objective.
        log_probs: (members, samples, classes), floored.
        labels: (samples,).
        weights: (members,), at least 0, summing to 1; members of weight 0 count as candidates.
    """
    shares = np.asarray(weights, dtype=np.float64)
    used = np.flatnonzero(shares)
    encodings = encoded(objective, log_probs[used], labels)
    mean = np.tensordot(shares[used], encodings, axes=1)
    direction = objective.direction(mean)
    slopes = [float(np.vdot(direction, objective.encode(member, labels))) for member in log_probs]
    return max(0.0, float(np.vdot(direction, mean)) - min(slopes))
