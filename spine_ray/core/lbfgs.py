"""Preconditioned L-BFGS for smooth convex functions whose values carry rounding errors of float32."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_HISTORY = 8
_MAX_STEPS = 2000
_MAX_TRIALS = 20
"""Points that one line search looks at."""
_FLATTER, _ACROSS = 0.9, 0.5
"""A step ends where the slope is at most this share of the first one: still downwards, or already upwards."""
_DECREASE = 1e-4
"""The value falls at least by this share of what the first slope promises, rounding aside (Armijo's rule)."""
_LONGER = 4.0
"""The factor by which a step that is too short grows."""

Objective = Callable[[Tensor], tuple[float, Tensor]]
"""The value at a point, and the gradient, shaped as the point."""
Precondition = Callable[[Tensor], Tensor]
"""The product with a rough inverse of the Hessian, symmetric and positive definite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Minimum:
    """Where a minimisation ended."""

    point: Tensor
    value: float
    gradient: Tensor
    """Shaped as the point."""
    evaluations: int
    """How often the objective was computed."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """What one step has shown of the curvature."""

    step: Tensor
    change: Tensor
    """Of the gradient."""
    inverse_product: float


def minimise(
    objective: Objective, start: Tensor, precondition: Precondition, is_done: Callable[[Tensor], bool]
) -> Minimum:
    """Minimise a convex function by L-BFGS (Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.4).

    The line search looks for a flat slope and not for a low value: close to the minimum, differences of values drown in
    rounding errors long before slopes do (Hager and Zhang, SIAM J. Optim. 16, 2005). In a convex function the slope
    alone says on which side of the minimum a point lies.

    Args:
        objective: Convex and differentiable.
        start: Any shape.
        precondition: Its scale does not matter much.
        is_done: Whether a gradient is small enough to end.

    Returns:
        The last point. Its gradient is not small enough only where rounding errors let no step come closer.
    """
    value, gradient = objective(start)
    here = Minimum(point=start, value=value, gradient=gradient, evaluations=1)
    pairs: deque[_Pair] = deque(maxlen=_HISTORY)
    for _ in range(_MAX_STEPS):
        if is_done(here.gradient):
            break
        found = _line_search(objective, here, _direction(here.gradient, pairs, precondition))
        if found is None and not pairs:
            break
        if found is None:
            pairs.clear()  # what the last steps have shown of the curvature was rounding
            continue
        pair = _pair(found.point - here.point, found.gradient - here.gradient)
        if pair is not None:
            pairs.append(pair)
        here = found
    return here


def _pair(step: Tensor, change: Tensor) -> _Pair | None:
    product = _dot(step, change)
    return _Pair(step, change, 1.0 / product) if product > 0.0 else None


def _direction(gradient: Tensor, pairs: deque[_Pair], precondition: Precondition) -> Tensor:
    """Return the quasi-Newton direction by the two-loop recursion."""
    direction = -gradient
    shares = []
    for pair in reversed(pairs):
        share = pair.inverse_product * _dot(pair.step, direction)
        direction.add_(pair.change, alpha=-share)
        shares.append(share)
    direction = precondition(direction)
    if pairs:
        last = pairs[-1]
        direction.mul_(1.0 / (last.inverse_product * _dot(last.change, precondition(last.change))))
    for pair, share in zip(pairs, reversed(shares), strict=True):
        direction.add_(pair.step, alpha=share - pair.inverse_product * _dot(pair.change, direction))
    return direction


def _line_search(objective: Objective, here: Minimum, direction: Tensor) -> Minimum | None:
    """Return a point along the direction where it is clearly flatter; None where rounding errors hide it."""
    first = _dot(here.gradient, direction)
    if not first < 0.0:
        return None
    noise = 10.0 * torch.finfo(direction.dtype).eps * max(1.0, abs(here.value))
    low, low_slope, high, high_slope = 0.0, first, math.inf, math.nan
    length = 1.0
    for trial in range(_MAX_TRIALS):
        point = here.point + length * direction
        value, gradient = objective(point)
        slope = _dot(gradient, direction)
        if not value <= here.value + _DECREASE * length * first + noise or not slope <= -_ACROSS * first:
            high, high_slope = length, slope
        elif slope < _FLATTER * first:
            low, low_slope = length, slope
        else:
            evaluations = here.evaluations + trial + 1
            return Minimum(point=point, value=value, gradient=gradient, evaluations=evaluations)
        length = _between(low, low_slope, high, high_slope) if math.isfinite(high) else _LONGER * length
    return None


def _between(low: float, low_slope: float, high: float, high_slope: float) -> float:
    """Return a length between the two: where the secant of their slopes is flat, but at most in the middle."""
    share = low_slope / (low_slope - high_slope) if 0.0 < high_slope < math.inf else 0.5
    return low + (high - low) * min(max(share, 0.1), 0.5)


def _dot(one: Tensor, other: Tensor) -> float:
    return float(torch.dot(one.flatten(), other.flatten()))
