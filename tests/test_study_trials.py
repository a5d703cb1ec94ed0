from typing import Any

import pytest

from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialResumed, TrialStarted
from spine_ray.study.trials import Trial, trials_from_events

CONFIG = TrialConfig(backbone="resnet18", resolution=64, freeze=0.0, recipe=start_recipe("random"))


def started(trial_id: str, time: float = 0.0) -> TrialStarted:
    return TrialStarted(
        trial_id=trial_id, tier="light", config=CONFIG, family="resnet", is_start=True, total_steps=4, params=1,
        macs=1, weights_source="random", licence="unknown", data_version="rows", time=time,
    )  # fmt: skip


def epoch(trial_id: str, step: int, **changes: Any) -> EpochDone:
    values = {
        "fold": 0, "epoch": step, "train_loss": 1.0, "log_loss": 1.0 / step, "accuracy": 0.1 * step, "seconds": 2.0,
        "train_images": 200, "train_images_s": 10.0, "score_images_s": 30.0, "peak_mb": 1.0,
        "views": 10, "micro_batch": 32, "note": "",
    }  # fmt: skip
    return EpochDone(trial_id=trial_id, step=step, **{**values, **changes})


def ended(trial_id: str, status: Status, reason: str = "") -> TrialEnded:
    return TrialEnded(
        trial_id=trial_id, status=status, reason=reason, step=2, log_loss=0.5, accuracy=0.2, seconds=4.0, time=1.0
    )


def one(*events: Event) -> Trial:
    (trial,) = trials_from_events(events).values()
    return trial


def test_a_trial_gathers_its_epochs_and_its_end() -> None:
    trial = one(started("a"), epoch("a", 1), epoch("a", 2), ended("a", "completed"))
    assert [each.step for each in trial.epochs] == [1, 2]
    assert (trial.trial_id, trial.config, trial.status, trial.is_completed) == ("a", CONFIG, "completed", True)
    assert (trial.seconds, trial.log_loss, trial.accuracy) == (4.0, 0.5, 0.2)


def test_what_was_not_as_it_should_have_been_is_what_the_last_epoch_says() -> None:
    noted = epoch("a", 2, views=4, micro_batch=8, note="out of memory")
    trial = one(started("a"), epoch("a", 1), noted)
    assert (trial.views, trial.micro_batch, trial.note) == (4, 8, "out of memory")


def test_a_trial_that_has_only_begun_says_nothing_yet() -> None:
    trial = one(started("a"))
    assert (trial.status, trial.is_completed, trial.seconds) == (None, False, 0)
    assert (trial.log_loss, trial.accuracy) == (None, None)
    assert (trial.views, trial.micro_batch, trial.note) == (None, None, "")


@pytest.mark.parametrize("status", ["stopped", "failed"])
def test_only_a_completed_trial_counts_as_completed(status: Status) -> None:
    trial = one(started("a"), epoch("a", 1), ended("a", status, "why"))
    assert trial.status == status
    assert not trial.is_completed
    assert trial.ended is not None
    assert trial.ended.reason == "why"


def test_trials_stand_in_the_order_of_their_first_starts() -> None:
    events = [
        started("b"),
        started("a"),
        epoch("a", 1),
        ended("a", "stopped"),
        epoch("b", 1),
        started("b"),
        started("c"),
    ]
    assert list(trials_from_events(events)) == ["b", "a", "c"]


def test_epochs_of_trials_that_run_side_by_side_do_not_mix() -> None:
    trials = trials_from_events([started("a"), started("b"), epoch("b", 1, log_loss=9.0), epoch("a", 1), epoch("b", 2)])
    assert [each.log_loss for each in trials["a"].epochs] == [1.0]
    assert [each.log_loss for each in trials["b"].epochs] == [9.0, 0.5]


def test_an_interrupted_trial_that_starts_over_forgets_what_it_said_before() -> None:
    before = [
        started("a", time=1.0),
        epoch("a", 1, log_loss=7.0),
        epoch("a", 2, log_loss=7.0),
        epoch("a", 3, log_loss=7.0),
    ]
    trial = one(*before, started("a", time=2.0), epoch("a", 1), epoch("a", 2))
    assert [(each.step, each.log_loss) for each in trial.epochs] == [(1, 1.0), (2, 0.5)]
    assert trial.started.time == 2.0


def test_a_trial_that_goes_on_from_its_last_epoch_keeps_what_came_before() -> None:
    trial = one(started("a"), epoch("a", 1), epoch("a", 2, log_loss=7.0), started("a"), epoch("a", 2), epoch("a", 3))
    assert [(each.step, each.log_loss) for each in trial.epochs] == [(1, 1.0), (2, 0.5), (3, 1.0 / 3)]


@pytest.mark.parametrize(("step", "kept"), [(0, []), (1, [1]), (2, [1, 2]), (5, [1, 2])])
def test_a_trial_that_goes_on_from_its_checkpoint_forgets_what_that_does_not_hold(step: int, kept: list[int]) -> None:
    resumed = TrialResumed(trial_id="a", step=step, reason="the worker's process died", time=3.0)
    trial = one(started("a"), epoch("a", 1), epoch("a", 2), resumed)
    assert [each.step for each in trial.epochs] == kept
    assert trial.resumed == (resumed,)
    assert one(started("a"), epoch("a", 1), resumed, started("a")).resumed == (resumed,)


def test_a_trial_that_starts_again_is_not_over() -> None:
    trial = one(started("a"), epoch("a", 1), ended("a", "failed", "killed"), started("a"))
    assert trial.status is None


@pytest.mark.parametrize("event", [epoch("a", 1), ended("a", "completed")])
def test_an_event_before_the_start_of_its_trial_is_refused(event: Event) -> None:
    with pytest.raises(ValueError, match="trial a before its start"):
        trials_from_events([started("b"), event])
