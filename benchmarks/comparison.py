"""What the runs of the throughput benchmark say side by side: ratios of time, differences of log-loss."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.sides import WORKERS
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
    images_s: Mapping[str, float]
    """Training images a second by trial id; empty where not counted."""

    def slot_seconds(self) -> dict[str, float]:
        """Return by trial id the seconds of a worker with an equal share of all that no trial counted as its own.

        That is start, decoding, measuring, waiting, process starts and the end: together with the trials' own seconds
        it is the wall, once for every worker.
        """
        share = (WORKERS * self.wall - sum(self.seconds.values())) / len(self.seconds)
        return {name: seconds + share for name, seconds in self.seconds.items()}


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
        "trial_seconds_ratio_by_freeze": _ratios_by_freeze(trials, *_all(plain, spine, lambda run: run.seconds)),
        "slot_seconds_ratio_by_freeze": _ratios_by_freeze(trials, *_all(plain, spine, Run.slot_seconds)),
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


def images_s_over_bare(
    trials: Sequence[TrialConfig], runs: Sequence[Run], bare: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Return by backbone and freeze depth a side's training images/s as a share of the bare loop's, medians of both."""
    shares = {}
    for group in dict.fromkeys(map(group_name, trials)):
        names = [trial.trial_id for trial in trials if group_name(trial) == group]
        inside = median(run.images_s[name] for run in runs for name in names)
        shares[group] = _rounded(inside / median(rates[group] for rates in bare))
    return shares


def group_name(trial: TrialConfig) -> str:
    """Return the name of what a trial trains, whatever its recipe."""
    return f"{trial.backbone} at {trial.resolution} px, freeze {trial.freeze:.2f}"


def _all(
    plain: Sequence[Run], spine: Sequence[Run], of: Callable[[Run], Mapping[str, float]]
) -> tuple[list[Mapping[str, float]], list[Mapping[str, float]]]:
    return [of(run) for run in plain], [of(run) for run in spine]


def _ratios_by_freeze(
    trials: Sequence[TrialConfig], plain: Sequence[Mapping[str, float]], spine: Sequence[Mapping[str, float]]
) -> dict[str, float]:
    """Return the ratio of medians over the runs of the seconds of all trials of a depth."""
    ratios = {}
    for freeze in sorted({trial.freeze for trial in trials}):
        names = [trial.trial_id for trial in trials if trial.freeze == freeze]
        before, after = (median(sum(run[name] for name in names) for run in runs) for runs in (plain, spine))
        ratios[f"{freeze:.2f}"] = _rounded(before / after)
    return ratios


def _mean_losses(runs: Sequence[Run]) -> dict[str, float]:
    return {name: fmean(run.losses[name] for run in runs) for name in runs[0].losses}


def _rounded(value: float) -> float:
    return round(value, DIGITS)
