"""What MLflow is told, as plain values: params, points and metrics of a trial and of the ensemble. Knows no MLflow."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from spine_ray.study.events import EpochDone, Status, TrialStarted
from spine_ray.study.tables import Costs, cost_key
from spine_ray.study.trials import Trial

RUN_STATUS: dict[Status, str] = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""MLflow's word for each way in which a trial ends."""

MAX_VALUE = 6000
"""Longest text of a param, characters: a limit of MLflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One value of a curve."""

    key: str
    value: float
    at_ms: int
    """Milliseconds since 1970."""
    step: int


def trial_params(event: TrialStarted) -> dict[str, str]:
    """Return what identifies a trial, repeated on every child so that the UI filters and groups children alone."""
    config = event.config
    values: dict[str, Any] = {
        "trial_id": event.trial_id,
        "tier": event.tier,
        "backbone": config.backbone,
        "family": event.family,
        "resolution": config.resolution,
        "freeze": config.freeze,
        **({} if config.recipe is None else asdict(config.recipe)),
        "is_start": event.is_start,
        "params": event.params,
        "macs": event.macs,
        "weights_source": event.weights_source,
        "licence": event.licence,
    }
    return {key: str(value)[:MAX_VALUE] for key, value in values.items()}


def epoch_points(trial: Trial) -> dict[int, list[Point]]:
    """Return the points of a trial's curves by step.

    The ledger does not say when an epoch ended: it is reckoned from the trial's start, the same every time.
    """
    points: dict[int, list[Point]] = {}
    time = trial.started.time
    for epoch in trial.epochs:
        time += epoch.seconds
        at_ms = int(time * 1000)
        points[epoch.step] = [
            Point(key=key, value=value, at_ms=at_ms, step=epoch.step) for key, value in _epoch_metrics(epoch).items()
        ]
    return points


def end_ms(trial: Trial) -> int:
    """Return when a trial ended, or was last heard of, milliseconds since 1970."""
    return int((trial.ended.time if trial.ended else trial.started.time + trial.seconds) * 1000)


def trial_metrics(trial: Trial, costs: Costs) -> dict[str, float]:
    """Return a trial's numbers that are no curve: what it costs and, once it completed, its result.

    A stopped trial has no `oof_log_loss`: comparing by it compares only trials that saw all folds.
    """
    started = trial.started
    metrics = {"cost_params": float(started.params), "cost_macs": float(started.macs)}
    cost = costs.get(cost_key(trial.config))
    if cost is not None:
        metrics["cost"] = 1000.0 / cost.infer_images_s
    if trial.ended is None:
        return metrics
    metrics |= {"total_seconds": trial.ended.seconds, "total_steps": float(trial.ended.step)}
    if trial.is_completed:
        ends = {"oof_log_loss": trial.ended.log_loss, "oof_accuracy": trial.ended.accuracy}
        metrics |= {key: value for key, value in ends.items() if value is not None}
    return metrics


def ensemble_params(stored: Mapping[str, Any]) -> dict[str, str]:
    """Return what an ensemble consists of.

    Args:
        stored: What `ensemble.json` holds.
    """
    members = stored["members"]
    values = {
        "members": ", ".join(member["trial_id"] for member in members),
        "weights": ", ".join(f"{member['weight']:.4g}" for member in members),
        "pool": stored["pool"],
        "best_single": stored["best_single"],
        "hash": stored["hash"],
    }
    return {key: str(value)[:MAX_VALUE] for key, value in values.items()}


def ensemble_metrics(stored: Mapping[str, Any]) -> dict[str, float]:
    """Return an ensemble's numbers, named as those of the trials where they say the same thing."""
    report = stored["report"]
    gain = report["cross_fit"] or report["apparent"]
    metrics = {
        "oof_log_loss": report["log_loss"],
        "oof_accuracy": report["accuracy"],
        "cost": report["cost"],
        "gain": gain["gain"],
        "gain_low": gain["low"],
        "gain_high": gain["high"],
        "num_members": len(stored["members"]),
    }
    if stored["test"]:
        metrics |= {"test_log_loss": stored["test"][0]["log_loss"], "test_accuracy": stored["test"][0]["accuracy"]}
    return {key: float(value) for key, value in metrics.items() if value is not None and math.isfinite(value)}


def config_text(trial: Trial) -> str:
    """Return a trial's configuration as JSON that `TrialConfig.from_dict` reads."""
    return json.dumps(trial.config.to_dict(), indent=1) + "\n"


def _epoch_metrics(event: EpochDone) -> dict[str, float]:
    return {
        "log_loss": event.log_loss,
        "accuracy": event.accuracy,
        "train_loss": event.train_loss,
        "seconds": event.seconds,
        "train_images_s": event.train_images_s,
        "score_images_s": event.score_images_s,
        "peak_mb": event.peak_mb,
    }
