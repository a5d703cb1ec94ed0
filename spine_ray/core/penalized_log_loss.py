"""The objective of a linear head: the mean log-loss plus an L2 penalty, and its minimum from a warm start."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.lbfgs import Minimum, minimise
from spine_ray.core.scaled_features import ScaledFeatures

_CHUNK = 2**22
"""Logits that are computed at once, at most."""
_DIRECTIONS = 64
"""Those of the most variance, along which the curvature is estimated; across them it is taken as equal."""
_DIRECTION_ROWS = 4096
_ITERATIONS = 2
_LEAST_SPREAD = 1e-4
"""Of the probability of a class that is nowhere in doubt."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Rows of scaled features with their classes.

    A point is a linear classifier of them, (classes, axes + 1): its weights, and its biases in the last column.
    """

    features: ScaledFeatures
    labels: Tensor
    """(rows,), with every class among them."""
    classes: int

    def part(self, rows: npt.NDArray[np.int64]) -> "Problem":
        """Return the problem of some of the rows."""
        index = torch.from_numpy(rows).to(self.labels.device)
        return Problem(self.features.part(index), self.labels[index], self.classes)

    def chunks(self, point: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield some rows' values, labels and log-probabilities, (classes, rows), the last of which may be changed."""
        size = max(1, _CHUNK // self.classes)
        for values, labels in zip(self.features.values.split(size), self.labels.split(size), strict=True):
            yield values, labels, _logits(values, point).log_softmax(0)

    def log_loss(self, point: Tensor) -> float:
        """Return the mean log-loss, nats."""
        return sum(_loss(log_probs, labels) for _, labels, log_probs in self.chunks(point)) / len(self.labels)

    def spread(self, point: Tensor) -> Tensor:
        """Return the mean of p (1 - p) over the rows, (classes,)."""
        total = point.new_zeros(self.classes)
        for _, _, log_probs in self.chunks(point):
            total += (log_probs.exp() - (2.0 * log_probs).exp()).sum(1)
        return (total / len(self.labels)).clamp_(min=_LEAST_SPREAD)

    def log_normalisers(self, point: Tensor) -> Tensor:
        """Return the logarithm of the sum over the classes of the exponentials of a row's logits, (rows,)."""
        size = max(1, _CHUNK // self.classes)
        return torch.cat([_logits(values, point).logsumexp(0) for values in self.features.values.split(size)])

    def class_shares(self) -> Tensor:
        """Return the best point without weights: its probabilities are the classes' shares of the rows."""
        counts = torch.bincount(self.labels, minlength=self.classes)
        values = self.features.values
        point = values.new_zeros((self.classes, values.shape[1] + 1))
        point[:, -1] = (counts / len(self.labels)).log()
        return point


@dataclass(frozen=True, slots=True)
class Variance:
    """The rows' variance along the directions in which it is largest, and in the mean of all others."""

    directions: Tensor
    """(axes, directions), orthonormal columns."""
    along: Tensor
    """(directions,)."""
    across: float

    @classmethod
    def of(cls, values: Tensor) -> "Variance":
        """Estimate it by subspace iteration (Halko, Martinsson and Tropp, SIAM Review 53, 2011, algorithm 4.4)."""
        rows = values[:: -(-len(values) // _DIRECTION_ROWS)]
        rank = min(rows.shape)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(rows.shape[1], min(_DIRECTIONS, rank), generator=generator)
        basis = start.to(rows)
        for _ in range(_ITERATIONS):
            basis = torch.linalg.qr(rows.T @ (rows @ basis))[0]
        reduced = rows @ basis
        along, turn = torch.linalg.eigh(reduced.T @ reduced / len(rows))
        left = float(rows.square().sum() / len(rows) - along.sum())
        return cls(basis @ turn, along.clamp_(min=0.0), max(0.0, left) / max(1, rank - len(along)))


@dataclass(frozen=True, slots=True)
class _Objective:
    problem: Problem
    strength: float

    def __call__(self, point: Tensor) -> tuple[float, Tensor]:
        """Return the value and the gradient; biases are not penalised."""
        loss, gradient = 0.0, torch.zeros_like(point)
        for values, labels, log_probs in self.problem.chunks(point):
            loss += _loss(log_probs, labels)
            residuals = log_probs.exp_()
            residuals[labels, torch.arange(len(labels), device=labels.device)] -= 1.0
            gradient[:, :-1] += residuals @ values
            gradient[:, -1] += residuals.sum(1)
        rows, weights = len(self.problem.labels), point[:, :-1]
        gradient /= rows
        gradient[:, :-1].add_(weights, alpha=self.strength)
        penalty = 0.5 * self.strength * float(torch.linalg.vector_norm(weights)) ** 2
        return loss / rows + penalty, gradient


@dataclass(frozen=True, slots=True)
class _InverseCurvature:
    """A rough inverse of the Hessian: the classes' own blocks, each with one mean of p (1 - p) for all rows."""

    directions: Tensor
    inside: Tensor
    """(classes, directions), what is to be added along the directions."""
    outside: Tensor
    """(classes, 1)."""
    biases: Tensor
    """(classes,)."""

    @classmethod
    def at(cls, objective: _Objective, point: Tensor, variance: Variance) -> "_InverseCurvature":
        spread = objective.problem.spread(point)[:, None]
        outside = 1.0 / (spread * variance.across + objective.strength)
        inside = 1.0 / (spread * variance.along + objective.strength)
        return cls(variance.directions, inside - outside, outside, 1.0 / spread[:, 0])

    def __call__(self, gradient: Tensor) -> Tensor:
        weights = gradient[:, :-1]
        product = torch.empty_like(gradient)
        product[:, :-1] = weights * self.outside
        product[:, :-1] += ((weights @ self.directions) * self.inside) @ self.directions.T
        product[:, -1] = gradient[:, -1] * self.biases
        return product


def solve(problem: Problem, strength: float, start: Tensor, variance: Variance, tolerance: float) -> Minimum:
    """Minimise the mean log-loss plus half the strength times the sum of the squared weights.

    Args:
        problem: The rows that are fitted.
        strength: Above 0.
        start: A point, best near the minimum.
        variance: Of these rows or of rows like them.
        tolerance: The largest absolute entry that the gradient for the scaled features may have.
    """
    objective = _Objective(problem, strength)
    inverse = _InverseCurvature.at(objective, start, variance)

    def is_done(gradient: Tensor) -> bool:
        return float(gradient.abs().max()) <= tolerance and problem.features.largest_entry(gradient) <= tolerance

    return minimise(objective, start, inverse, is_done)


def _logits(values: Tensor, point: Tensor) -> Tensor:
    """Return (classes, rows): products and reductions over few classes are several times faster this way round."""
    return torch.addmm(point[:, -1:], point[:, :-1], values.T)


def _loss(log_probs: Tensor, labels: Tensor) -> float:
    """Return the sum of the rows' log-losses, in float64 because there may be many."""
    return -float(log_probs.gather(0, labels[None]).sum(dtype=torch.float64))
