"""The objective of linear heads: weighted mean log-loss plus an L2 penalty, and its minimum from a warm start."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.lbfgs import Minimum, minimise
from spine_ray.core.scaling import ScaledFeatures

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
    """Linear heads that are fitted at once, each to its own weighting of the same rows.

    A point holds all heads, (heads * classes, axes + 1), one after the other: weights, and biases in the last column.
    """

    features: ScaledFeatures
    labels: Tensor
    """(rows,)."""
    shares: Tensor
    """(heads, rows), what a row counts in a head's mean log-loss: they add up to 1, with every class among them."""
    classes: int

    @property
    def heads(self) -> int:
        """How many heads there are."""
        return len(self.shares)

    def part(self, rows: npt.NDArray[np.bool_]) -> "Problem":
        """Return the problem without those rows, (rows,), that are not in the mask."""
        index = torch.from_numpy(np.flatnonzero(rows)).to(self.labels.device)
        return Problem(self.features.part(index), self.labels[index], self.shares[:, index], self.classes)

    def row_losses(self, point: Tensor) -> Tensor:
        """Return the log-loss that each head has on each row, (heads, rows), nats."""
        return torch.cat([_losses(log_probs, labels) for _, labels, _, log_probs in self.chunks(point)], dim=1)

    def log_normalisers(self, point: Tensor) -> Tensor:
        """Return the logarithms of the sums over classes of the exponentials of the logits, (heads, rows)."""
        return torch.cat([logits.logsumexp(1) for _, logits in self._logits(point)], dim=1)

    def start(self) -> Tensor:
        """Return the best point without weights: its probabilities are the classes' shares."""
        labels = self.labels.cpu()  # sums on a GPU would differ from run to run
        shares = torch.stack([torch.bincount(labels, head, self.classes) for head in self.shares.cpu()])
        point = self.features.values.new_zeros((self.heads * self.classes, self.features.values.shape[1] + 1))
        point[:, -1] = shares.log().flatten().to(point)
        return point

    def spread(self, point: Tensor) -> Tensor:
        """Return the mean of p (1 - p) over the rows, (heads * classes, 1)."""
        total = point.new_zeros((self.heads, self.classes))
        for _, _, shares, log_probs in self.chunks(point):
            probabilities = log_probs.exp_()
            total += torch.einsum("hcr,hr->hc", probabilities - probabilities.square(), shares)
        return total.clamp_(min=_LEAST_SPREAD).flatten()[:, None]

    def chunks(self, point: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Yield values, labels, shares and log-probabilities, (heads, classes, rows), of some rows after others."""
        for rows, logits in self._logits(point):
            yield self.features.values[rows], self.labels[rows], self.shares[:, rows], logits.log_softmax(1)

    def _logits(self, point: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Yield some rows and their logits, (heads, classes, rows): few classes are faster this way round."""
        size = max(1, _CHUNK // len(point))
        for first in range(0, len(self.labels), size):
            rows = slice(first, first + size)
            logits = torch.addmm(point[:, -1:], point[:, :-1], self.features.values[rows].T)
            yield rows, logits.view(self.heads, self.classes, -1)


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
        """Estimate it by subspace iteration (Halko, Martinsson and Tropp, SIAM Review 53, 2011, algorithm 4.4).

        Args:
            values: (rows, axes), of which some are taken where there are many.
        """
        rows = values[:: -(-len(values) // _DIRECTION_ROWS)]
        rank = min(rows.shape)
        generator = torch.Generator().manual_seed(0)
        basis = torch.randn(rows.shape[1], min(_DIRECTIONS, rank), generator=generator).to(rows)
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
        """Return the sum of the heads' objectives and its gradient; biases are not penalised."""
        loss, gradient = 0.0, torch.zeros_like(point)
        for values, labels, shares, log_probs in self.problem.chunks(point):
            loss += float((_losses(log_probs, labels) * shares).sum(dtype=torch.float64))
            residuals = log_probs.exp_()
            residuals[:, labels, torch.arange(len(labels), device=labels.device)] -= 1.0
            residuals *= shares[:, None]
            flat = residuals.view(len(point), -1)
            gradient[:, :-1] += flat @ values
            gradient[:, -1] += flat.sum(1)
        weights = point[:, :-1]
        gradient[:, :-1].add_(weights, alpha=self.strength)
        return loss + 0.5 * self.strength * float(torch.linalg.vector_norm(weights)) ** 2, gradient


@dataclass(frozen=True, slots=True)
class _InverseCurvature:
    """A rough inverse of the Hessian: of each class's own block, with one mean of p (1 - p) for all rows."""

    directions: Tensor
    """(axes, directions)."""
    inside: Tensor
    """(heads * classes, directions), what there is along the directions beyond what there is everywhere."""
    everywhere: Tensor
    """(heads * classes, 1)."""
    biases: Tensor
    """(heads * classes,)."""

    @classmethod
    def at(cls, objective: _Objective, point: Tensor, variance: Variance) -> "_InverseCurvature":
        spread = objective.problem.spread(point)
        everywhere = 1.0 / (spread * variance.across + objective.strength)
        inside = 1.0 / (spread * variance.along + objective.strength) - everywhere
        return cls(variance.directions, inside, everywhere, 1.0 / spread[:, 0])

    def __call__(self, gradient: Tensor) -> Tensor:
        weights = gradient[:, :-1]
        product = torch.empty_like(gradient)
        product[:, :-1] = weights * self.everywhere
        product[:, :-1] += ((weights @ self.directions) * self.inside) @ self.directions.T
        product[:, -1] = gradient[:, -1] * self.biases
        return product


def solve(problem: Problem, strength: float, start: Tensor, variance: Variance, tolerance: float) -> Minimum:
    """Minimise each head's mean log-loss plus half the strength times the sum of its squared weights.

    The heads do not touch each other; solved at once they share the reading of the rows.

    Args:
        problem: What is fitted.
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


def _losses(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Return the rows' log-losses, (heads, rows)."""
    return -log_probs[:, labels, torch.arange(len(labels), device=labels.device)]
