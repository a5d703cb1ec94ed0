import math
import time

import pytest
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler

from spine_ray.ladder.rungs import Rungs
from spine_ray.tune.scheduler import ExactAsha

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
PAST, FUTURE = time.time() - 1.0, time.time() + 3600.0


def ray_trial(trial_id: str, *, is_start: bool = False, is_control: bool = False) -> RayTrial:
    config = {"trial_id": trial_id, "family": "resnet", "is_start": is_start, "is_control": is_control}
    return RayTrial("trainable", config=config, stub=True)


def answer(
    scheduler: ExactAsha, trial: RayTrial, step: int, loss: float, *, fold: int = 0, is_done: bool = False
) -> str:
    return scheduler.on_trial_result(None, trial, {"step": step, "fold": fold, "log_loss": loss, "done": is_done})


@pytest.fixture
def rungs() -> Rungs:
    return Rungs(epochs=6, folds=2, reduction=3)


@pytest.mark.parametrize("deadline", [None, FUTURE])
def test_losers_are_stopped_with_the_reason_of_the_rungs(rungs: Rungs, deadline: float | None) -> None:
    scheduler = ExactAsha(rungs, deadline)
    assert answer(scheduler, ray_trial("a"), 2, 0.9) == CONTINUE
    assert answer(scheduler, ray_trial("b"), 2, 0.95) == STOP
    assert scheduler.reasons == {"b": "log-loss 0.9500 at epoch 2 is above the cut of 0.9000"}


def test_losses_from_before_count(rungs: Rungs) -> None:
    rungs.recorded[2] = {"earlier": ("resnet", 0.2)}
    assert answer(ExactAsha(rungs, None), ray_trial("a"), 2, 0.9) == STOP


def test_a_start_recipe_is_known_as_one(rungs: Rungs) -> None:
    rungs.recorded[2] = {"earlier": ("resnet", 0.2)}
    assert answer(ExactAsha(rungs, None), ray_trial("a", is_start=True), 2, 0.9) == CONTINUE


def test_a_loss_that_is_no_number_stops(rungs: Rungs) -> None:
    scheduler = ExactAsha(rungs, None)
    assert answer(scheduler, ray_trial("a", is_start=True), 1, math.nan) == STOP
    assert scheduler.reasons == {"a": "the loss is nan at epoch 1"}


def test_after_the_deadline_everything_stops_at_the_end_of_its_epoch(rungs: Rungs) -> None:
    scheduler = ExactAsha(rungs, PAST)
    for name, is_start in (("a", True), ("b", False)):
        assert answer(scheduler, ray_trial(name, is_start=is_start), 1, 0.1) == STOP
    assert scheduler.reasons == {"a": "the budget is spent", "b": "the budget is spent"}


def test_the_last_result_of_a_trial_is_left_to_ray(rungs: Rungs) -> None:
    scheduler = ExactAsha(rungs, PAST)
    assert answer(scheduler, ray_trial("a"), 12, 0.9, is_done=True) == CONTINUE
    assert scheduler.reasons == {}


def test_a_trial_of_all_folds_at_once_is_neither_compared_nor_recorded(rungs: Rungs) -> None:
    rungs.recorded[6] = {"earlier": ("resnet", 0.2)}
    scheduler = ExactAsha(rungs, FUTURE)
    for step in (2, 4, 6, 8):  # two folds an epoch: 2 and 6 are milestones
        assert answer(scheduler, ray_trial("a"), step, 5.0, fold=-1) == CONTINUE
    assert rungs.recorded == {6: {"earlier": ("resnet", 0.2)}}
    assert scheduler.reasons == {}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_trial_of_all_folds_at_once_stops_for_a_loss_that_is_no_number(rungs: Rungs, loss: float) -> None:
    scheduler = ExactAsha(rungs, None)
    assert answer(scheduler, ray_trial("a", is_start=True), 4, loss, fold=-1) == STOP
    assert scheduler.reasons == {"a": f"the loss is {loss}"}


def test_a_trial_of_all_folds_at_once_stops_after_the_deadline(rungs: Rungs) -> None:
    scheduler = ExactAsha(rungs, PAST)
    assert answer(scheduler, ray_trial("a", is_start=True), 4, 0.1, fold=-1) == STOP
    assert scheduler.reasons == {"a": "the budget is spent"}


def test_the_control_is_not_judged_and_not_recorded(rungs: Rungs) -> None:
    rungs.recorded[2] = {"earlier": ("resnet", 0.2)}
    scheduler = ExactAsha(rungs, None)
    assert answer(scheduler, ray_trial("a", is_control=True), 2, 5.0) == CONTINUE
    assert rungs.recorded == {2: {"earlier": ("resnet", 0.2)}}


def test_the_deadline_holds_for_the_control_too_without_a_word_about_its_namesake(rungs: Rungs) -> None:
    scheduler = ExactAsha(rungs, PAST)
    assert answer(scheduler, ray_trial("a", is_control=True), 2, 5.0) == STOP
    assert scheduler.reasons == {}
