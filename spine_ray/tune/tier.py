"""One tier as one Tuner, built from what the ledger knows and from nothing of ray's own."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune import CheckpointConfig, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial as RayTrial

from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted
from spine_ray.tune.cluster import Workers
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.scheduler import ExactAsha
from spine_ray.tune.searcher import TierSearcher
from spine_ray.tune.tier_plan import Refusal, TierPlan
from spine_ray.tune.trainable import TrialTrainable


def run_tier(
    plan: TierPlan, order: WorkOrder, workers: Workers, on_event: Callable[[Event], None]
) -> tuple[Refusal, ...]:
    """Run a tier to its end and return what was not admitted.

    Args:
        plan: What to try.
        order: What the workers need to know.
        workers: How many trials run at once, and with what.
        on_event: Called in this process for every event, in order.
    """
    queue = plan.queue(time.time)
    scheduler = ExactAsha(plan.rungs(), plan.deadline)
    start_ids = {config.trial_id for config in plan.starts}
    handed: dict[str, TrialStarted] = {}

    def describe(config: TrialConfig) -> dict[str, Any]:
        handed[config.trial_id] = plan.describe(config, config.trial_id in start_ids)
        return _handed_out(handed[config.trial_id])

    searcher = TierSearcher(queue, describe, workers=workers.count)
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, order=order, crew=workers.crew),
        PlacementGroupFactory([{"CPU": workers.bundles[1]}]),
    )
    Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=workers.count,
            reuse_actors=True,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=RunConfig(
            name=f"{plan.domain.tier.name}-{int(time.time())}",
            storage_path=str((order.study / "ray").resolve()),
            callbacks=[EventCallback(scheduler, on_event, handed)],
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            failure_config=FailureConfig(max_failures=0),
            verbose=0,
        ),
    ).fit()
    return tuple(Refusal(config, reason) for config, reason in queue.suggester.refused.values())


class EventCallback(tune.Callback):
    """Turns what Ray Tune says of its trials into events."""

    def __init__(
        self,
        scheduler: ExactAsha,
        on_event: Callable[[Event], None],
        handed: Mapping[str, TrialStarted],
    ) -> None:
        """Start with no trial running.

        Args:
            scheduler: Knows why a trial was stopped.
            on_event: Called for every event.
            handed: The record of every trial that was handed out.
        """
        self._scheduler, self._on_event, self._handed = scheduler, on_event, handed
        self._started: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of ray's snapshots: they are never read."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record the start."""
        if not trial.config["is_control"]:
            self._start(trial)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch."""
        if not trial.config["is_control"]:
            names = [name for name in EpochDone.__dataclass_fields__ if name != "trial_id"]
            self._on_event(EpochDone(trial_id=_id(trial), **{name: result[name] for name in names}))

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record how it ended: with OOF logits, or stopped with the scheduler's reason."""
        if trial.config["is_control"]:
            return
        last = trial.last_result
        if last["is_last"]:
            self._end(trial, "completed", "")
        else:
            self._end(trial, "stopped", self._scheduler.reasons.get(_id(trial), "stopped by ray"))

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record a failure with the last line of its error."""
        if trial.config["is_control"]:
            return
        if _id(trial) not in self._started:  # its worker died before it came up
            self._start(trial)
        self._end(trial, "failed", failure_reason(error_of(trial)))

    def _start(self, trial: RayTrial) -> None:
        self._started.add(_id(trial))
        self._on_event(replace(self._handed[_id(trial)], time=time.time()))

    def _end(self, trial: RayTrial, status: Any, reason: str) -> None:
        last = trial.last_result or {}
        self._on_event(
            TrialEnded(
                trial_id=_id(trial),
                status=status,
                reason=reason,
                step=last.get("step", 0),
                log_loss=last.get("log_loss"),
                accuracy=last.get("accuracy"),
                seconds=last.get("time_total_s", 0.0),
                time=time.time(),
            )
        )


def error_of(trial: RayTrial) -> BaseException | None:
    """Return what a worker raised, or None where ray kept nothing.

    Ray's own `Trial.get_error` looks in the storage, where the file arrives only after the callbacks.
    """
    file = trial.pickled_error_file
    if file is None or not Path(file).exists():
        return None
    error: BaseException = cloudpickle.loads(Path(file).read_bytes())
    return error


def failure_reason(error: BaseException | None) -> str:
    """Return one line that says what went wrong in a worker: the innermost error, not ray's wrapping of it."""
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    if error is None:
        return "unknown error"
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    told = lines[-1].strip() if lines else ""
    return f"{type(error).__name__}: {told}".removesuffix(": ")[:300]


def _handed_out(started: TrialStarted) -> dict[str, Any]:
    """Return what ray carries of a trial: plain values only, so that its thin processes load nothing for them."""
    return {
        "trial": started.config.to_dict(),
        "trial_id": started.trial_id,
        "family": started.family,
        "is_start": started.is_start,
    }


def _trial_folder(trial: RayTrial) -> str:
    return str(trial.trial_id)


def _id(trial: RayTrial) -> str:
    return str(trial.config["trial_id"])
