import math
from dataclasses import replace
from typing import Any

import pytest

from spine_ray.sampling.queue import Outcome
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import probe_configs, start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import Status, TrialEnded
from spine_ray.study.trials import Trial
from tests.support.tier_plans import epoch_done, tier_plan, trial_started

EPOCHS, FOLDS = 2, 2
TIER = TierSpace(
    name="light", backbones=("test_resnet", "test_vit", "test_convnext"), resolutions=(32,), recipe={"epochs": EPOCHS},
    trials=6,
)  # fmt: skip
STARTS = start_configs(TIER, "random")
PROBES = probe_configs(TIER, "pretrained")


def plan(**changes: Any) -> TierPlan:
    return tier_plan(TIER, "random", FOLDS, **changes)


def known_trial(config: TrialConfig, *folds: int, status: Status | None = "completed") -> Trial:
    """A trial of earlier: an epoch for each of `folds`, its loss a tenth of its step; a probe's one step is fold -1."""
    epochs = tuple(
        epoch_done(config, step=step, fold=fold, epoch=1, log_loss=step / 10) for step, fold in enumerate(folds, 1)
    )
    end = TrialEnded(
        trial_id=config.trial_id, status=status or "failed", reason="", step=1, log_loss=0.1, accuracy=0.5, seconds=1.0,
        time=1.0,
    )  # fmt: skip
    return Trial(started=trial_started(TIER, config, FOLDS), epochs=epochs, ended=end if status else None)


def test_the_rungs_begin_with_what_trials_reached_fold_by_fold_interrupted_ones_too() -> None:
    one, other, third = STARTS
    whole, stopped, interrupted = (
        known_trial(one, 0, 0, 1, 1), known_trial(other, 0, status="stopped"), known_trial(third, 0, status=None),
    )  # fmt: skip
    rungs = plan(known=(whole, stopped, interrupted)).rungs()
    assert rungs.milestones == (1, 2)
    assert rungs.recorded == {
        1: {config.trial_id: (config.backbone, 0.1) for config in (one, other, third)},
        2: {one.trial_id: (one.backbone, 0.2)},
    }


def test_the_rungs_know_nothing_of_probes_nor_of_trials_that_diverged() -> None:
    probe, diverged = known_trial(PROBES[0], -1), known_trial(STARTS[1], 0, status="failed")
    lost = replace(diverged, epochs=tuple(replace(epoch, log_loss=math.nan) for epoch in diverged.epochs))
    assert plan(known=(probe, lost)).rungs().recorded == {}


def test_probes_run_in_their_order_and_nothing_is_suggested_in_the_place_of_a_refused_one() -> None:
    one, other, third = PROBES
    probes = plan(
        starts=PROBES,
        known=(known_trial(other, -1),),
        most_trials=len(PROBES),
        control=one,
        reduction=1,
        admit=lambda config, at: "too late" if config == third else None,
    )
    assert probes.is_of_probes and not plan().is_of_probes
    queue = probes.queue(lambda: 0.0)
    found = [queue.next_trial() for _ in range(3)]
    assert [(each.config, each.is_control) if each else None for each in found] == [(one, False), (one, True), None]
    assert [refusal.config for refusal in queue.refusals] == [third]
    assert probes.rungs().milestones == (1,)


def test_probes_and_fine_tunes_that_are_brought_up_to_date_at_once_have_the_rungs_of_the_fine_tunes() -> None:
    mixed = plan(starts=(PROBES[0], STARTS[0]), reduction=1)
    assert not mixed.is_of_probes
    assert mixed.rungs().epochs == EPOCHS


def test_interrupted_trials_come_first_then_the_start_recipes_that_are_not_known() -> None:
    one, other, third = STARTS
    queue = plan(known=(known_trial(one, 0, 0, 1, 1), known_trial(third, 0, status=None))).queue(lambda: 0.0)
    assert queue.suggester.waiting == [third, other]
    assert queue.suggester.outcomes == {one.trial_id: Outcome(one, "completed", 4, 0.4)}


@pytest.mark.parametrize("now", [1.0, 7.0])
def test_who_is_admitted_depends_on_the_clock_that_the_tier_runs_by(now: float) -> None:
    queue = plan(admit=lambda config, at: "too late" if at > 5.0 else None).queue(lambda: now)
    assert (queue.next_trial() is None) == (now > 5.0)
