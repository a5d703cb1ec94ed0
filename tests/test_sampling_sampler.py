import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from spine_ray.sampling.queue import Outcome, QueuedTrial, Refusal, SearchDomain, Suggester, TransferHint, TrialQueue
from spine_ray.sampling.sampler import _record, _remembered, _transferred, random_suggest, suggest
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import build_config, start_configs
from spine_ray.space.fields import Around, Choice, Field, LogUniform, Uniform
from spine_ray.space.schema import TierSpace

BACKBONES = ("test_resnet", "test_efficientnet", "test_vit")


def domain(seed: int = 0, recipe: dict[str, Field] | None = None, **changes: Any) -> SearchDomain:
    searched: dict[str, Field] = {"lr": Around(3.0), "drop_path": Uniform(0.0, 0.2, 0.0)} if recipe is None else recipe
    values = {"backbones": BACKBONES, "resolutions": (32, 64), "freezes": (0.0, 0.5, 0.75, 1.0), "trials": 8}
    tier = TierSpace(name="light", recipe={"epochs": 4, **searched}, **{**values, **changes})
    pairs = {(backbone, resolution) for backbone in tier.backbones for resolution in tier.resolutions}
    return SearchDomain(tier=tier, weights="pretrained", buildable=frozenset(pairs - {("test_vit", 64)}), seed=seed)


def config(where: SearchDomain, backbone: str = "test_resnet", freeze: float = 0.0, **values: Any) -> TrialConfig:
    return build_config(where.tier, where.weights, backbone, 32, freeze, values)


def some_outcomes(where: SearchDomain) -> list[Outcome]:
    return [
        Outcome(config(where), "completed", 8, 0.5),
        Outcome(config(where, "test_vit", 0.75, lr=2.0), "completed", 8, 0.9),
        Outcome(config(where, "test_efficientnet", 0.5, lr=0.5), "stopped", 2, 1.1),
        Outcome(config(where, "test_resnet", 0.5, lr=1.5), "failed"),
        Outcome(config(where, "test_resnet", 0.75), "stopped", 1, math.nan),
        Outcome(config(where, "test_vit", drop_path=0.1), "running"),
    ]


def asked(where: SearchDomain, outcomes: Sequence[Outcome], number: int, times: int = 1) -> list[TrialConfig]:
    return list(itertools.islice(suggest(where, outcomes, number), times))


def refuse_vit(each: TrialConfig) -> str | None:
    return "no time for test_vit" if each.backbone == "test_vit" else None


def suggester(where: SearchDomain, most_trials: int = 8, **changes: Any) -> Suggester:
    values: dict[str, Any] = {
        "waiting": [],
        "outcomes": {},
        "admit": lambda _: None,
        "effort": lambda _: 1.0,
        "suggest": suggest,
    }
    return Suggester(domain=where, most_trials=most_trials, **{**values, **changes})


def drain(source: Suggester) -> list[TrialConfig]:
    found = []
    while (each := source.next_config()) is not None:
        found.append(each)
        source.tell(Outcome(each, "completed", 8, 1.0 / len(found)))
    return found


def test_a_suggestion_is_a_function_of_seed_number_and_outcomes() -> None:
    where = domain()
    for outcomes in ([], some_outcomes(where), some_outcomes(where) * 2):
        first = [asked(where, outcomes, number, 3) for number in range(3)]
        assert first == [asked(domain(), list(outcomes), number, 3) for number in range(3)]
        assert len({each.trial_id for found in first for each in found}) > 1


def test_another_seed_suggests_otherwise() -> None:
    found = [[asked(domain(seed), some_outcomes(domain()), number) for number in range(4)] for seed in range(3)]
    assert found[0] != found[1] != found[2] != found[0]


def test_a_suggestion_depends_on_what_became_of_the_trials() -> None:
    where = domain()
    outcomes = [Outcome(config(where, lr=1.0 + 0.1 * number), "completed", 8, 0.1 * number) for number in range(12)]
    turned = [replace(outcome, log_loss=2.0 - (outcome.log_loss or 0.0)) for outcome in outcomes]
    assert [asked(where, outcomes, n) for n in range(5)] != [asked(where, turned, n) for n in range(5)]


