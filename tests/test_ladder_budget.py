import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from spine_ray.ladder.budget import (
    TRAINING_PASSES,
    Admission,
    Budget,
    EndsInTime,
    FoldSizes,
    Forecast,
    cost_from_probe,
    held_back,
    longest_within,
    observed_stretch,
    order_starts,
    probe_seconds,
    reckon,
)
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Status, TrialEnded, TrialStarted
from spine_ray.study.tables import Cost, cost_key
from spine_ray.study.trials import Trial

SIZES = FoldSizes(train=80.0, held_out=20.0, folds=5)
RECIPE = start_recipe("pretrained")  # 10 epochs
SLACK = 1.15


def config(backbone: str = "resnet", resolution: int = 64, freeze: float = 0.0) -> TrialConfig:
    return TrialConfig(
        backbone=backbone, resolution=resolution, freeze=freeze, recipe=None if freeze == 1.0 else RECIPE
    )


def cost(
    backbone: str = "resnet",
    resolution: int = 64,
    freeze: float = 0.0,
    train_images_s: float = 40.0,
    prefix_images_s: float | None = None,
) -> Cost:
    return Cost(
        backbone=backbone, resolution=resolution, freeze=freeze, device="cpu", arithmetic="float32 channels_last",
        train_images_s=train_images_s, infer_images_s=7.0, score_images_s=100.0, prefix_images_s=prefix_images_s,
        activation_mb=None, peak_mb=1.0, macs=2, prefix_macs=1, prefix_params=1,
    )  # fmt: skip


def forecast(*costs: Cost, stretch: float = 1.0, built: Sequence[TrialConfig] = ()) -> Forecast:
    return Forecast({each.key: each for each in costs}, SIZES, stretch, frozenset(map(cost_key, built)))


def trial(seconds: float, status: Status | None, of: TrialConfig) -> Trial:
    started = TrialStarted(
        trial_id=of.trial_id, tier="light", config=of, family="resnet", is_start=not of.is_probe, total_steps=2,
        params=1, macs=1, weights_source="hub", licence="unknown", data_version="rows", time=0.0,
    )  # fmt: skip
    epochs = tuple(
        EpochDone(
            trial_id=of.trial_id, step=step, fold=0, epoch=step, train_loss=1.0, log_loss=1.0, accuracy=0.5,
            seconds=seconds / 2, train_images=200, train_images_s=1.0, score_images_s=1.0, peak_mb=1.0, views=10,
            micro_batch=32, note="",
        )
        for step in (1, 2)
    )  # fmt: skip
    end = TrialEnded(
        trial_id=of.trial_id, status=status or "failed", reason="", step=2, log_loss=1.0, accuracy=0.5,
        seconds=seconds, time=1.0,
    )  # fmt: skip
    return Trial(started=started, epochs=epochs, ended=end if status else None)


def test_a_trial_takes_every_epoch_of_every_fold() -> None:
    # An epoch trains 80 rows at 40/s and scores 20 at 100/s: 2.2 s; 10 epochs of 5 folds.
    assert forecast(cost()).seconds(config()) == pytest.approx(110.0)
    assert forecast(cost(), stretch=1.5).seconds(config()) == pytest.approx(165.0)
    assert Forecast({cost().key: cost()}, SIZES).seconds(config()) == pytest.approx(SLACK * 110.0)


def test_nothing_is_said_of_a_backbone_that_was_not_measured() -> None:
    assert forecast().seconds(config()) is None
    assert forecast(cost("vit")).seconds(config("resnet")) is None


def test_a_resolution_that_was_not_measured_is_scaled_by_its_pixels() -> None:
    assert forecast(cost(resolution=32)).seconds(config(resolution=64)) == pytest.approx(440.0)
    nearest = forecast(cost(resolution=32), cost(resolution=128, train_images_s=10.0))
    # 96 is nearer to 128 than to 32.
    assert nearest.seconds(config(resolution=96)) == pytest.approx(50 * 8.2 * (96 / 128) ** 2)


