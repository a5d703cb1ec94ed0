"""Between a tier's plan and its trials, whoever runs them: what a worker is asked for, and what is recorded of it."""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from spine_ray.sampling.queue import Outcome, QueuedTrial
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.depot import Depot
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialStarted
from spine_ray.study.trials import Trial
from spine_ray.workers.trial_steps import StepReport, TrialRequest


class TrialLog:
    """Turns what happens to trials into events.

    Args:
        on_event: Called for every event, in order; returns when the event will outlast the process.
        interrupted: What the ledger knows of trials that go on, by id.
    """

    def __init__(self, on_event: Callable[[Event], None], interrupted: Mapping[str, Trial]) -> None:
        """Start with no trial running."""
        self._on_event = on_event
        self._started: set[str] = set()
        self._epochs = {trial_id: list(trial.epochs) for trial_id, trial in interrupted.items()}

    def start(self, started: TrialStarted) -> None:
        """Record a start, once: a trial that is begun again after a loss has started before."""
        if started.trial_id not in self._started:
            self._started.add(started.trial_id)
            self._on_event(replace(started, time=time.time()))

    def step(self, trial_id: str, report: StepReport) -> None:
        """Record an epoch, unless the ledger has it, and what the trial went through before it."""
        if report.done is None:
            return
        epochs, epoch = self._epochs.setdefault(trial_id, []), report.done.epoch
        for each in report.resumed:
            self._on_event(each)
            epochs[:] = [known for known in epochs if known.step <= each.step]
        if report.done.is_known and epochs and epoch.step <= epochs[-1].step:
            return
        epochs[:] = [*(known for known in epochs if known.step < epoch.step), epoch]
        self._on_event(epoch)

    def end(self, trial_id: str, status: Status, reason: str) -> None:
        """Record how a trial ended, with the scores of its last epoch."""
        epochs = self._epochs.get(trial_id, [])
        last: EpochDone | None = epochs[-1] if epochs else None
        self._on_event(
            TrialEnded(
                trial_id=trial_id,
                status=status,
                reason=reason,
                step=last.step if last else 0,
                log_loss=last.log_loss if last else None,
                accuracy=last.accuracy if last else None,
                seconds=sum((epoch.seconds for epoch in epochs), 0.0),
                time=time.time(),
            )
        )


def dropping_checkpoints(on_event: Callable[[Event], None], depot: Depot) -> Callable[[Event], None]:
    """Return a callback that also drops the checkpoint of a trial that ended.

    Not before its end is known for good: until then it may be resumed.
    """

    def record(event: Event) -> None:
        on_event(event)
        if isinstance(event, TrialEnded):
            with contextlib.suppress(OSError):  # it is swept when the study is opened again
                depot.remove(depot.paths.checkpoint(event.trial_id))

    return record


def trial_request(plan: TierPlan, queued: QueuedTrial) -> TrialRequest:
    """Return what a worker is asked for.

    An interrupted trial reports its last epoch again: nobody knows whether the rungs had judged it before the death.
    The control has the id of a start recipe, of which the ledger may know more, and reports everything.
    """
    config = queued.config
    known = None if queued.is_control else plan.interrupted.get(config.trial_id)
    return TrialRequest(
        started=plan.describe(config, config in plan.starts),
        is_control=queued.is_control,
        report_from=known.epochs[-1].step if known is not None and known.epochs else 1,
        hang_timeout=plan.hang_timeout(config),
    )


def outcome_of(config: TrialConfig, report: StepReport) -> Outcome:
    """Return what the queue is told of a trial whose last step is known."""
    if report.done is None:
        return Outcome(config, "failed")
    return Outcome(config, report.status, report.done.epoch.step, report.log_loss)
