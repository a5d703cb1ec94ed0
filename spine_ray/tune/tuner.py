"""A tier as one Tuner of Ray, built from what the ledger knows and from nothing of Ray's own."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune import CheckpointConfig, FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig, Tuner
from ray.tune.experiment import Trial as RayTrial

from spine_ray.sampling.queue import Refusal
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.study.depot import Depot
from spine_ray.study.events import Event
from spine_ray.study.paths import StudyPaths
from spine_ray.tune.ray_errors import failure_of
from spine_ray.tune.scheduler import ExactAsha
from spine_ray.tune.searcher import TierSearcher
from spine_ray.tune.trainable import TrialTrainable
from spine_ray.workers.failures import RETRIES
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_log import TrialLog, dropping_checkpoints, trial_request
from spine_ray.workers.trial_steps import StepReport, TrialRequest


def run_tuner(
    plan: TierPlan, spec: WorkerSpec, actors: tuple[Any, ...], cpus: float, on_event: Callable[[Event], None]
) -> tuple[Refusal, ...]:
    """Run a tier to its end and return what was not admitted.

    Args:
        plan: What to try.
        spec: What the workers must know.
        actors: Handles of the warm workers; so many trials run at once.
        cpus: Of the thin process that runs a trial on one of them.
        on_event: Called in this process for every event, in order; returns when the event will outlast the process.
    """
    queue = plan.queue(time.time)
    scheduler = ExactAsha(plan.stopping_rule(time.time))
    record = dropping_checkpoints(on_event, Depot(StudyPaths(spec.study), spec.holder, spec.uri))
    trainable = tune.with_resources(
        tune.with_parameters(TrialTrainable, spec=spec, actors=actors), PlacementGroupFactory([{"CPU": cpus}])
    )
    Tuner(
        trainable,
        tune_config=TuneConfig(
            search_alg=TierSearcher(queue, lambda queued: trial_request(plan, queued), workers=len(actors)),
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=len(actors),
            reuse_actors=True,
            trial_dirname_creator=_trial_folder,
        ),
        run_config=RunConfig(
            name=f"{plan.domain.tier.name}-{int(time.time())}",
            storage_path=str((spec.study / "ray").resolve()),
            callbacks=[EventCallback(scheduler, TrialLog(record, plan.interrupted))],
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            failure_config=FailureConfig(max_failures=RETRIES),
            verbose=0,
        ),
    ).fit()
    return queue.refusals


class EventCallback(tune.Callback):
    """Passes on to the log what Ray Tune says of its trials.

    Args:
        scheduler: Knows why a trial was stopped.
        log: Records it.
    """

    def __init__(self, scheduler: ExactAsha, log: TrialLog) -> None:
        """Start with no trial running."""
        self._scheduler, self._log = scheduler, log

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of ray's snapshots: they are never read."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record the start."""
        if not _request(trial).is_control:
            self._log.start(_request(trial).started)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch."""
        report: StepReport = result["report"]
        if report.done is not None and not report.done.is_known:
            trial.max_failures = trial.num_failures + RETRIES  # counted anew from every new epoch
        if not _request(trial).is_control:
            self._log.step(_request(trial).trial_id, report)

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record how it ended: with OOF logits, stopped with the scheduler's reason, or given up."""
        if _request(trial).is_control:
            return
        report: StepReport = trial.last_result["report"]
        trial_id = _request(trial).trial_id
        reason = "" if report.is_last else self._scheduler.reasons.get(trial_id, "stopped by ray")
        self._log.end(trial_id, report.status, report.failure or reason)

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **info: Any) -> None:
        """Record a failure of the thin process itself, which may have died before it came up."""
        if not _request(trial).is_control:
            self._log.start(_request(trial).started)
            self._log.end(_request(trial).trial_id, "failed", failure_of(error_of(trial)).reason)


def error_of(trial: RayTrial) -> BaseException | None:
    """Return what a worker raised, or None where ray kept nothing.

    Ray's own `Trial.get_error` looks in the storage, where the file arrives only after the callbacks.
    """
    file = trial.pickled_error_file
    if file is None or not Path(file).exists():
        return None
    error: BaseException = cloudpickle.loads(Path(file).read_bytes())
    return error


def _trial_folder(trial: RayTrial) -> str:
    return str(trial.trial_id)


def _request(trial: RayTrial) -> TrialRequest:
    request: TrialRequest = trial.config["request"]
    return request