def test_a_freeze_depth_that_was_not_measured_is_reckoned_from_the_nearest_with_less_frozen() -> None:
    known = (cost(freeze=0.0, train_images_s=10.0), cost(freeze=0.5, train_images_s=20.0), cost(freeze=1.0))
    # From 0.5, although 1.0 is nearer: a fifth of what 0.5 trains is left; the rest is passed forwards, once a view.
    assert forecast(*known).seconds(config(freeze=0.9)) == pytest.approx(0.2 * 50 * 4.2 + 0.8 * 11 * 100 / 100)
    assert forecast(*known).seconds(config(freeze=0.4)) == pytest.approx(0.6 * 50 * 8.2 + 0.4 * 11 * 100 / 100)
    # Where nothing with less frozen is known, the least frozen is what there is.
    assert forecast(*known[1:]).seconds(config(freeze=0.25)) == pytest.approx(50 * 4.2)
    # A probe trains nothing, so it tells nothing of training.
    assert forecast(known[2]).seconds(config(freeze=0.9)) is None


PREFIX_S = 11 * 100 / 50
"""Ten training views and the scoring view of 80 + 20 rows through a frozen prefix of 50 images/s."""


def test_a_frozen_prefix_is_passed_once_a_view_unless_its_activations_are_there() -> None:
    frozen, other = config(freeze=0.5), config(freeze=0.75)
    costs = (cost(freeze=0.5, prefix_images_s=50.0), cost(freeze=0.75, train_images_s=80.0, prefix_images_s=25.0))
    assert forecast(*costs).seconds(frozen) == pytest.approx(110.0 + PREFIX_S)
    assert forecast(*costs, built=[frozen]).seconds(frozen) == pytest.approx(110.0)
    # Another freeze depth is another prefix: 1.2 s an epoch, and half as many images a second in the prefix.
    assert forecast(*costs, built=[frozen]).seconds(other) == pytest.approx(50 * 1.2 + 2 * PREFIX_S)
    assert forecast(*costs, stretch=1.5).seconds(frozen) == pytest.approx(1.5 * (110.0 + PREFIX_S))


def test_a_probe_passes_every_row_once_and_solves_the_rows_of_every_fold() -> None:
    measured = cost(freeze=1.0, train_images_s=80.0, prefix_images_s=25.0)
    probe = probe_config("resnet", 64)
    # 100 rows at 25/s, and 5 folds of 80 rows solved at 80/s.
    assert forecast(measured).seconds(probe) == pytest.approx(4.0 + 5.0)
    assert forecast(measured, stretch=1.5).seconds(probe) == pytest.approx(1.5 * 9.0)
    assert forecast(measured, built=[probe]).seconds(probe) == pytest.approx(5.0)


def test_a_probe_that_was_not_measured_is_not_reckoned_from_fine_tunes() -> None:
    measured = (cost(freeze=0.0), cost(freeze=0.5, prefix_images_s=50.0), cost(freeze=1.0, prefix_images_s=25.0))
    assert forecast(*measured).seconds(probe_config("resnet", 32)) is None
    assert forecast(*measured[:2]).seconds(probe_config("resnet", 64)) is None
    assert forecast(cost(freeze=1.0)).seconds(probe_config("resnet", 64)) is None  # how fast it passes is not known


def test_a_fine_tune_that_was_not_measured_costs_its_probes_passes_four_times() -> None:
    probe = replace(cost(freeze=1.0, resolution=32, prefix_images_s=60.0), macs=10, activation_mb=0.1)
    found = cost_from_probe(probe, config(resolution=64, freeze=0.5), 40)
    assert found.key == ("resnet", 64, 0.0)  # as if nothing were frozen
    # Four times the arithmetic: 15 images/s forwards.
    assert (found.train_images_s, found.score_images_s, found.infer_images_s) == (15.0 / TRAINING_PASSES, 15.0, 15.0)
    assert (found.macs, found.prefix_macs, found.prefix_params) == (40, 0, 0)
    assert (found.prefix_images_s, found.activation_mb) == (None, None)
    # 80 rows trained at 15/4 a second and 20 scored at 15, 10 epochs of 5 folds.
    assert forecast(found).seconds(config(resolution=64)) == pytest.approx(50 * (80 / 3.75 + 20 / 15))