def test_suggestions_go_where_losses_are_low() -> None:
    where = domain()
    outcomes = []
    for number in range(24):
        backbone = BACKBONES[number % 3]
        loss = (0.2 if backbone == "test_efficientnet" else 2.0) + 0.01 * number
        outcomes.append(Outcome(config(where, backbone, lr=1.0 + 0.05 * number), "completed", 8, loss))
    found = Counter(asked(where, outcomes, number)[0].backbone for number in range(20))
    assert found["test_efficientnet"] > 14  # against a third by chance


def test_only_what_can_be_built_is_suggested() -> None:
    where = domain()
    found = {
        (each.backbone, each.resolution) for number in range(60) for each in asked(where, some_outcomes(where), number)
    }
    assert found == where.buildable


def test_the_first_suggestions_lean_to_the_backbones_whose_probes_are_best_and_leave_none_out() -> None:
    blind, led = domain(), replace(domain(), favoured=("test_efficientnet", "test_vit"))
    found = Counter(
        asked(replace(led, seed=seed), [], number)[0].backbone for seed in range(30) for number in range(3, 6)
    )
    # Each half as likely as the one before it: 4/7, 2/7, 1/7 of 90.
    assert found["test_efficientnet"] > 42 and found["test_efficientnet"] > found["test_vit"] > found["test_resnet"] > 3
    later = len(BACKBONES) + 5
    assert asked(led, some_outcomes(led), later, 3) == asked(blind, some_outcomes(blind), later, 3)


def test_a_probe_is_never_suggested() -> None:
    where = domain()
    assert 1.0 in where.tier.freezes
    blind = [next(random_suggest(where, [], number)) for number in range(60)]
    told = [each for number in range(20) for each in asked(where, some_outcomes(where), number, 3)]
    assert {each.freeze for each in (*blind, *told)} == {0.0, 0.5, 0.75}
    assert not any(each.is_probe for each in (*blind, *told))


def test_suggestions_stay_within_the_space_and_lr_has_three_digits() -> None:
    where = domain(
        recipe={"lr": LogUniform(1e-4, 1e-2, 1e-3), "label_smoothing": Choice((0.0, 0.1)), "symmetry": "all"}
    )
    for number in range(30):
        recipe = asked(where, some_outcomes(domain()), number)[0].recipe
        assert 1e-4 <= recipe.lr <= 1e-2
        assert recipe.lr == float(f"{recipe.lr:.3g}")
        assert recipe.label_smoothing in (0.0, 0.1)
        assert (recipe.symmetry, recipe.epochs) == ("all", 4)


def test_a_learning_rate_that_is_not_searched_keeps_all_its_digits() -> None:
    where = domain(recipe={"lr": 0.00123456, "drop_path": Uniform(0.0, 0.2, 0.0)})
    assert asked(where, [], 0)[0].recipe.lr == 0.00123456


def test_a_learning_rate_that_rounding_has_led_over_the_bound_is_still_told() -> None:
    # Every rate in this range rounds to 1.23e-4, which lies below it.
    where = domain(recipe={"lr": LogUniform(1.2345e-4, 1.2349e-4, 1.2347e-4), "drop_path": Uniform(0.0, 0.2, 0.0)})
    (first,) = asked(where, [], 0)
    assert first.recipe.lr == 1.23e-4
    record = _record(where, Outcome(first, "completed", 8, 0.5))
    assert record is not None
    assert record.params["lr"] == 1.2345e-4
    assert asked(where, [Outcome(first, "completed", 8, 0.5)], 1)[0].recipe.lr == 1.23e-4


