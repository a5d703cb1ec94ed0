import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from spine_ray.sampling.queue import Refusal
from spine_ray.sampling.simulation import VirtualClock, simulate_tier
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import probe_configs, start_configs
from spine_ray.space.fields import Around
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import EpochDone, Event, TrialEnded
from spine_ray.study.trials import trials_from_events
from tests.support.tier_plans import epoch_done, tier_plan

EPOCHS, FOLDS = 3, 2
TIER = TierSpace(
    name="light",
    backbones=("test_resnet", "test_vit"),
    resolutions=(32,),
    recipe={"epochs": EPOCHS, "lr": Around(3.0)},
    trials=8,
)
STARTS = start_configs(TIER, "pretrained")
SECONDS = {"test_resnet": 2.0, "test_vit": 5.0}


def epochs_of(config: TrialConfig, losses: Sequence[float] | None = None) -> list[EpochDone]:
    return [
        epoch_done(
            config,
            step=step,
            fold=(step - 1) // EPOCHS,
            epoch=(step - 1) % EPOCHS + 1,
            log_loss=losses[step - 1] if losses else config.recipe.lr,
            seconds=SECONDS[config.backbone],
        )
        for step in range(1, EPOCHS * FOLDS + 1)
    ]


def simulate(
    workers: int, script: Callable[[TrialConfig], list[EpochDone]] = epochs_of, **changes: Any
) -> tuple[list[Event], float, tuple[Refusal, ...]]:
    events: list[Event] = []
    clock = VirtualClock(100.0)
    plan = tier_plan(TIER, "pretrained", FOLDS, **{"reduction": 1, **changes})
    refused = simulate_tier(plan, workers, clock, script, events.append)
    return events, clock.now - 100.0, refused


def test_one_worker_takes_the_sum_of_all_epochs_and_every_trial_is_completed() -> None:
    events, seconds, _ = simulate(1)
    trials = trials_from_events(events).values()
    assert len(trials) == TIER.trials
    assert all(trial.is_completed and len(trial.epochs) == EPOCHS * FOLDS for trial in trials)
    assert seconds == pytest.approx(sum(trial.seconds for trial in trials))


def test_two_workers_take_what_list_scheduling_takes() -> None:
    events, seconds, _ = simulate(2)
    free = [0.0, 0.0]
    for trial in trials_from_events(events).values():  # in the order in which they were handed out
        free.sort()
        assert trial.started.time == pytest.approx(100.0 + free[0])
        free[0] += trial.seconds
    assert seconds == pytest.approx(max(free))
    ends = [event.time for event in events if isinstance(event, TrialEnded)]
    assert ends == sorted(ends)


def test_losers_are_stopped_at_the_two_rungs_and_start_recipes_not_before_the_end_of_fold_0() -> None:
    later = itertools.count(1)

    def script(config: TrialConfig) -> list[EpochDone]:
        return epochs_of(config, [9.0 if config in STARTS else float(next(later))] * EPOCHS * FOLDS)

    events, _, _ = simulate(1, script, reduction=3)
    trials = trials_from_events(events)
    stopped = [trial for trial in trials.values() if trial.status == "stopped"]
    assert stopped
    milestones = {1, EPOCHS}
    assert {len(trial.epochs) for trial in stopped} <= milestones
    assert all(len(trials[start.trial_id].epochs) >= EPOCHS for start in STARTS)
    assert all("above the cut" in trial.ended.reason for trial in stopped if trial.ended)


def test_after_the_deadline_trials_end_with_their_epoch_and_none_begins_that_is_not_admitted() -> None:
    def admit(config: TrialConfig, now: float) -> str | None:
        return "too late" if now > 103.0 else None

    events, seconds, refused = simulate(1, deadline=105.0, admit=admit)
    (trial,) = trials_from_events(events).values()
    assert trial.status == "stopped"
    assert trial.ended is not None
    assert trial.ended.reason == "the budget is spent"
    assert seconds == pytest.approx(6.0)  # three epochs of 2 s: the first end after 5 s
    assert refused[0] == Refusal(STARTS[1], "too late")


def test_the_control_takes_a_folds_time_and_leaves_no_event() -> None:
    alone, with_control = simulate(1), simulate(1, control=STARTS[0])
    assert len(alone[0]) == len(with_control[0])
    assert with_control[1] - alone[1] == pytest.approx(EPOCHS * SECONDS["test_resnet"])


def test_probes_are_one_step_each_and_so_is_their_control() -> None:
    probes = probe_configs(TIER, "pretrained")

    def script(config: TrialConfig) -> list[EpochDone]:
        seconds = SECONDS[config.backbone]
        return [epoch_done(config, step=1, fold=-1, epoch=1, log_loss=0.5, seconds=seconds)]

    changes = {"starts": probes, "most_trials": len(probes)}
    events, seconds, _ = simulate(1, script, **changes)
    trials = trials_from_events(events)
    assert set(trials) == {probe.trial_id for probe in probes}
    assert all(trial.is_completed and len(trial.epochs) == 1 for trial in trials.values())
    assert seconds == pytest.approx(7.0)
    with_control = simulate(1, script, control=probes[0], **changes)
    assert len(with_control[0]) == len(events)
    assert with_control[1] == pytest.approx(9.0)


def test_a_trial_whose_loss_is_no_number_is_stopped_at_once() -> None:
    def script(config: TrialConfig) -> list[EpochDone]:
        return epochs_of(config, [float("nan")] * EPOCHS * FOLDS)

    events, _, _ = simulate(2, script)
    assert {len(trial.epochs) for trial in trials_from_events(events).values()} == {1}
