"""What the runs of the throughput benchmark say side by side: ratios of time, differences of log-loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import log_loss
from spine_ray.space.config import TrialConfig

DIGITS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a side that trains."""

    wall: float
    """Seconds of the side's whole process."""
    seconds: Mapping[str, float]
    """Seconds of a worker by trial id."""
    losses: Mapping[str, float]
    """OOF log-loss by trial id, nats; lower is better."""


def oof_log_loss(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    """Return the log-loss of OOF logits after temperature scaling; NaN where a model diverged.

    Raises:
        ValueError: If there is not one row of logits a label.
    """
    if logits.shape[:1] != labels.shape:
        raise ValueError(f"{len(labels)} pictures need as many rows of logits, not {logits.shape}")
    if not np.isfinite(logits).all():
        return math.nan
    return log_loss(log_probs(logits, fit_temperature(logits, labels)), labels)


def summary_of_side(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what one side that trains says of itself."""
    return {
        "walls": [_rounded(run.wall) for run in runs],
        "median_wall": _rounded(median(run.wall for run in runs)),
        "trial_seconds": _rounded(fmean(sum(run.seconds.values()) for run in runs)),
        "log_losses": {name: _rounded(loss) for name, loss in _mean_losses(runs).items()},
    }


def compare(trials: Sequence[TrialConfig], plain: Sequence[Run], spine: Sequence[Run]) -> dict[str, Any]:
    """Return how many times faster the spine side is, and what it loses or gains in log-loss, spine minus plain."""
    before, after = _mean_losses(plain), _mean_losses(spine)
    differences = {trial.trial_id: after[trial.trial_id] - before[trial.trial_id] for trial in trials}
    values = list(differences.values())
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return {
        "plain_wall_over_spine_wall": _rounded(median(run.wall for run in plain) / median(run.wall for run in spine)),
        "plain_seconds_over_spine_seconds_by_freeze": _ratios_by_freeze(trials, plain, spine),
        "log_loss_differences": {name: _rounded(value) for name, value in differences.items()},
        "mean_log_loss_difference": _rounded(fmean(values)),
        "standard_error_over_trials": None if error is None else _rounded(error),
    }


def against_bare(side: Sequence[Run], bare_seconds: Sequence[float]) -> dict[str, Any]:
    """Return how much of a side's wall time was arithmetic that cannot be left out.

    Args:
        side: Its runs.
        bare_seconds: Of that arithmetic, shared by all workers; one number a run of the bare side.
    """
    wall, bare = median(run.wall for run in side), median(bare_seconds)
    return {
        "bare_seconds": _rounded(bare),
        "share_of_wall": _rounded(bare / wall),
        "wall_over_bare": _rounded(wall / bare),
    }


def _ratios_by_freeze(trials: Sequence[TrialConfig], plain: Sequence[Run], spine: Sequence[Run]) -> dict[str, float]:
    ratios = {}
    for freeze in sorted({trial.freeze for trial in trials}):
        names = [trial.trial_id for trial in trials if trial.freeze == freeze]
        before, after = (fmean(sum(run.seconds[name] for name in names) for run in runs) for runs in (plain, spine))
        ratios[f"{freeze:.2f}"] = _rounded(before / after)
    return ratios


def _mean_losses(runs: Sequence[Run]) -> dict[str, float]:
    return {name: fmean(run.losses[name] for run in runs) for name in runs[0].losses}


def _rounded(value: float) -> float:
    return round(value, DIGITS)