def test_a_probe_is_predicted_by_the_probe_with_the_nearest_arithmetic() -> None:
    small = (replace(cost("small", freeze=1.0), macs=10, infer_images_s=20.0), 8.0)
    large = (replace(cost("large", freeze=1.0), macs=1000, infer_images_s=1.0), 120.0)
    # 100 rows passed in 5 s, 3 s for the rest: with twice the arithmetic 10 s and 3 s.
    assert probe_seconds([small, large], 20, 100) == pytest.approx(SLACK * (10.0 + 3.0))
    assert probe_seconds([small, large], 2000, 100) == pytest.approx(SLACK * (200.0 + 20.0))
    assert probe_seconds([], 20, 100) is None


def test_a_prediction_of_a_probe_leaves_time_to_build_its_backbone() -> None:
    quick = (replace(cost(freeze=1.0), macs=10, infer_images_s=20.0), 5.0)  # nothing but the passes
    assert probe_seconds([quick], 10, 100) == pytest.approx(SLACK * (5.0 + 2.0))


def test_a_prefix_at_another_resolution_is_scaled_by_its_pixels_and_is_another_prefix() -> None:
    measured = forecast(cost(freeze=0.5, prefix_images_s=50.0), built=[config(freeze=0.5)])
    assert measured.seconds(config(resolution=128, freeze=0.5)) == pytest.approx(4 * (110.0 + PREFIX_S))


def test_the_stretch_takes_a_prefix_for_passed_by_the_first_trial_that_has_it() -> None:
    frozen = config(freeze=0.5)
    plain = forecast(cost(freeze=0.5, prefix_images_s=50.0))
    first, second, third = 2.0 * (110.0 + PREFIX_S), 3.0 * 110.0, 4.0 * 110.0
    trials = [trial(seconds, "completed", frozen) for seconds in (first, second, third)]
    assert observed_stretch(trials, plain) == pytest.approx(3.0)
    # A trial that did not end may not have left them all.
    assert observed_stretch([trial(1.0, "stopped", frozen), trials[0]], plain) == pytest.approx(2.0)


def test_the_stretch_is_the_median_of_what_completed_trials_took() -> None:
    configs = [config(freeze=freeze) for freeze in (0.0, 0.5, 0.75)]
    plain = forecast(*(cost(freeze=each.freeze) for each in configs))
    trials = [trial(seconds, "completed", each) for seconds, each in zip((220.0, 330.0, 990.0), configs, strict=True)]
    assert observed_stretch(trials, plain) == pytest.approx(3.0)
    # The forecast's own stretch does not matter, or it would feed on itself.
    assert observed_stretch(trials, Forecast(plain.costs, SIZES, 7.0)) == pytest.approx(3.0)


def test_the_stretch_is_never_below_the_customary_slack() -> None:
    assert observed_stretch([], forecast(cost())) == SLACK
    assert observed_stretch([trial(55.0, "completed", config())], forecast(cost())) == SLACK


def test_the_stretch_looks_at_the_newest_trials_alone() -> None:
    plain = forecast(cost())
    long_ago, lately = trial(990.0, "completed", config()), trial(330.0, "completed", config())
    assert observed_stretch([long_ago] * 300 + [lately] * 100, plain) == pytest.approx(6.0)  # half and half
    assert observed_stretch([long_ago] * 300 + [lately] * 200, plain) == pytest.approx(3.0)


def test_probes_do_not_count_for_the_stretch() -> None:
    probe = config(freeze=1.0)
    measured = forecast(cost(), cost(freeze=1.0, prefix_images_s=25.0))
    assert observed_stretch([trial(990.0, "completed", probe)], measured) == SLACK
    trials = [trial(990.0, "completed", probe), trial(220.0, "completed", config())]
    assert observed_stretch(trials, measured) == pytest.approx(2.0)


