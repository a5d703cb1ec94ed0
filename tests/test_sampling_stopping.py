import math
from dataclasses import replace

import pytest

from spine_ray.ladder.rungs import Rungs
from spine_ray.sampling.stopping import StoppingRule
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import TierSpace
from tests.support.tier_plans import epoch_done, trial_started

NOW = 1000.0
PAST, FUTURE = NOW - 1.0, NOW + 3600.0
TIER = TierSpace(name="light", backbones=("test_resnet", "test_vit", "test_convnext"), resolutions=(32,), trials=3)
A, B, _ = start_configs(TIER, "random")


@pytest.fixture
def rungs() -> Rungs:
    return Rungs(epochs=6, reduction=3)


def rule(rungs: Rungs, deadline: float | None = None) -> StoppingRule:
    return StoppingRule(rungs, deadline, lambda: NOW)


def why(
    judge: StoppingRule, config: TrialConfig, step: int, loss: float, *, fold: int = 0, is_start: bool = False
) -> str | None:
    started = replace(trial_started(TIER, config, folds=2, is_start=is_start), family="resnet")
    return judge.why_stop(started, epoch_done(config, step=step, fold=fold, epoch=step, log_loss=loss))


@pytest.mark.parametrize("deadline", [None, FUTURE], ids=["no deadline", "a later deadline"])
def test_losers_are_stopped_with_the_reason_of_the_rungs(rungs: Rungs, deadline: float | None) -> None:
    found = rule(rungs, deadline)
    assert why(found, A, 2, 0.9) is None
    assert why(found, B, 2, 0.95) == "log-loss 0.9500 at epoch 2 is above the cut of 0.9000"


def test_losses_from_before_count(rungs: Rungs) -> None:
    rungs.recorded[2] = {"earlier": ("resnet", 0.2)}
    assert why(rule(rungs), A, 2, 0.9) is not None


def test_a_start_recipe_is_known_as_one(rungs: Rungs) -> None:
    rungs.recorded[2] = {"earlier": ("resnet", 0.2)}
    assert why(rule(rungs), A, 2, 0.9, is_start=True) is None


def test_a_loss_that_is_no_number_stops(rungs: Rungs) -> None:
    assert why(rule(rungs), A, 1, math.nan, is_start=True) == "the loss is nan at epoch 1"


def test_after_the_deadline_everything_stops_at_the_end_of_its_epoch(rungs: Rungs) -> None:
    over = rule(rungs, PAST)
    assert over.is_over
    assert not rule(rungs, FUTURE).is_over
    for is_start in (True, False):
        assert why(over, A, 1, 0.1, is_start=is_start) == "the budget is spent"


def test_a_trial_of_all_folds_at_once_is_neither_compared_nor_recorded(rungs: Rungs) -> None:
    rungs.recorded[6] = {"earlier": ("resnet", 0.2)}
    found = rule(rungs, FUTURE)
    for step in (2, 4, 6, 8):  # two folds an epoch: 2 and 6 are milestones
        assert why(found, A, step, 5.0, fold=-1) is None
    assert rungs.recorded == {6: {"earlier": ("resnet", 0.2)}}


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_trial_of_all_folds_at_once_stops_for_a_loss_that_is_no_number(rungs: Rungs, loss: float) -> None:
    assert why(rule(rungs), A, 4, loss, fold=-1, is_start=True) == f"the loss is {loss}"


def test_a_trial_of_all_folds_at_once_stops_after_the_deadline(rungs: Rungs) -> None:
    assert why(rule(rungs, PAST), A, 4, 0.1, fold=-1, is_start=True) == "the budget is spent"
