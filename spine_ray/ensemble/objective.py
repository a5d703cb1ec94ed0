"""The pools' losses as convex functions of the weights, in the form in which a greedy search needs them.

Each member is encoded once as numbers per row; a pool of members is then the weighted mean of their encodings,
its row losses are a function of that mean, and its slope along a member is one product with that member's
encoding. All of it is float32, because reading and exponentials are what a search spends its time on; only means over
rows are float64. A row's loss is then right to about 1e-6 nats, and a mean over rows to far less.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.pool import PoolName

Encoding = NDArray[np.float32]
"""(numbers, samples)."""


class Objective(Protocol):
    """The log-loss of a pool as a function of the mean of its members' encodings."""

    def encode(self, log_probs: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Encoding:
        """Encode one member's floored log-probabilities (samples, classes) as (numbers, samples)."""
        ...

    def row_losses(self, mean: Encoding) -> NDArray[np.float32]:
        """Return the log-loss of each row, (..., samples), of mean encodings (..., numbers, samples)."""
        ...

    def direction(self, mean: Encoding) -> NDArray[np.float32]:
        """Return the derivative of the mean log-loss by the mean encoding, (numbers, samples)."""
        ...


class LogObjective:
    """Log pool: a row's loss is log(sum of exp(mean log-probabilities)) - mean log-probability of its label."""

    def encode(self, log_probs: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Encoding:
        """Return the log-probabilities by class, and the label's as the last line."""
        # C order: sums over few classes run along rows
        lines = np.empty((log_probs.shape[1] + 1, len(labels)), np.float32)
        lines[:-1] = log_probs.T
        lines[-1] = log_probs[np.arange(len(labels)), labels]
        return lines

    def row_losses(self, mean: Encoding) -> NDArray[np.float32]:
        """Return the row losses; floored log-probabilities need no guard against underflow."""
        return np.asarray(np.log(np.exp(mean[..., :-1, :]).sum(axis=-2)) - mean[..., -1, :])

    def direction(self, mean: Encoding) -> NDArray[np.float32]:
        """Return the pool's probabilities by class, and -1 for the label's line, over the number of rows."""
        slope: Encoding = np.exp(mean)
        slope[:-1] /= slope[:-1].sum(axis=0)
        slope[-1] = -1.0
        slope /= np.float32(mean.shape[1])
        return slope


class ProbObjective:
    """Probability pool: a row's loss is -log(mean probability of its label)."""

    def encode(self, log_probs: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> Encoding:
        """Return the probability of the label; the other classes do not enter the loss."""
        encoding: Encoding = np.exp(log_probs[np.arange(len(labels)), labels])[None, :].astype(np.float32)
        return encoding

    def row_losses(self, mean: Encoding) -> NDArray[np.float32]:
        """Return the row losses."""
        return np.asarray(-np.log(mean[..., 0, :]))

    def direction(self, mean: Encoding) -> NDArray[np.float32]:
        """Return -1 / (mean probability * number of rows)."""
        return np.asarray(-1.0 / (mean * np.float32(mean.shape[1])))


def mean_loss(rows: NDArray[np.float32]) -> float:
    """Return the mean of row losses, summed in float64, nats."""
    return float(rows.mean(dtype=np.float64))


OBJECTIVES: dict[PoolName, Objective] = {"log": LogObjective(), "prob": ProbObjective()}


def gap(slopes: NDArray[np.float64], own: float) -> float:
    """Return a bound on how much any convex weights of some candidates could lower the log-loss, nats.

    The Frank-Wolfe gap: the loss is convex in the weights, so its tangent at the pool bounds it from below.

    Args:
        slopes: (members,), the loss's derivative along each candidate's encoding.
        own: Its derivative along the pool's own mean encoding.
    """
    return max(0.0, own - float(slopes.min()))
