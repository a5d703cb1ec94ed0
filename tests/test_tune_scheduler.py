import time
from dataclasses import replace

import pytest
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler

from spine_ray.ladder.rungs import Rungs
from spine_ray.sampling.stopping import StoppingRule
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.tune.scheduler import ExactAsha
from spine_ray.workers.trial_steps import EpochReport, StepReport, TrialRequest
from tests.support.tier_plans import epoch_done, trial_started

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
PAST, FUTURE = time.time() - 1.0, time.time() + 3600.0
TIER = TierSpace(name="light", backbones=("test_resnet", "test_vit"), resolutions=(32,), trials=3)
A, B = start_configs(TIER, "random")


def ray_trial(config: TrialConfig, *, is_control: bool = False) -> RayTrial:
    started = replace(trial_started(TIER, config, folds=2), family="resnet")
    request = TrialRequest(started=started, is_control=is_control, report_from=1, hang_timeout=60.0)
    return RayTrial("trainable", config={"request": request}, stub=True)


def answer(scheduler: ExactAsha, trial: RayTrial, step: int, loss: float, *, is_last: bool = False) -> str:
    config = trial.config["request"].started.config
    epoch = epoch_done(config, step=step, fold=0, epoch=step, log_loss=loss)
    report = StepReport(done=EpochReport(epoch, is_last, is_known=False))
    return scheduler.on_trial_result(None, trial, {"report": report})


@pytest.fixture
def rungs() -> Rungs:
    return Rungs(epochs=6, reduction=3)


def asha(rungs: Rungs, deadline: float | None) -> ExactAsha:
    return ExactAsha(StoppingRule(rungs, deadline, time.time))


@pytest.mark.parametrize("deadline", [None, FUTURE], ids=["no deadline", "a later deadline"])
def test_losers_are_stopped_with_the_reason_of_the_rule(rungs: Rungs, deadline: float | None) -> None:
    scheduler = asha(rungs, deadline)
    assert answer(scheduler, ray_trial(A), 2, 0.9) == CONTINUE
    assert answer(scheduler, ray_trial(B), 2, 0.95) == STOP
    assert scheduler.reasons == {B.trial_id: "log-loss 0.9500 at epoch 2 is above the cut of 0.9000"}


def test_the_last_result_of_a_trial_is_left_to_ray(rungs: Rungs) -> None:
    scheduler = asha(rungs, PAST)
    assert answer(scheduler, ray_trial(A), 12, 0.9, is_last=True) == CONTINUE
    assert scheduler.on_trial_result(None, ray_trial(A), {"report": StepReport(failure="it broke")}) == CONTINUE
    assert scheduler.reasons == {}


def test_the_control_is_not_judged_and_not_recorded(rungs: Rungs) -> None:
    rungs.recorded[2] = {"earlier": ("resnet", 0.2)}
    scheduler = asha(rungs, None)
    assert answer(scheduler, ray_trial(A, is_control=True), 2, 5.0) == CONTINUE
    assert rungs.recorded == {2: {"earlier": ("resnet", 0.2)}}


def test_the_deadline_holds_for_the_control_too_without_a_word_about_its_namesake(rungs: Rungs) -> None:
    scheduler = asha(rungs, PAST)
    assert answer(scheduler, ray_trial(A, is_control=True), 2, 5.0) == STOP
    assert scheduler.reasons == {}
