"""One tier as one Tuner, built from what the ledger knows and from nothing of ray's own."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune import CheckpointConfig, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial as RayTrial

from spine_ray.space.config import TrialConfig
from spine_ray.study.depot import Depot
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialResumed, TrialStarted
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import Trial
from spine_ray.tune.cluster import Workers
from spine_ray.tune.failures import RETRIES, failure_of
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
        on_event: Called in this process for every event, in order; returns when the event will outlast the process.
    """
    queue = plan.queue(time.time)
    scheduler = ExactAsha(plan.rungs(), plan.deadline)
    start_ids = {config.trial_id for config in plan.starts}
    handed: dict[str, TrialStarted] = {}
    depot = Depot(StudyPaths(order.study), order.holder, order.uri)

    def describe(config: TrialConfig) -> dict[str, Any]:
        handed[config.trial_id] = plan.describe(config, config.trial_id in start_ids)
        return _handed_out(plan, handed[config.trial_id])

    def tell(event: Event) -> None:
        on_event(event)
        if isinstance(event, TrialEnded):  # not before its end is known for good: until then it may be gone on from
            with contextlib.suppress(OSError):  # it is swept when the study is opened again
                depot.remove(depot.paths.checkpoint(event.trial_id))

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
            callbacks=[EventCallback(scheduler, tell, handed, plan.interrupted)],
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            failure_config=FailureConfig(max_failures=RETRIES),
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
        interrupted: Mapping[str, Trial],
    ) -> None:
        """Start with no trial running.

        Args:
            scheduler: Knows why a trial was stopped.
            on_event: Called for every event.
            handed: The record of every trial that was handed out.
            interrupted: What the ledger knows of trials that go on, by id.
        """
        self._scheduler, self._on_event, self._handed = scheduler, on_event, handed
        self._started: set[str] = set()
        self._epochs = {trial_id: list(trial.epochs) for trial_id, trial in interrupted.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of ray's snapshots: they are never read."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record the start, once: a trial whose thin process was lost starts again for ray alone."""
        if not trial.config["is_control"] and _id(trial) not in self._started:
            self._start(trial)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch, unless the ledger has it, and what the trial went through before it."""
        if "failure" in result:
            return
        if not result["is_known"]:
            trial.max_failures = trial.num_failures + RETRIES  # counted anew from every new epoch
        if trial.config["is_control"]:
            return
        trial_id, epochs = _id(trial), self._epochs.setdefault(_id(trial), [])
        for each in result["resumed"]:
            self._on_event(TrialResumed(trial_id=trial_id, **each))
            epochs[:] = [epoch for epoch in epochs if epoch.step <= each["step"]]
        if result["is_known"] and epochs and result["step"] <= epochs[-1].step:
            return
        names = [name for name in EpochDone.__dataclass_fields__ if name != "trial_id"]
        epoch = EpochDone(trial_id=trial_id, **{name: result[name] for name in names})
        epochs[:] = [*(each for each in epochs if each.step < epoch.step), epoch]
        self._on_event(epoch)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record how it ended: with OOF logits, stopped with the scheduler's reason, or given up."""
        if trial.config["is_control"]:
            return
        last = trial.last_result
        reason = self._scheduler.reasons.get(_id(trial), "stopped by ray")
        if "failure" in last:
            self._end(trial, "failed", last["failure"])
        elif last["is_last"]:
            self._end(trial, "completed", "")
        else:
            self._end(trial, "stopped" if math.isfinite(last["log_loss"]) else "failed", reason)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record a failure of the thin process itself."""
        if trial.config["is_control"]:
            return
        if _id(trial) not in self._started:  # it died before it came up
            self._start(trial)
        self._end(trial, "failed", failure_of(error_of(trial)).reason)

    def _start(self, trial: RayTrial) -> None:
        self._started.add(_id(trial))
        self._on_event(replace(self._handed[_id(trial)], time=time.time()))

    def _end(self, trial: RayTrial, status: Status, reason: str) -> None:
        epochs = self._epochs.get(_id(trial), [])
        last = epochs[-1] if epochs else None
        self._on_event(
            TrialEnded(
                trial_id=_id(trial),
                status=status,
                reason=reason,
                step=last.step if last else 0,
                log_loss=last.log_loss if last else None,
                accuracy=last.accuracy if last else None,
                seconds=sum((epoch.seconds for epoch in epochs), 0.0),
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


def _handed_out(plan: TierPlan, started: TrialStarted) -> dict[str, Any]:
    """Return what ray carries of a trial: plain values only, so that its thin processes load nothing for them.

    An interrupted trial tells its last epoch again: nobody knows whether the rungs had judged it before the death.
    """
    known = plan.interrupted.get(started.trial_id)
    return {
        "tell_from": known.epochs[-1].step if known and known.epochs else 1,
        "patience": plan.patience(started.config),
        "trial": started.config.to_dict(),
        "trial_id": started.trial_id,
        "family": started.family,
        "is_start": started.is_start,
    }


def _trial_folder(trial: RayTrial) -> str:
    return str(trial.trial_id)


def _id(trial: RayTrial) -> str:
    return str(trial.config["trial_id"])
