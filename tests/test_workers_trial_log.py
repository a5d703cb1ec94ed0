"""What is recorded of a trial, whoever runs it, and what a worker is asked for."""

import math
from dataclasses import replace

import pytest

from spine_ray.sampling.queue import QueuedTrial
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialResumed, TrialStarted
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.workers.trial_log import TrialLog, trial_request
from spine_ray.workers.trial_steps import EpochReport, StepReport
from tests.support.tier_plans import epoch_done, tier_plan, trial_started
from tests.support.tier_study import FOLDS, STARTS, TIER

CONFIG = STARTS[0]
STARTED = trial_started(TIER, CONFIG, FOLDS, is_start=True)


def step(number: int, *, is_known: bool = False, resumed_at: int | None = None, log_loss: float = 0.5) -> StepReport:
    epoch = epoch_done(CONFIG, step=number, fold=0, epoch=number, log_loss=log_loss)
    resumed = () if resumed_at is None else (_resumed(resumed_at),)
    return StepReport(done=EpochReport(epoch, is_last=False, is_known=is_known), resumed=resumed)


def _resumed(number: int) -> TrialResumed:
    return TrialResumed(trial_id=CONFIG.trial_id, step=number, reason="the worker's process died", time=3.0)


def logged(*interrupted: Trial) -> tuple[TrialLog, list[Event]]:
    events: list[Event] = []
    return TrialLog(events.append, {trial.trial_id: trial for trial in interrupted}), events


def test_a_trial_starts_once() -> None:
    log, events = logged()
    log.start(STARTED)
    log.start(STARTED)
    assert [type(event) for event in events] == [TrialStarted]


def test_a_trial_that_ends_before_its_first_epoch_has_no_scores() -> None:
    log, events = logged()
    log.start(STARTED)
    log.end(CONFIG.trial_id, "failed", "it broke")
    (trial,) = trials_from_events(events).values()
    assert trial.ended is not None
    assert (trial.status, trial.ended.step, trial.ended.log_loss, trial.ended.seconds) == ("failed", 0, None, 0.0)


def test_an_epoch_that_the_ledger_has_is_not_recorded_again() -> None:
    log, events = logged()
    log.step(CONFIG.trial_id, step(1))
    for number in (1, 2):  # its thin process was lost: the worker reports from the checkpoint what it holds
        log.step(CONFIG.trial_id, step(number, is_known=True))
    assert [event.step for event in events if isinstance(event, EpochDone)] == [1, 2]


def test_an_interrupted_trial_goes_on_after_the_epochs_of_the_ledger() -> None:
    known = Trial(started=STARTED, epochs=(step(1).done.epoch,), ended=None)
    log, events = logged(known)
    log.step(CONFIG.trial_id, step(1, is_known=True))
    log.step(CONFIG.trial_id, step(2))
    log.end(CONFIG.trial_id, "completed", "")
    assert [type(event) for event in events] == [EpochDone, TrialEnded]
    assert events[-1].seconds == 2.0


def test_epochs_after_the_one_that_a_trial_goes_on_from_are_recorded_again() -> None:
    log, events = logged()
    for number in (1, 2):
        log.step(CONFIG.trial_id, step(number))
    log.step(CONFIG.trial_id, step(2, resumed_at=1))
    (whole,) = trials_from_events([STARTED, *events]).values()
    assert [epoch.step for epoch in whole.epochs] == [1, 2]
    assert [type(event) for event in events] == [EpochDone, EpochDone, TrialResumed, EpochDone]


@pytest.mark.parametrize(
    ("report", "status"),
    [
        (step(1), "stopped"),
        (step(1, log_loss=math.nan), "failed"),
        (StepReport(failure="RuntimeError: no"), "failed"),
        (StepReport(done=replace(step(4).done, is_last=True)), "completed"),
    ],
)
def test_a_trial_that_diverged_or_was_given_up_has_failed(report: StepReport, status: str) -> None:
    assert report.status == status


def test_an_interrupted_trial_reports_its_last_epoch_again_and_its_control_everything() -> None:
    known = Trial(started=STARTED, epochs=(step(1).done.epoch, step(2).done.epoch), ended=None)
    plan = tier_plan(TIER, "random", FOLDS, known=(known,))
    assert trial_request(plan, QueuedTrial(CONFIG)).report_from == 2
    assert trial_request(plan, QueuedTrial(CONFIG, is_control=True)).report_from == 1
    assert trial_request(plan, QueuedTrial(STARTS[1])).report_from == 1
    assert trial_request(plan, QueuedTrial(STARTS[1])).started.is_start
    assert not trial_request(plan, QueuedTrial(replace(CONFIG, freeze=0.5))).started.is_start
