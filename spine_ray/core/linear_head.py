"""The solver of a probe: multinomial logistic regression with an L2 penalty on frozen features, to convergence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.inner_holdout import inner_holdout
from spine_ray.core.penalized_log_loss import Problem, Variance, solve
from spine_ray.core.scaled_features import scale_features

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""The L2 strengths to choose from, of a mean log-loss over scaled features: strongest first."""
USUAL_STRENGTH = 0.1
"""Where there is no hold-out to choose on."""
TOLERANCE = 1e-5
"""Of the gradient's entries."""
PATH_TOLERANCE = 1e-3
"""The same while a strength is chosen."""
_CLEAR_RISE = 0.005
"""Nats above the least held-out log-loss so far; twice running, they end the path."""
_MOST_HOLDOUTS, _ROWS_OF_HOLDOUTS = 5, 4000
"""Hold-outs of the same rows, at most, and as few as keep their rows together below so many."""
_PRIOR_ROWS = 0.5
"""Of a class without rows."""
_CPU = torch.device("cpu")

Features = npt.NDArray[np.float32]
"""(rows, features)."""
Integers = npt.NDArray[np.int64]
"""(rows,)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearHead:
    """A linear classifier of raw features."""

    weight: npt.NDArray[np.float32]
    """(classes, features)."""
    bias: npt.NDArray[np.float32]
    """(classes,)."""

    def logits(self, features: Features) -> npt.NDArray[np.float32]:
        """Return the logits of rows of raw features, (rows, classes)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class SolvedHead(LinearHead):
    """A linear classifier as the solver found it."""

    strength: float
    """The chosen L2 strength."""
    gradient_norm: float
    """The largest absolute entry of the objective's gradient at the solution, for the scaled features."""


def fit_linear_head(
    features: Features,
    labels: Integers,
    classes: int,
    groups: Integers,
    *,
    seed: int,
    device: torch.device = _CPU,
) -> SolvedHead:
    """Fit a multinomial logistic regression, its L2 strength chosen on a hold-out inside the rows.

    The objective is the mean log-loss plus half the strength times the sum of the squared weights of the scaled
    features; in scikit-learn's terms, `C` is 1 / (rows * strength). Of a path from strong to weak the strength is
    taken that has the least log-loss on a fifth of the rows, groups whole; of few rows in the mean of several such
    hold-outs. Then all rows are fitted.

    A class without rows has no weights, as the penalty wants it. Its bias, which the log-loss alone would send to
    minus infinity, gives it as much probability in the mean over the rows as half a row would.

    Args:
        features: (rows, features), raw, finite.
        labels: (rows,), class indices from 0.
        classes: How many there are.
        groups: (rows,), any integers; rows of one group are on one side of the hold-out.
        seed: Decides which rows are held out.
        device: Where it is computed.

    Returns:
        A head for raw features: centring and scaling are part of its weights.

    Raises:
        ValueError: If there are no rows, shapes do not fit, a label is no class or a feature is not finite.
    """
    _check(features, labels, classes, groups)
    present, label = np.unique(labels, return_inverse=True)
    scaled = scale_features(torch.from_numpy(np.array(features, np.float32)).to(device))  # it works in place
    problem = Problem(scaled, torch.from_numpy(label).to(device), len(present))
    variance = Variance.of(scaled.values)
    strength, start = _choose_strength(problem, _holdouts(labels, groups, seed), variance)
    found = solve(problem, strength, start, variance, TOLERANCE)
    # What all classes have in common says nothing: without it, heads of two machines can be compared.
    point, gradient = (tensor - tensor.mean(0) for tensor in (found.point, found.gradient))
    weight, bias = np.zeros((classes, features.shape[1]), np.float32), np.empty(classes, np.float32)
    weight[present], bias[present] = (tensor.cpu().numpy() for tensor in scaled.unscaled(point))
    if len(present) < classes:
        bias[np.setdiff1d(np.arange(classes), present)] = _absent_bias(problem.log_normalisers(point))
    return SolvedHead(weight=weight, bias=bias, strength=strength, gradient_norm=scaled.largest_entry(gradient))


def _holdouts(labels: Integers, groups: Integers, seed: int) -> list[npt.NDArray[np.bool_]]:
    """Return hold-outs of a fifth of the rows, (rows,) each: of few rows several, because one of them says little."""
    repeats = max(1, min(_MOST_HOLDOUTS, _ROWS_OF_HOLDOUTS // len(labels)))
    found = (inner_holdout(labels, groups, seed + repeat) for repeat in range(repeats))
    return [held_out for held_out in found if held_out is not None]


def _choose_strength(
    problem: Problem, holdouts: Sequence[npt.NDArray[np.bool_]], variance: Variance
) -> tuple[float, Tensor]:
    """Return the strength with the least held-out log-loss in the mean of the hold-outs, and a point near its solution.

    Args:
        problem: All rows.
        holdouts: (rows,) each; without any, the usual strength is taken.
        variance: Of the rows.
    """
    splits = [(problem.part(np.flatnonzero(~held)), problem.part(np.flatnonzero(held))) for held in holdouts]
    points = [inner.class_shares() for inner, _ in splits]
    least, best, rises = math.inf, (USUAL_STRENGTH, problem.class_shares()), 0
    for strength in STRENGTHS if splits else ():
        points = [
            solve(inner, strength, point, variance, PATH_TOLERANCE).point
            for (inner, _), point in zip(splits, points, strict=True)
        ]
        loss = float(np.mean([held.log_loss(point) for (_, held), point in zip(splits, points, strict=True)]))
        if loss < least:
            least, best = loss, (strength, points[0])
        rises = rises + 1 if loss > least + _CLEAR_RISE else 0
        if rises == 2:
            break
    return best


def _absent_bias(log_normalisers: Tensor) -> float:
    """Return the bias with which a class without weights has in the mean the probability of its prior rows.

    Args:
        log_normalisers: (rows,), of the other classes' logits.
    """
    rows = len(log_normalisers)
    mean_per_unit = float(torch.logsumexp(-log_normalisers.double(), 0)) - math.log(rows)
    return math.log(_PRIOR_ROWS / (rows + _PRIOR_ROWS)) - mean_per_unit


def _check(features: Features, labels: Integers, classes: int, groups: Integers) -> None:
    if features.ndim != 2 or not features.size or labels.shape != features.shape[:1] or groups.shape != labels.shape:
        raise ValueError(
            "features must be (rows, features), labels and groups (rows,), none of them empty, "
            f"not {features.shape}, {labels.shape} and {groups.shape}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, not {labels.min()} to {labels.max()}")
    if not np.isfinite(features.sum(dtype=np.float64)):
        raise ValueError(f"features must be finite; {int((~np.isfinite(features)).any(axis=1).sum())} rows are not")