@pytest.mark.parametrize("status", ["stopped", "failed", None])
def test_only_completed_and_measured_trials_count_for_the_stretch(status: Status | None) -> None:
    assert observed_stretch([trial(990.0, status, config())], forecast(cost())) == SLACK
    assert observed_stretch([trial(990.0, "completed", config("vit"))], forecast(cost())) == SLACK


def test_the_time_for_the_answer_is_kept_from_the_end_of_the_budget() -> None:
    budget = Budget(began=1_000.0, seconds=600.0)
    assert budget.training_ends == 1_600.0
    assert budget.keeping(45.0).training_ends == 1_555.0
    assert budget.keeping(45.0).keeping(20.0).training_ends == 1_580.0  # what is known last holds


@pytest.mark.parametrize(("tiers", "shares"), [(1, [1.0]), (2, [1 / 3, 1.0]), (3, [0.2, 0.6, 1.0])])
def test_the_first_tier_has_half_the_share_of_the_others(tiers: int, shares: list[float]) -> None:
    budget = Budget(began=1_000.0, seconds=1_000.0, reserve=200.0)
    found = [budget.share_ends(tier, tiers, since=1_000.0) for tier in range(tiers)]
    assert found == pytest.approx([1_000.0 + 800.0 * share for share in shares])
    assert found[-1] == budget.training_ends


def test_only_the_time_behind_the_probes_is_shared() -> None:
    budget = Budget(began=1_000.0, seconds=1_000.0, reserve=200.0)
    assert [budget.share_ends(tier, 3, since=1_300.0) for tier in range(3)] == pytest.approx(
        [1_400.0, 1_600.0, 1_800.0]
    )
    assert budget.share_ends(0, 3, since=1_900.0) == 1_900.0  # nothing is left to share


def test_without_a_limit_nothing_ends_and_nothing_is_refused() -> None:
    budget = Budget(began=0.0, seconds=None)
    assert (budget.training_ends, budget.share_ends(0, 3, since=0.0)) == (None, None)
    assert budget.keeping(100.0).training_ends is None
    assert admission(budget=budget).refusal(config(), 1e9, 1e9) is None


def admission(**changes: Any) -> Admission:
    """Tier 0 of 3 in 1000 s: its share ends at 160, training at 800; the later tiers need 300 s."""
    first, start = config(), config("vit")
    values: dict[str, Any] = {
        "budget": Budget(began=0.0, seconds=1_000.0, reserve=200.0), "since": 0.0, "tier": 0, "tiers": 3,
        "reserve": 300.0, "starts": frozenset({first.trial_id, start.trial_id}), "first": first.trial_id,
    }  # fmt: skip
    return Admission(**{**values, **changes})


@pytest.mark.parametrize(
    ("who", "limit", "word"),
    [
        (config(), 800.0, "the time for training"),
        (config("vit"), 500.0, "the time that the later tiers leave"),
        (config("other"), 160.0, "its tier's share of the budget"),
    ],
)
def test_a_configuration_begins_while_it_ends_in_its_time(who: TrialConfig, limit: float, word: str) -> None:
    rules = admission()
    assert rules.refusal(who, limit - 100.0, 100.0) is None
    refusal = rules.refusal(who, limit - 99.0, 100.0)
    assert refusal == f"needs about {limit - 99:.0f} s, and {word} has {limit - 100:.0f} s left"


def test_a_refusal_after_the_end_says_that_nothing_is_left() -> None:
    assert admission().refusal(config("other"), 10.0, 900.0) == (
        "needs about 10 s, and its tier's share of the budget has 0 s left"
    )


def test_a_start_recipe_has_at_least_its_tiers_share_whatever_is_reserved() -> None:
    assert admission(reserve=790.0).refusal(config("vit"), 150.0, 0.0) is None
    assert admission(reserve=790.0).refusal(config("vit"), 170.0, 0.0) is not None


