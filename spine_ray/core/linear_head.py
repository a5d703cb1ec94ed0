"""The solver of a probe: multinomial logistic regression with an L2 penalty on frozen features, to convergence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.inner_folds import FOLDS, deal_inner_folds
from spine_ray.core.penalized_loss import Problem, Variance, solve
from spine_ray.core.scaling import scale_features

STRENGTHS = (3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""The L2 strengths that are tried, of a mean log-loss over scaled features: strongest first."""
USUAL_STRENGTH = 0.1
"""What is expected before any row has been held out."""
TOLERANCE = 1e-5
"""Of the gradient's entries: float32 reaches it, and what is left shows in no log-loss of four digits."""
PATH_TOLERANCE = 1e-3
"""The same while a strength is chosen: near the best, held-out log-losses are then exact to about 0.005 nats."""
CLEAR_RISE = 0.002
"""Nats above the least held-out log-loss so far that end the path."""
ENOUGH_ROWS = 200
"""Rows to hold out, where there are as many: one fold after the other is, until then."""
_LEAST_ROWS = 10
_LARGEST_SHARE = 0.4
"""Of the rows, for a fold to be held out: what is best for far fewer rows is too strong."""
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
    """Fit a multinomial logistic regression, its L2 strength chosen on rows held out inside these.

    The objective is the mean log-loss plus half the strength times the sum of the squared weights of the scaled
    features (see `scale_features`); in scikit-learn's terms, `C` is 1 / (rows * strength). Folds of a fifth of the
    rows, groups whole, are held out one after the other until 200 rows have been: one of many rows, all five of
    few. The path from strong to weak ends where their log-loss rises, and `likely_strength` says what is chosen; where
    fewer than 10 rows can be held out, it is the usual strength. Then all rows are fitted.

    A class without rows has no weights, as the penalty wants it. Its bias, which the log-loss alone would send to
    minus infinity, gives it as much probability in the mean over the rows as half a row would.

    Args:
        features: (rows, features), raw, finite.
        labels: (rows,), class indices from 0.
        classes: How many there are.
        groups: (rows,), any integers; rows of one group are on one side of the hold-out.
        seed: Decides which rows are held out, and nothing else.
        device: Where it is computed.

    Returns:
        A head for raw features: centring and scaling are part of its weights.

    Raises:
        ValueError: If there are no rows, shapes do not fit, a label is no class or a feature is not finite.
    """
    _check(features, labels, classes, groups)
    present, label = np.unique(labels, return_inverse=True)
    scaled = scale_features(torch.from_numpy(np.array(features, np.float32)).to(device))
    shares = torch.full((1, len(labels)), 1.0 / len(labels), device=device)
    problem = Problem(scaled, torch.from_numpy(label).to(device), shares, len(present))
    variance = Variance.of(scaled.values)
    strength, start = _choose_strength(problem, _hold_outs(deal_inner_folds(labels, groups, seed)), variance)
    found = solve(problem, strength, start, variance, TOLERANCE)
    # What all classes have in common says nothing: without it, heads of two machines can be compared.
    point, gradient = (tensor - tensor.mean(0) for tensor in (found.point, found.gradient))
    weight, bias = np.zeros((classes, features.shape[1]), np.float32), np.empty(classes, np.float32)
    weight[present], bias[present] = (tensor.cpu().numpy() for tensor in scaled.unscaled(point))
    if len(present) < classes:
        bias[np.setdiff1d(np.arange(classes), present)] = _absent_bias(problem.log_normalisers(point)[0])
    return SolvedHead(weight=weight, bias=bias, strength=strength, gradient_norm=scaled.largest_entry(gradient))


def _hold_outs(folds: Integers) -> npt.NDArray[np.bool_]:
    """Return what is held out one after the other, (hold-outs, rows): folds until there are enough rows, or none."""
    chosen = np.zeros((0, len(folds)), np.bool_)
    for fold in range(FOLDS):
        held_out = folds == fold
        if 0 < held_out.sum() <= _LARGEST_SHARE * len(folds) and chosen.sum() < ENOUGH_ROWS:
            chosen = np.concatenate([chosen, held_out[None]])
    return chosen if chosen.sum() >= _LEAST_ROWS else chosen[:0]


def _choose_strength(problem: Problem, hold_outs: npt.NDArray[np.bool_], variance: Variance) -> tuple[float, Tensor]:
    """Return the strength that held-out rows ask for, and a point near its solution on all rows.

    Args:
        problem: One head on all rows.
        hold_outs: (hold-outs, rows).
        variance: Of the rows.
    """
    if not len(hold_outs):
        return USUAL_STRENGTH, problem.start()
    fits = ~hold_outs / (~hold_outs).sum(axis=1, keepdims=True)
    shares = torch.from_numpy(fits.astype(np.float32)).to(problem.shares.device)
    without = replace(problem, shares=shares)
    # With a single hold-out, the rows that are fitted and those that are not have nothing in common.
    fitted, held_out = without.part(np.any(~hold_outs, axis=0)), without.part(np.any(hold_outs, axis=0))
    is_held_out = held_out.shares == 0.0
    point = nearest = fitted.start()
    losses: list[float] = []
    for strength in STRENGTHS:
        point = solve(fitted, strength, point, variance, PATH_TOLERANCE).point
        losses.append(float(held_out.row_losses(point)[is_held_out].mean(dtype=torch.float64)))
        if losses[-1] == min(losses):
            nearest = point
        if losses[-1] > min(losses) + CLEAR_RISE:
            break
    start = nearest.view(len(hold_outs), problem.classes, -1).mean(0)
    return likely_strength(losses, int(hold_outs.sum())), start


def likely_strength(losses: Sequence[float], rows: int) -> float:
    """Return the strength of the path, or between two of it, that is likeliest after the held-out rows.

    Before them, its decimal logarithm is taken as normal around that of the usual strength, with a variance of 1/2: few
    rows say little, and whatever they say by chance is held back. The maximum is that of a parabola through the best
    strength of the path and its two neighbours.

    Args:
        losses: Mean held-out log-losses of the path's strengths, as far as it went.
        rows: How many were held out.
    """
    decades = np.log10(STRENGTHS[: len(losses)])
    unlikely = rows * np.asarray(losses) + (decades - math.log10(USUAL_STRENGTH)) ** 2
    best = int(unlikely.argmin())
    if not 0 < best < len(losses) - 1:
        return STRENGTHS[best]
    # Newton's form of the parabola: its slope at the best strength over its curvature.
    (before, here, after), (high, middle, low) = decades[best - 1 : best + 2], unlikely[best - 1 : best + 2]
    left, right = (high - middle) / (before - here), (middle - low) / (here - after)
    curvature = (left - right) / (before - after)
    vertex = 0.5 * (before + here) - 0.5 * left / curvature if curvature > 0.0 else here
    return float(10.0 ** np.clip(vertex, after, before))


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
