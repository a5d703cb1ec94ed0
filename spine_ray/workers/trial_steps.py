"""A trial one epoch a step, on a worker that may fail: tried again from its checkpoint, or given up with a reason.

Imports nothing heavy, because the thin processes of Ray Tune load it.
"""

import math
import time
from dataclasses import dataclass, replace
from typing import Protocol

from spine_ray.study.events import EpochDone, Status, TrialResumed, TrialStarted
from spine_ray.workers.failures import Attempts, WorkFailedError


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRequest:
    """A trial that a worker is asked to train, or its shuffled-label control."""

    started: TrialStarted
    is_control: bool
    report_from: int
    """The first epoch, over all folds, that the search has not recorded."""
    hang_timeout: float
    """Seconds after which an epoch, with all that comes before it, is taken to hang."""

    @property
    def trial_id(self) -> str:
        """The trial's id; a control has that of the trial whose configuration it is."""
        return self.started.trial_id


@dataclass(frozen=True, slots=True)
class Beginning:
    """The point at which a worker took up a trial."""

    step: int
    """Epochs that its checkpoint held, over all folds; 0 where it began anew."""
    dropped: str
    """Why a checkpoint was not used, or empty."""


@dataclass(frozen=True, slots=True)
class EpochReport:
    """An epoch as a worker reports it."""

    epoch: EpochDone
    is_last: bool
    """Whether the trial is complete: its OOF logits are written."""
    is_known: bool
    """Whether it was trained before, and comes from the checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepReport:
    """A step of a trial as the search sees it: an epoch, or the reason why the trial was given up."""

    done: EpochReport | None = None
    resumed: tuple[TrialResumed, ...] = ()
    """How often it lost its worker since the last step."""
    failure: str = ""

    @property
    def is_last(self) -> bool:
        """True where the trial is over by itself: complete, or given up."""
        return self.done is None or self.done.is_last

    @property
    def log_loss(self) -> float:
        """Temperature-scaled log-loss of the rows scored so far; NaN where the trial was given up."""
        return math.nan if self.done is None else self.done.epoch.log_loss

    @property
    def status(self) -> Status:
        """The status of a trial whose last step this is."""
        if self.done is not None and self.done.is_last:
            return "completed"
        return "stopped" if math.isfinite(self.log_loss) else "failed"


class TrialWorker(Protocol):
    """Trains one trial at a time; both methods raise `WorkFailedError`."""

    def begin(self, request: TrialRequest) -> Beginning:
        """Take up a trial where its checkpoint stands, or anew."""

    def next_epoch(self, request: TrialRequest) -> EpochReport:
        """Train one epoch of the trial that was begun."""


class TrialSteps:
    """Has a worker train one trial, an epoch a step.

    Args:
        request: The trial.
        worker: Trains it.
        pause: Wait before a worker that failed is asked again, times the failures so far, s.
    """

    def __init__(self, request: TrialRequest, worker: TrialWorker, pause: float) -> None:
        """Prepare; nothing is asked of the worker before the first step."""
        self._request, self._worker, self._pause = request, worker, pause
        self._attempts = Attempts()
        self._has_begun, self._lost = False, ""
        self._resumed: list[TrialResumed] = []

    def next(self) -> StepReport:
        """Train one epoch of one fold."""
        while True:
            try:
                return self._next_epoch()
            except WorkFailedError as failure:
                reason = self._attempts.why_give_up(failure)
                if reason is not None:
                    return StepReport(failure=reason)
                self._has_begun, self._lost = False, failure.reason
                time.sleep(self._pause * len(self._attempts.failures))

    def _next_epoch(self) -> StepReport:
        if not self._has_begun:
            self._note(self._worker.begin(self._request))
            self._has_begun = True
        done = self._worker.next_epoch(self._request)
        self._request = replace(self._request, report_from=done.epoch.step + 1)
        self._attempts = Attempts()
        resumed, self._resumed = tuple(self._resumed), []
        return StepReport(done=done, resumed=resumed)

    def _note(self, begun: Beginning) -> None:
        """Note, for the ledger, that the trial goes on from a checkpoint or was begun anew, and why."""
        reasons = [self._lost or ("it was interrupted" if begun.step or begun.dropped else "")]
        reasons += [f"its checkpoint was dropped, {begun.dropped}"] if begun.dropped else []
        if reason := "; ".join(filter(None, reasons)):
            trial_id = self._request.trial_id
            self._resumed.append(TrialResumed(trial_id=trial_id, step=begun.step, reason=reason, time=time.time()))
        self._lost = ""