def test_what_was_not_measured_is_not_refused() -> None:
    assert admission().refusal(config("other"), None, 100.0) is None


def ordered(table: list[tuple[str, str, float | None, int]]) -> list[str]:
    """Order start recipes given as (backbone, family, seconds, macs)."""
    starts = {name: config(name) for name, *_ in table}
    return [
        each.backbone
        for each in order_starts(
            list(starts.values()),
            {name: family for name, family, _, _ in table},
            {starts[name].trial_id: seconds for name, _, seconds, _ in table if seconds is not None},
            {starts[name].trial_id: macs for name, _, _, macs in table},
        )
    ]


def test_starts_go_cheapest_first_and_every_family_once_before_any_twice() -> None:
    table = [
        ("r1", "resnet", 1.0, 9), ("r2", "resnet", 2.0, 9), ("r3", "resnet", 3.0, 9),
        ("v1", "vit", 8.0, 9), ("v2", "vit", 9.0, 9), ("e1", "efficientnet", 5.0, 9),
    ]  # fmt: skip
    expected = ["r1", "e1", "v1", "r2", "v2", "r3"]
    for given in itertools.islice(itertools.permutations(table), 0, None, 17):
        assert ordered(list(given)) == expected


def test_ties_in_seconds_fall_by_macs() -> None:
    assert ordered([("a", "x", 2.0, 30), ("b", "y", 2.0, 10), ("c", "z", 2.0, 20)]) == ["b", "c", "a"]


def test_without_any_measurement_macs_decide() -> None:
    assert ordered([("a", "x", None, 30), ("b", "y", None, 10), ("c", "z", None, 20)]) == ["b", "c", "a"]


@pytest.mark.parametrize("who", [config(), probe_config("resnet", 64)])
def test_probes_and_what_is_left_over_begin_if_they_end_in_time(who: TrialConfig) -> None:
    rule = EndsInTime(Budget(began=1_000.0, seconds=100.0, reserve=20.0))
    assert rule.refusal(who, 10.0, 1_070.0) is None
    assert rule.refusal(who, 10.0, 1_071.0) == "needs about 10 s, and the time for training has 9 s left"
    assert rule.refusal(who, 10.0, 1_099.0) == "needs about 10 s, and the time for training has 0 s left"
    assert rule.refusal(who, None, 1_080.0) is None
    assert EndsInTime(Budget(began=0.0, seconds=None)).refusal(who, 1e9, 1e9) is None


@pytest.mark.parametrize(
    ("cheapest", "room", "kept"),
    [
        ([], 50.0, 0.0),
        ([10.0, 20.0], 30.0, 30.0),
        ([10.0, 20.0], 29.0, 10.0),
        ([40.0, 20.0], 30.0, 20.0),
        ([5.0], 0.0, 0.0),
    ],
)
def test_time_is_held_back_only_for_starts_that_there_is_room_for(
    cheapest: list[float], room: float, kept: float
) -> None:
    assert held_back(cheapest, room) == kept


def test_what_was_not_measured_is_reckoned_from_the_backbone_with_the_nearest_arithmetic() -> None:
    small, large = replace(cost("small"), macs=10), replace(cost("large", train_images_s=4.0), macs=1000)
    near_small = reckon((small, large), config("other"), 20)
    assert (near_small.key, near_small.macs) == (("other", 64, 0.0), 20)
    assert (near_small.train_images_s, near_small.infer_images_s, near_small.score_images_s) == (20.0, 3.5, 50.0)
    assert reckon((small, large), config("other"), 2000).train_images_s == pytest.approx(2.0)


def test_the_longest_that_ends_in_time_is_the_last_of_those_that_take_no_longer() -> None:
    assert longest_within([3.0, 5.0, 7.0], 7.0) == 3
    assert longest_within([3.0, 5.0, 7.0], 6.9) == 2
    assert longest_within([3.0, 5.0, 7.0], 2.9) == 0
    assert longest_within([3.0, None, None], 100.0) == 1
    assert longest_within([], 100.0) == 0
