"""Features made comparable for a penalised linear model: centred, scaled, and in no more dimensions than rows."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_CHUNK = 4096
"""Rows that are summed at once in float64."""
_CONSTANT = 1e-6
"""A feature whose standard deviation is at most this share of its mean is rounding, not signal."""
_DAMPING = 1.0
"""Of the mean standard deviation, added in squares to each: a feature that hardly moves is not blown up."""
_FEW = 0.5
"""Rows per feature up to which it is faster to rotate the rows into their own span first."""


@dataclass(frozen=True, slots=True)
class ScaledFeatures:
    """Rows of scaled features, possibly rotated into the span of the rows."""

    values: Tensor
    """(rows, axes)."""
    basis: Tensor | None
    """(features, axes), orthonormal columns; None where the axes are the features."""
    mean: Tensor
    """(features,), of the raw features."""
    inverse_scale: Tensor
    """(features,); 0 for a constant feature."""

    def part(self, rows: Tensor) -> "ScaledFeatures":
        """Return some of the rows, by their indices."""
        return replace(self, values=self.values[rows])

    def largest_entry(self, point: Tensor) -> float:
        """Return the largest absolute entry that a point or a gradient has for the scaled features.

        Args:
            point: (classes, axes + 1), the biases in the last column.
        """
        weights = self._in_features(point[:, :-1])
        return max(float(weights.abs().max()), float(point[:, -1].abs().max()))

    def unscaled(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights, (classes, features), and biases, (classes,), for the raw features, in float64.

        Args:
            point: (classes, axes + 1), the biases in the last column.
        """
        weights = self._in_features(point[:, :-1]).double() * self.inverse_scale.double()
        return weights, point[:, -1].double() - weights @ self.mean.double()

    def _in_features(self, weights: Tensor) -> Tensor:
        return weights if self.basis is None else weights @ self.basis.T


def scale_features(rows: Tensor) -> ScaledFeatures:
    """Centre and scale features over the rows, in place.

    A feature is divided by the square root of its variance plus the square of the mean standard deviation of them all,
    and all of them by what makes their mean variance 1. Plain standardisation blows up what hardly moves in these rows:
    a feature that is 0 in nearly all of them decides what is said of others where it is not.

    With few rows the result is rotated: with the QR decomposition X^T = Q R, the rows in the axes Q are R^T. For a
    penalty that knows no directions that changes nothing, since the best weights lie in the span of the rows.

    Args:
        rows: (rows, features) float32, overwritten.
    """
    mean, inverse_scale = _moments(rows)
    rows.sub_(mean).mul_(inverse_scale)
    if len(rows) > _FEW * rows.shape[1]:
        return ScaledFeatures(rows, None, mean, inverse_scale)
    basis, triangle = torch.linalg.qr(rows.T)
    return ScaledFeatures(triangle.T.contiguous(), basis, mean, inverse_scale)


def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features' means and what to multiply them with, both (features,)."""
    chunks = [rows[first : first + _CHUNK] for first in range(0, len(rows), _CHUNK)]
    mean = (torch.stack([chunk.sum(0, dtype=torch.float64) for chunk in chunks]).sum(0) / len(rows)).to(rows.dtype)
    squares = torch.stack([(chunk - mean).square_().sum(0, dtype=torch.float64) for chunk in chunks])
    deviation = (squares.sum(0) / len(rows)).sqrt()
    varies = deviation > _CONSTANT * mean.abs()
    typical = deviation[varies].mean() if bool(varies.any()) else deviation.new_ones(())
    inverse_scale = torch.where(varies, (deviation.square() + (_DAMPING * typical).square()).rsqrt(), 0.0)
    if bool(varies.any()):
        inverse_scale /= (deviation * inverse_scale)[varies].square().mean().sqrt()
    return mean, inverse_scale.to(rows.dtype)
