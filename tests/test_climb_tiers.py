"""In which order a climb tries what, told by rehearsals: nothing is trained, gates say what the test says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from spine_ray.climb.affordable import LEAST_STEPS
from spine_ray.climb.known import ANSWER_SECONDS, Known
from spine_ray.climb.probe_pass import SAMPLE_ROWS
from spine_ray.climb.rehearsal import Rehearsal
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.tiers import Climb
from spine_ray.ladder.budget import Budget
from spine_ray.ladder.gates import Verdict
from spine_ray.sampling.simulation import VirtualClock
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.space.fields import Around
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.events import EpochDone
from spine_ray.study.trials import Trial
from tests.support.climbs import climb_known, fine_tune_cost

ROWS, FOLDS, EPOCHS, START = 90, 3, 2, 1000.0
RECIPE: dict[str, Any] = {"epochs": EPOCHS, "lr": Around(3.0)}
LIGHT = TierSpace(
    name="light", backbones=("test_vit2", "test_vit", "test_resnet"), resolutions=(64, 32), recipe=RECIPE, trials=4
)
MID = TierSpace(name="mid", backbones=("test_efficientnet",), resolutions=(32,), recipe=RECIPE, trials=2)
HEAVY = TierSpace(name="heavy", backbones=("test_convnext",), resolutions=(32,), recipe=RECIPE, trials=1)


@dataclass(frozen=True)
class Climbed:
    """What a rehearsed climb left behind."""

    known: Known
    stopped: bool
    """Whether a gate ended it."""
    verdicts_left: int

    @property
    def trials(self) -> list[Trial]:
        """In the order in which they started."""
        return list(self.known.trials.values())

    def configs(self, tier: str | None = None, *, probes: bool) -> list[TrialConfig]:
        return [
            trial.config
            for trial in self.trials
            if trial.config.is_probe == probes and tier in (None, trial.started.tier)
        ]


def climb(
    tiers: Sequence[TierSpace],
    verdicts: Sequence[str],
    *,
    is_pretrained: bool = True,
    budget: float | None = None,
    images_s: float = 30.0,
    frozen_images_s: float | None = None,
    known: Known | None = None,
) -> Climbed:
    """Rehearse the climb of some tiers, of which the fine-tunes were measured, with half of the depth frozen too."""
    space = Space(name="s", tiers=tuple(tiers), file=Path("s.yaml"), folds=FOLDS, reduction=1)
    names = [backbone for tier in tiers for backbone in tier.backbones]
    costs = [fine_tune_cost(backbone, images_s) for backbone in names]
    if frozen_images_s is not None:
        frozen = {"freeze": 0.5, "score_images_s": frozen_images_s, "prefix_images_s": 2 * images_s}
        costs += [fine_tune_cost(backbone, images_s, train_images_s=frozen_images_s, **frozen) for backbone in names]
    known = known or climb_known(space, ROWS, is_pretrained=is_pretrained, costs=costs, began=START, budget_s=budget)
    said = cast("list[Verdict]", list(verdicts))
    source = iter(said)
    rehearsal = Rehearsal(known, VirtualClock(START), 1, source, 0, has_control=False)
    climber, stopped = Climb(known, rehearsal, space, Budget(began=START, seconds=budget)), False
    try:
        climber.probe()
        climber.fine_tune()
    except StoppedByGate:
        stopped = True
    return Climbed(known, stopped, len(list(source)))


def test_every_backbone_is_probed_at_every_resolution_before_anything_is_fine_tuned() -> None:
    done = climb((LIGHT, MID, HEAVY), ("climb", "climb"))
    are_probes = [trial.config.is_probe for trial in done.trials]
    assert are_probes == sorted(are_probes, reverse=True)
    pairs = {(each.backbone, each.resolution) for each in done.configs(probes=True)}
    assert pairs == {
        (backbone, side) for tier in (LIGHT, MID, HEAVY) for backbone in tier.backbones for side in tier.resolutions
    }
    assert [trial.started.tier for trial in done.trials if trial.config.is_probe] == ["light"] * 6 + ["mid", "heavy"]
    assert all(trial.is_completed for trial in done.trials)


def test_probes_begin_with_one_of_each_family_at_the_smallest_resolution_the_cheapest_first() -> None:
    found = climb((LIGHT,), ()).configs(probes=True)
    expected = [(name, side) for side in (32, 64) for name in ("test_resnet", "test_vit", "test_vit2")]
    assert [(each.backbone, each.resolution) for each in found] == expected


class Sampling(Rehearsal):
    """A rehearsal that knows how probes do on a sample of the rows, and remembers which it was asked for."""

    losses: Mapping[str, float] = {}
    asked: list[tuple[list[str], int]]

    def sample_probes(self, configs: Sequence[TrialConfig], count: int) -> Mapping[str, float]:
        self.asked.append(([each.backbone for each in configs], count))
        return {each.trial_id: self.losses[each.backbone] for each in configs if each.backbone in self.losses}


def probe_sampled(rows: int, seconds: float, losses: Mapping[str, float]) -> Sampling:
    """Rehearse the probes of one tier, of 30 images a second each, in so many seconds."""
    tier = replace(LIGHT, resolutions=(32,))
    space = Space(name="s", tiers=(tier,), file=Path("s.yaml"), folds=FOLDS, reduction=1)
    costs = [fine_tune_cost(backbone, 30.0) for backbone in tier.backbones]
    known = climb_known(space, rows, is_pretrained=True, costs=costs, began=START, budget_s=seconds)
    runner = Sampling(known, VirtualClock(START), 1, iter(()), 0, has_control=False)
    runner.asked, runner.losses = [], losses
    Climb(known, runner, space, Budget(began=START, seconds=seconds)).probe()
    return runner


LOSSES = {"test_vit2": 0.2, "test_resnet": 0.3}
"""Of a sample; that of `test_vit` failed."""


def test_probes_that_take_over_a_third_of_the_time_run_in_the_order_of_a_sample() -> None:
    runner = probe_sampled(9000, 3100.0, LOSSES)
    assert runner.asked == [(["test_resnet", "test_vit", "test_vit2"], SAMPLE_ROWS)]
    started = [trial.config.backbone for trial in runner.known.trials.values()]
    assert started and started == ["test_vit2", "test_resnet", "test_vit"][: len(started)]


def test_where_the_sample_itself_takes_long_the_first_in_line_are_sampled() -> None:
    runner = probe_sampled(9000, 1200.0, LOSSES)
    assert runner.asked == [(["test_resnet", "test_vit"], SAMPLE_ROWS)]


@pytest.mark.parametrize(("rows", "seconds"), [(9000, 5000.0), (4000, 500.0)], ids=["time enough", "few rows"])
def test_other_probes_are_not_sampled(rows: int, seconds: float) -> None:
    runner = probe_sampled(rows, seconds, LOSSES)
    assert runner.asked == []
    started = [trial.config.backbone for trial in runner.known.trials.values()]
    assert started and started == ["test_resnet", "test_vit", "test_vit2"][: len(started)]


def test_probes_do_not_count_among_a_tiers_trials_and_are_no_start_recipes() -> None:
    done = climb((LIGHT, MID, HEAVY), ("climb", "climb"))
    for tier in (LIGHT, MID, HEAVY):
        fine_tunes = done.configs(tier.name, probes=False)
        assert len(fine_tunes) == max(tier.trials, len(tier.backbones))
        assert not any(each.freeze == 1.0 for each in fine_tunes)
    for trial in done.trials:
        if trial.config.is_probe:
            assert (trial.started.is_start, trial.started.total_steps, len(trial.epochs)) == (False, 1, 1)
    starts = [trial.config.backbone for trial in done.trials if trial.started.is_start]
    assert sorted(starts) == sorted([*LIGHT.backbones, *MID.backbones, *HEAVY.backbones])


def test_a_space_that_lists_1_has_the_probes_of_one_that_does_not_and_no_other_fine_tunes() -> None:
    plain, listed = (climb((replace(LIGHT, freezes=freezes),), ()) for freezes in ((0.0,), (1.0, 0.0)))
    for probes in (True, False):
        assert listed.configs(probes=probes) == plain.configs(probes=probes)


def test_a_space_of_probes_alone_has_no_fine_tune_and_no_plan_for_one() -> None:
    done = climb((replace(LIGHT, freezes=(1.0,)), replace(MID, freezes=(1.0,))), ("climb",))
    assert len(done.configs(probes=True)) == 7
    assert done.configs(probes=False) == []


@pytest.mark.parametrize("freezes", [(0.0,), (0.0, 0.5)])
def test_random_weights_have_no_probes_unless_they_are_asked_for(freezes: tuple[float, ...]) -> None:
    unasked, asked = (
        climb((replace(LIGHT, freezes=each),), (), is_pretrained=False) for each in (freezes, (*freezes, 1.0))
    )
    assert unasked.configs(probes=True) == []
    assert len(asked.configs(probes=True)) == 6
    assert len(unasked.configs(probes=False)) == len(asked.configs(probes=False)) == LIGHT.trials


def test_the_first_gate_is_asked_of_the_light_probes_and_never_again() -> None:
    stopped = climb((LIGHT, MID, HEAVY), ("stop",))
    assert stopped.stopped
    assert len(stopped.configs("light", probes=True)) == len(stopped.trials) == 6
    done = climb((LIGHT, MID), ("climb", "stop"))
    assert not done.stopped
    assert done.verdicts_left == 1
    assert done.configs("mid", probes=False)


def test_with_random_weights_the_first_gate_is_asked_of_the_fine_tunes() -> None:
    stopped = climb((LIGHT, MID), ("stop",), is_pretrained=False)
    assert stopped.stopped
    assert {trial.started.tier for trial in stopped.trials} == {"light"}
    assert len(stopped.configs(probes=False)) == LIGHT.trials


@pytest.mark.parametrize("is_pretrained", [True, False])
def test_a_gate_that_never_opens_closes_both_passes_of_its_tier_and_all_later_ones(is_pretrained: bool) -> None:
    done = climb((LIGHT, replace(MID, gate="never"), HEAVY), ("stop",), is_pretrained=is_pretrained)
    assert {trial.started.tier for trial in done.trials} == {"light"}
    assert len(done.configs(probes=False)) == LIGHT.trials
    assert not done.stopped, "what was learnt is answered with"
    later = climb((LIGHT, MID, replace(HEAVY, gate="never")), ("climb", "stop"), is_pretrained=is_pretrained)
    assert {trial.started.tier for trial in later.trials} == {"light", "mid"}


def test_plateau_decides_over_the_fine_tunes_of_the_third_tier() -> None:
    done = climb((LIGHT, MID, HEAVY), ("climb", "stop"))
    assert not done.stopped
    assert done.configs("heavy", probes=True) and not done.configs("heavy", probes=False)
    frozen = replace(HEAVY, freezes=(0.0, 0.5, 1.0))
    only = climb((LIGHT, MID, frozen), ("climb", "climb_frozen_only"))
    assert {each.freeze for each in only.configs("heavy", probes=False)} == {0.5}
    again = climb((LIGHT, MID, HEAVY), ("climb", "again", "climb"))
    assert len(again.configs("mid", probes=False)) == 2 * MID.trials


def test_the_same_climb_again_probes_and_trains_nothing() -> None:
    first = climb((LIGHT, MID), ("climb",))
    events = len(first.known.events)
    again = climb((LIGHT, MID), ("climb",), known=first.known)
    assert len(again.known.events) == events


def test_probes_that_would_not_end_in_time_are_left_out_and_others_are_tried() -> None:
    # A pass of 90 rows of the smallest takes 3 s, and 2 s to begin; the largest 12 s at 32 px, 48 s at 64 px.
    done = climb((LIGHT,), (), budget=ANSWER_SECONDS + 45.0)
    tried = done.configs(probes=True)
    assert probe_config("test_resnet", 32) in tried
    assert probe_config("test_vit2", 64) not in tried
    last = done.trials[-1]
    assert last.ended is not None and last.ended.time <= START + 45.0 + 20.0


def test_the_best_backbones_by_their_probes_come_first_in_what_is_suggested() -> None:
    done = climb((LIGHT,), ())
    best: dict[str, float] = {}
    for trial in done.trials:
        if trial.config.is_probe and trial.log_loss is not None:
            best[trial.config.backbone] = min(trial.log_loss, best.get(trial.config.backbone, 9.0))
    known = done.known
    rehearsal = Rehearsal(known, VirtualClock(START), 1, iter(()), 0, has_control=False)
    climber = Climb(known, rehearsal, known.prepared.spaces[0], Budget(began=START, seconds=None))
    found = climber.favoured(known.starts(LIGHT))
    assert list(found) == sorted(best, key=best.__getitem__)
    assert climber.favoured(()) == ()


def test_a_budget_that_holds_no_epoch_of_random_weights_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(ValueError, match="too short for one epoch on each fold") as refused:
        climb((LIGHT,), (), is_pretrained=False, budget=ANSWER_SECONDS + 2.0)
    least = float(str(refused.value).rpartition(" is ")[2].removesuffix("s"))
    found = climb((LIGHT,), (), is_pretrained=False, budget=least)
    assert [trial.config.training.epochs for trial in found.trials if trial.is_completed][:1] == [1]


LONG = replace(LIGHT, resolutions=(32,), recipe={**RECIPE, "epochs": 100}, trials=3)
"""Fine-tunes of 100 epochs of one step each, on each of three folds: about 700 s, with their fit on all rows 1,000."""


def test_a_budget_that_holds_no_whole_fine_tune_shortens_all_of_them_beside_probes() -> None:
    done = climb((LONG,), (), budget=900.0)
    fine_tunes = [trial for trial in done.trials if not trial.config.is_probe]
    (epochs,) = {trial.config.training.epochs for trial in fine_tunes}
    assert LEAST_STEPS <= epochs < 100
    assert any(trial.is_completed for trial in fine_tunes)


def test_what_holds_no_fifty_steps_of_a_fold_begins_no_fine_tune() -> None:
    assert climb((LONG,), (), budget=400.0).configs(probes=False) == []


EITHER = replace(LONG, freezes=(0.0, 0.5))
"""Fine-tunes as before, or with half of the depth frozen."""


def start_shapes(done: Climbed) -> set[tuple[float, int]]:
    """Return freeze depth and epochs of the start recipes that were begun."""
    return {
        (trial.config.freeze, trial.config.training.epochs)
        for trial in done.trials
        if not trial.config.is_probe and trial.started.is_start
    }


def test_more_is_frozen_before_less_is_trained() -> None:
    assert start_shapes(climb((EITHER,), (), budget=700.0, frozen_images_s=600.0)) == {(0.5, 100)}


def test_with_time_enough_start_recipes_have_the_freeze_depth_that_is_listed_first() -> None:
    assert start_shapes(climb((EITHER,), (), budget=9000.0, frozen_images_s=600.0)) == {(0.0, 100)}


def test_freezing_that_saves_little_time_is_not_chosen_over_epochs() -> None:
    ((freeze, epochs),) = start_shapes(climb((EITHER,), (), budget=900.0, frozen_images_s=70.0))
    assert (freeze, LEAST_STEPS <= epochs < 100) == (0.0, True)


@pytest.mark.parametrize(("budget", "frozen_images_s"), [(900.0, 70.0), (560.0, 600.0)], ids=["fewer epochs", "frozen"])
def test_an_interrupted_fine_tune_goes_on_as_it_began_whatever_the_time(budget: float, frozen_images_s: float) -> None:
    first = climb((EITHER,), (), budget=budget, frozen_images_s=frozen_images_s)
    ended = next(trial for trial in first.trials if not trial.config.is_probe and trial.is_completed)
    events = first.known.events
    last = next(place for place, each in enumerate(events) if isinstance(each, EpochDone) and each.step == 5
                and each.trial_id == ended.trial_id)  # fmt: skip
    again = climb((EITHER,), (), budget=5000.0, known=replace(first.known, events=events[: last + 1]))
    by_id = {trial.trial_id: trial for trial in again.trials}
    assert by_id[ended.trial_id].is_completed
    assert start_shapes(again) == {(ended.config.freeze, ended.config.training.epochs)}
