"""Temperature scaling: one number that makes logits say what they are worth."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Columns = NDArray[np.floating[Any]]
"""(classes, samples)."""

MIN_TEMPERATURE = 0.05
MAX_TEMPERATURE = 20.0
_MAX_STEPS = 60
_MANY = 2**20
_FEW = 4096
"""Rows that are enough to begin near the minimum."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike, *, start: float | None = None) -> float:
    """Fit the temperature that minimises the log-loss of `logits / T`.

    In the sharpness `1 / T` the log-loss is convex, so Newton's method inside a bracket finds the one minimum
    whatever it starts from; `start` (a temperature) only saves steps.

    Args:
        logits: (samples, classes), finite; computed with in float64.
        labels: (samples,), class indices.
        start: Where to begin; None: where a part of many rows says, or at 1.

    Returns:
        T within 0.05 to 20; exactly 1.0 where no other temperature has a lower log-loss.

    Raises:
        ValueError: If the shapes do not fit or there are no rows.
    """
    rows = np.asarray(logits)
    if start is None and rows.ndim == 2 and len(rows) >= 2 * _FEW:
        stride = len(rows) // _FEW
        start = fit_temperature(rows[::stride], np.asarray(labels)[::stride])
    columns, truth = _shifted_columns(rows, labels)
    sharpness = _minimise(columns, truth, 1.0 / min(max(start or 1.0, MIN_TEMPERATURE), MAX_TEMPERATURE))
    if _value(columns, truth, sharpness) < _value(columns, truth, 1.0):
        return min(max(1.0 / sharpness, MIN_TEMPERATURE), MAX_TEMPERATURE)
    return 1.0


def log_probs(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the log-softmax of `logits / temperature` over the last axis, (..., classes), in float64."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    scaled -= np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    return scaled


def _shifted_columns(logits: ArrayLike, labels: ArrayLike) -> tuple[Columns, float]:
    """Return logits minus their row's largest as (classes, samples), and the mean of the true class's."""
    rows = np.asarray(logits)
    # Of millions of numbers float32 is exact enough, and is what they came in; means are float64 in any case.
    kind = np.float32 if rows.dtype == np.float32 and rows.size > _MANY else np.float64
    rows, index = rows.astype(kind, copy=False), np.asarray(labels)
    if rows.ndim != 2 or index.shape != rows.shape[:1] or not rows.size:
        raise ValueError(f"logits must be (samples, classes) with one label a row, not {rows.shape} with {index.shape}")
    columns = np.ascontiguousarray(rows.T)  # reductions over few classes are several times faster this way round
    columns -= columns.max(axis=0)
    return columns, _mean(columns[index, np.arange(len(index))])


def _value(columns: Columns, truth: float, sharpness: float) -> float:
    return _mean(np.log(np.exp(columns * columns.dtype.type(sharpness)).sum(axis=0))) - sharpness * truth


def _slope_and_curvature(columns: Columns, truth: float, sharpness: float) -> tuple[float, float]:
    masses = np.exp(columns * columns.dtype.type(sharpness))
    total = masses.sum(axis=0)
    masses *= columns
    first = masses.sum(axis=0) / total
    masses *= columns
    second = masses.sum(axis=0) / total
    return _mean(first) - truth, _mean(second - first * first)


def _mean(values: Columns) -> float:
    return float(values.mean(dtype=np.float64))


def _minimise(columns: Columns, truth: float, sharpness: float) -> float:
    """Newton on the sharpness, kept inside a bracket; an end of the range is tried before it is bisected."""
    low, high = 1.0 / MAX_TEMPERATURE, 1.0 / MIN_TEMPERATURE
    is_tried = {low: False, high: False}
    for _ in range(_MAX_STEPS):
        slope, curvature = _slope_and_curvature(columns, truth, sharpness)
        if slope == 0.0:
            break
        if slope > 0.0:
            high = sharpness
        else:
            low = sharpness
        is_tried[sharpness] = True
        if high - low <= 1e-9 * high:
            break
        step = sharpness - slope / curvature if curvature > 0.0 else math.copysign(math.inf, -slope)
        if not low < step < high:
            end = high if step >= high else low
            step = math.sqrt(low * high) if is_tried[end] else end
        is_close = abs(step - sharpness) <= 1e-6 * sharpness
        sharpness = step
        if is_close:  # Newton doubles its digits: the step just taken is exact to about 1e-12
            break
    return sharpness