def test_trials_of_another_space_with_values_beyond_this_one_are_left_out() -> None:
    narrow = domain(recipe={"lr": LogUniform(1e-4, 1e-3, 1e-3), "label_smoothing": Choice((0.0, 0.1))})
    start = config(narrow)
    fast = replace(start, recipe=replace(start.recipe, lr=5e-2))
    smooth = replace(start, recipe=replace(start.recipe, label_smoothing=0.3))
    foreign = [Outcome(each, "completed", 8, 0.1) for each in (fast, smooth)]
    for number in range(3):
        assert asked(narrow, foreign, number) == asked(narrow, [], number)


def test_the_sampler_is_told_the_truth_about_every_trial() -> None:
    where = domain()
    study = optuna.create_study()
    study.add_trials([record for outcome in some_outcomes(where) if (record := _record(where, outcome))])
    states = [trial.state for trial in study.trials]
    assert states == [
        *(TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED),
        *(TrialState.FAIL, TrialState.FAIL, TrialState.RUNNING),
    ]
    assert [trial.value for trial in study.trials if trial.state == TrialState.COMPLETE] == [0.5, 0.9]
    assert study.trials[2].intermediate_values == {2: 1.1}
    assert study.trials[0].params == {
        "backbone": "test_resnet", "resolution": 32, "freeze": 0.0, "lr": 1.0, "drop_path": 0.0,
    }  # fmt: skip
    # A backbone that cannot be built at every resolution has a choice of its own.
    assert study.trials[1].params == {
        "backbone": "test_vit", "resolution of test_vit": 32, "freeze": 0.75, "lr": 2.0, "drop_path": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize("state", ["completed", "stopped"])
@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_a_trial_without_a_finite_loss_has_failed_for_the_sampler(state: str, loss: float | None) -> None:
    where = domain()
    record = _record(where, Outcome(config(where), state, 3, loss))
    assert record is not None
    assert record.state == TrialState.FAIL


def test_the_sampler_remembers_what_has_ended_however_many_trials_run() -> None:
    where = domain()
    good = [Outcome(config(where, "test_efficientnet", lr=1 + 0.01 * n), "completed", 8, 0.1) for n in range(30)]
    bad = [Outcome(config(where, "test_resnet", lr=1 + 0.01 * n), "completed", 8, 2.0) for n in range(30)]
    crowd = [Outcome(each, "running") for each in itertools.islice(random_suggest(where, [], 0), 1000)]
    remembered = _remembered(where, [*good, *bad, *crowd])
    assert remembered == [*good, *bad, *crowd[-50:]]
    found = Counter(asked(where, [*good, *bad, *crowd], 1060 + number)[0].backbone for number in range(12))
    assert found["test_efficientnet"] > 8  # against a third by chance


def test_the_sampler_forgets_all_but_the_newest_that_have_ended() -> None:
    where = domain()
    ended = [Outcome(each, "completed", 8, 0.5) for each in itertools.islice(random_suggest(where, [], 0), 500)]
    assert _remembered(where, ended) == ended[-200:]
    assert asked(where, ended, 500, 3) == asked(where, ended[-200:], 500, 3)


def test_what_waits_comes_first_and_in_order() -> None:
    where = domain()
    interrupted, starts = config(where, "test_vit", lr=2.0), start_configs(where.tier, where.weights)
    source = suggester(where, waiting=[interrupted, *starts], most_trials=6)
    found = drain(source)
    assert found[:4] == [interrupted, *starts]
    assert len(found) == 6
    assert list(source.outcomes) == [each.trial_id for each in found]


def test_no_configuration_is_tried_twice() -> None:
    where = domain(recipe={}, resolutions=(32,))  # nine configurations in all
    starts = start_configs(where.tier, where.weights)
    found = drain(suggester(where, waiting=list(starts), most_trials=50))
    ids = [each.trial_id for each in found]
    assert len(set(ids)) == len(ids)
    assert len(ids) == 9  # and none is left out


def test_trials_known_from_before_are_not_suggested_again_and_count() -> None:
    where = domain(recipe={}, resolutions=(32,))
    first = drain(suggester(where, most_trials=4))
    known = {each.trial_id: Outcome(each, "completed", 8, 0.5) for each in first}
    second = drain(suggester(where, outcomes=dict(known), most_trials=6))
    assert len(second) == 2
    assert not {each.trial_id for each in second} & set(known)


def test_a_search_that_died_goes_on_as_if_it_had_not() -> None:
    where = domain()
    starts = list(start_configs(where.tier, where.weights))
    whole = suggester(where, waiting=list(starts))
    uninterrupted = drain(whole)
    assert len(uninterrupted) == 8
    for died in (1, 3, 6):
        known = {each.trial_id: whole.outcomes[each.trial_id] for each in uninterrupted[:died]}
        left = [each for each in starts if each.trial_id not in known]
        resumed = suggester(where, waiting=left, outcomes=known)
        found = []
        for number in range(died, 8):
            each = resumed.next_config()
            assert each is not None
            found.append(each)
            resumed.tell(Outcome(each, "completed", 8, 1.0 / (number + 1)))
        assert found == uninterrupted[died:]


def test_a_tier_is_over_when_it_has_had_its_trials() -> None:
    where = domain()
    source = suggester(where, most_trials=3)
    assert len(drain(source)) == 3
    assert source.next_config() is None
    assert suggester(where, most_trials=0).next_config() is None


def test_starts_are_tried_even_beyond_the_most_trials() -> None:
    where = domain()
    starts = list(start_configs(where.tier, where.weights))
    assert drain(suggester(where, waiting=list(starts), most_trials=1)) == starts


def test_refused_starts_are_kept_with_their_reasons_and_do_not_count() -> None:
    where = domain()
    starts = start_configs(where.tier, where.weights)
    source = suggester(where, waiting=list(starts), most_trials=4, admit=refuse_vit)
    found = drain(source)
    assert found[:2] == list(starts[:2])
    assert len(found) == 4
    assert all(each.backbone != "test_vit" for each in found)
    assert source.refused[starts[2].trial_id] == Refusal(starts[2], "no time for test_vit")
    assert not set(source.refused) & set(source.outcomes)


def test_when_everything_is_refused_the_tier_ends() -> None:
    where = domain()
    starts = start_configs(where.tier, where.weights)
    source = suggester(where, waiting=list(starts), admit=lambda _: "too late")
    assert source.next_config() is None
    assert {config.trial_id for config in starts} <= set(source.refused)


def test_what_is_handed_out_is_running_until_told_otherwise() -> None:
    source = suggester(domain())
    first = source.next_config()
    assert first is not None
    assert source.outcomes[first.trial_id].state == "running"
    source.tell(Outcome(first, "stopped", 2, 1.0))
    assert source.outcomes[first.trial_id] == Outcome(first, "stopped", 2, 1.0)


def handed(queue: TrialQueue, times: int) -> list[QueuedTrial | None]:
    return [queue.next_trial() for _ in range(times)]


def test_the_queue_hands_out_configurations_and_says_when_the_tier_is_over() -> None:
    source = suggester(domain(), most_trials=2)
    first, second, last = handed(TrialQueue(source, None), 3)
    assert first and second
    assert [first.config.trial_id, second.config.trial_id] == list(source.outcomes)
    assert last is None


def test_the_control_runs_third_and_is_no_outcome() -> None:
    where = domain()
    source = suggester(where, most_trials=4)
    found = handed(TrialQueue(source, config(where)), 6)
    assert [each and each.is_control for each in found] == [False, False, True, False, False, None]
    assert found[2] == QueuedTrial(config(where), is_control=True)
    assert len(source.outcomes) == 4


@pytest.mark.parametrize("most_trials", [0, 1, 2])
def test_the_control_runs_last_where_there_are_fewer_trials(most_trials: int) -> None:
    where = domain()
    found = handed(TrialQueue(suggester(where, most_trials=most_trials), config(where)), most_trials + 2)
    assert [each and each.is_control for each in found] == [False] * most_trials + [True, None]


@pytest.mark.parametrize("most_trials", [1, 4])
def test_the_control_does_not_run_where_it_is_not_admitted(most_trials: int) -> None:
    where = domain(backbones=("test_vit", "test_resnet"))
    source = suggester(where, most_trials=most_trials, admit=refuse_vit)
    found = handed(TrialQueue(source, config(where, "test_vit")), most_trials + 1)
    assert [each and each.is_control for each in found] == [False] * most_trials + [None]


def test_blind_draws_reach_every_corner_of_the_domain_and_nothing_beyond() -> None:
    where = domain()
    found = [next(random_suggest(where, [], number)) for number in range(300)]
    assert {(each.backbone, each.resolution, each.freeze) for each in found} == {
        (backbone, resolution, freeze) for backbone, resolution in where.buildable for freeze in (0.0, 0.5, 0.75)
    }
    starts = {freeze: config(where, freeze=freeze).training.lr for freeze in (0.0, 0.5, 0.75)}
    ratios = [each.recipe.lr / starts[each.freeze] for each in found]
    assert 1 / 3.001 < min(ratios) < 0.4 < 2.5 < max(ratios) < 3.001
    assert found == [next(random_suggest(where, some_outcomes(where), number)) for number in range(300)]
    assert len({each.trial_id for each in found}) == 300


def test_of_several_suggestions_cheap_ones_are_taken_more_readily() -> None:
    where = domain(recipe={}, backbones=("test_resnet", "test_efficientnet"), resolutions=(32,), freezes=(0.0, 0.9))

    def taken(effort: float) -> int:
        counts = 0
        for seed in range(60):
            source = suggester(
                replace(where, seed=seed), suggest=random_suggest, effort=lambda each: effort if each.freeze else 1.0
            )
            first = source.next_config()
            counts += bool(first and first.freeze == 0.9)
        return counts

    # All four points are found in ten draws nearly always: half of them frozen, so as readily at an equal effort,
    # and four times as readily at a sixteenth.
    assert 20 <= taken(1.0) <= 40
    assert 40 <= taken(1 / 16) <= 57


def test_what_helped_at_an_earlier_tier_is_a_hint_as_far_from_the_start_as_it_was_there() -> None:
    below = domain(backbones=("test_byobnet",))
    better, worse = (config(below, "test_byobnet", freeze, lr=2.0) for freeze in (0.5, 0.0))
    elsewhere = build_config(below.tier, below.weights, "test_byobnet", 64, 0.0, {})
    hints = (TransferHint(better, -0.3), TransferHint(worse, 0.2), TransferHint(elsewhere, -0.1))
    where = replace(domain(resolutions=(32,)), hints=hints)
    starts = [
        Outcome(config(where, name), "completed", 8, loss) for name, loss in (("test_resnet", 0.5), ("test_vit", 0.9))
    ]
    assert _transferred(where, starts[:1]) == [
        Outcome(config(where, "test_resnet", 0.5, lr=2.0), "completed", 0, pytest.approx(0.2)),
        Outcome(config(where, "test_resnet", 0.0, lr=2.0), "completed", 0, pytest.approx(0.7)),
    ]
    in_turn = _transferred(where, starts)
    assert [(each.config.backbone, each.log_loss) for each in in_turn] == [
        ("test_resnet", pytest.approx(0.2)),
        ("test_vit", pytest.approx(1.1)),
    ]
    assert _transferred(where, []) == []


def test_a_hint_makes_the_sampler_look_there_first() -> None:
    where = domain(recipe={}, backbones=("test_resnet",), resolutions=(32,), freezes=(0.0, 0.25, 0.5, 0.75, 0.9))
    start = Outcome(config(where), "completed", 8, 1.0)
    hints = [
        TransferHint(config(where, freeze=freeze), -0.5 if freeze == 0.75 else 0.5) for freeze in where.tier.freezes
    ]
    hinted_domain = replace(where, hints=tuple(hints * 3))
    hinted, blind = (
        [each.freeze for each in asked(each_domain, [start], 1, 10)] for each_domain in (hinted_domain, where)
    )
    assert hinted.count(0.75) > blind.count(0.75)
