"""What is known of a study while it is climbed: what probes cost, what they say of fine-tunes, what time is kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spine_ray.climb.known import (
    ANSWER_SECONDS,
    HANGS_AFTER,
    MIN_HANG_TIMEOUT,
    UNMEASURED_HANG_TIMEOUT,
    Known,
)
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.events import TrialEnded
from spine_ray.study.tables import Cost, cost_key
from tests.support.climbs import FEATURES, climb_known, climb_samples, fine_tune_cost, made_up_facts
from tests.support.tier_plans import epoch_done, trial_started

ROWS, FOLDS, EPOCHS, SLACK = 90, 3, 2, 1.15
LIGHT = TierSpace(
    name="light", backbones=("test_resnet", "test_vit"), resolutions=(32, 64), recipe={"epochs": EPOCHS}, trials=4
)
SPACE = Space(name="s", tiers=(LIGHT,), file=Path("s.yaml"), folds=FOLDS)
PROBE = probe_config("test_resnet", 32)
MACS, HEAD_MACS = 10**6, FEATURES * 2
PASSES_S, SOLVED_S, PROBE_S = 50.0, 900.0, 4.0
"""Of the made-up probe: images through the backbone and rows solved a second, and how long it took."""
INFER_S = PASSES_S * (MACS - HEAD_MACS) / MACS


def known_of(*, is_pretrained: bool = True, costs: tuple[Cost, ...] = ()) -> Known:
    return climb_known(SPACE, ROWS, is_pretrained=is_pretrained, costs=costs)


def add_trial(
    known: Known, config: TrialConfig, *, log_loss: float = 0.5, seconds: float = PROBE_S, has_ended: bool = True
) -> None:
    """Add a completed trial of one epoch, or one that was interrupted after it, to the ledger's events."""
    started = replace(trial_started(LIGHT, config, FOLDS), data_version=known.samples.version)
    fold = -1 if config.is_probe else 0
    epoch = epoch_done(config, step=1, fold=fold, epoch=1, log_loss=log_loss, seconds=seconds)
    known.events += [started, replace(epoch, train_images_s=SOLVED_S, score_images_s=PASSES_S)]
    if has_ended:
        known.events.append(
            TrialEnded(
                trial_id=config.trial_id, status="completed", reason="", step=1, log_loss=log_loss, accuracy=0.5,
                seconds=seconds, time=1.0,
            )
        )  # fmt: skip


def test_a_probe_tells_its_own_cost_from_the_ledger() -> None:
    known = known_of()
    add_trial(known, PROBE)
    assert list(known.trials) == [PROBE.trial_id]
    assert list(known.costs) == [cost_key(PROBE)]
    cost = known.costs[cost_key(PROBE)]
    assert (cost.prefix_images_s, cost.train_images_s) == (PASSES_S, SOLVED_S)
    assert cost.infer_images_s == pytest.approx(INFER_S)
    assert (cost.macs, cost.prefix_macs) == (MACS, MACS - HEAD_MACS)
    assert cost.prefix_params == 1000 - HEAD_MACS - 2  # all but the weights and biases of the head
    assert cost.activation_mb == 4 * FEATURES / 1e6
    assert (cost.device, cost.arithmetic) == ("cpu", str(FLOAT32))
    # The parts take as long as the whole.
    assert 1 / cost.infer_images_s == pytest.approx(1 / PASSES_S + 1 / cost.score_images_s)


def test_what_was_known_of_a_cost_stays_and_fine_tunes_tell_none() -> None:
    kept = replace(fine_tune_cost("test_resnet"), freeze=1.0)
    known = known_of(costs=(kept,))
    add_trial(known, PROBE)
    (start, _) = known.starts(LIGHT)
    add_trial(known, start)
    assert len(known.trials) == 2
    assert known.costs == {kept.key: kept}


def test_trials_of_a_tier_are_its_probes_and_its_fine_tunes() -> None:
    known = known_of()
    (start, _) = known.starts(LIGHT)
    for config in (PROBE, start):
        add_trial(known, config)
    assert [trial.config for trial in known.of_tier(LIGHT)] == [PROBE, start]
    assert [trial.config for trial in known.probes_of_tier(LIGHT)] == [PROBE]
    assert [trial.config for trial in known.fine_tunes_of_tier(LIGHT)] == [start]
    by_chance = known_of(is_pretrained=False)
    add_trial(by_chance, PROBE)
    assert by_chance.of_tier(LIGHT) == ()


def test_a_probe_is_told_to_the_ledger_as_one_step_and_no_start_recipe() -> None:
    known = known_of()
    describe = known.describe("light")
    told, start = describe(PROBE, True), describe(known.starts(LIGHT)[0], True)
    assert (told.is_start, told.total_steps) == (False, 1)
    assert (start.is_start, start.total_steps) == (True, EPOCHS * FOLDS)


def test_only_what_ends_in_one_linear_layer_is_probed() -> None:
    facts = made_up_facts([LIGHT])
    facts["test_vit", 64] = replace(facts["test_vit", 64], features=None)
    del facts["test_resnet", 64]
    known = climb_known(SPACE, ROWS, is_pretrained=True, facts=facts)
    assert known.probes(LIGHT) == (PROBE, probe_config("test_vit", 32))
    assert known_of(is_pretrained=False).probes(LIGHT) == ()


def test_before_anything_was_measured_nothing_is_predicted() -> None:
    known = known_of()
    assert known.predicted_seconds(PROBE) is None
    assert known.predicted_seconds(known.starts(LIGHT)[0]) is None
    assert known.hang_timeout(PROBE) == UNMEASURED_HANG_TIMEOUT
    assert known.reserve(1) == ANSWER_SECONDS


def test_a_probe_is_predicted_by_another_and_before_the_first_by_a_fine_tune_that_was_measured() -> None:
    other = probe_config("test_vit", 32)
    known = known_of()
    add_trial(known, PROBE)
    # Three times the arithmetic of the one that was made; what that took beside its passes comes once.
    passes = ROWS / INFER_S
    assert known.predicted_seconds(other) == pytest.approx(SLACK * (3 * passes + PROBE_S - passes))
    measured = known_of(costs=(fine_tune_cost("test_vit", 30.0),))
    assert measured.predicted_seconds(other) == pytest.approx(SLACK * (ROWS / 30.0 + 2.0))
    assert measured.predicted_seconds(PROBE) is None  # of another backbone


def test_a_fine_tune_is_predicted_by_its_own_probe_else_by_that_of_the_nearest_arithmetic() -> None:
    known = known_of()
    add_trial(known, PROBE)
    assert not known.is_measured("test_resnet")
    mine, other = known.starts(LIGHT)
    # 60 rows at a quarter of the passes' speed, and 30 scored; three times the arithmetic takes three times as long.
    seconds = EPOCHS * FOLDS * (60 / (PASSES_S / 4) + 30 / PASSES_S)
    assert known.predicted_seconds(mine) == pytest.approx(SLACK * seconds)
    assert known.predicted_seconds(other) == pytest.approx(SLACK * 3 * seconds)
    known.costs[fine_tune_cost("test_resnet").key] = fine_tune_cost("test_resnet")
    assert known.is_measured("test_resnet")
    assert known.predicted_seconds(mine) == pytest.approx(SLACK * EPOCHS * FOLDS * (60 / 60 + 30 / 30))


def test_an_interrupted_fine_tune_needs_what_it_has_left_and_a_probe_all_of_it() -> None:
    known = known_of(costs=(fine_tune_cost("test_resnet"),))
    start = known.starts(LIGHT)[0]
    whole = known.seconds_left(start)
    assert whole is not None
    add_trial(known, start, has_ended=False)
    assert known.seconds_left(start) == pytest.approx(whole * (1 - 1 / (EPOCHS * FOLDS)))


def test_time_is_kept_for_the_answer_and_the_refits_of_the_four_best() -> None:
    known = known_of(costs=(fine_tune_cost("test_resnet"), fine_tune_cost("test_vit")))
    add_trial(known, PROBE)
    # Its features are there: all rows are solved once where the probe solved 60 in each of three folds.
    solve = SLACK * (FOLDS * 60 / SOLVED_S) / (FOLDS - 1)
    assert known.reserve(1) == pytest.approx(ANSWER_SECONDS + solve)
    for start in known.starts(LIGHT):
        add_trial(known, start, log_loss=0.4, seconds=10.0)
    refit = SLACK * EPOCHS * FOLDS * (60 / 60 + 30 / 30) / (FOLDS - 1)
    assert known.forecast().stretch == SLACK
    assert known.reserve(1) == pytest.approx(ANSWER_SECONDS + solve + 2 * refit)
    assert known.reserve(3) == pytest.approx(ANSWER_SECONDS + refit)  # side by side
    for backbone in LIGHT.backbones:
        add_trial(known, probe_config(backbone, 64), log_loss=0.9)
    worst = known.refit_seconds([probe_config("test_resnet", 64)], 1)
    assert known.reserve(1) == pytest.approx(ANSWER_SECONDS + solve + 2 * refit + worst)  # not of the fifth


def test_scoring_the_test_split_is_part_of_a_refit() -> None:
    rows = climb_samples(ROWS + 10, FOLDS)
    folds = np.concatenate([rows.folds[:ROWS], np.full(10, -1, np.int8)])
    rows = replace(rows, splits=("dev",) * ROWS + ("test",) * 10, folds=folds)
    known = climb_known(SPACE, ROWS, is_pretrained=True, samples=rows)
    add_trial(known, PROBE)
    solve = SLACK * (FOLDS * 60 / SOLVED_S) / (FOLDS - 1)
    assert known.refit_seconds([PROBE], 1) == pytest.approx(solve + 10 / INFER_S)


def test_a_probe_is_taken_to_hang_after_ten_times_what_it_was_to_take() -> None:
    known = known_of()
    add_trial(known, PROBE, seconds=200.0)
    other = probe_config("test_vit", 64)
    predicted = known.predicted_seconds(other)
    assert predicted is not None and HANGS_AFTER * predicted > MIN_HANG_TIMEOUT
    assert known.hang_timeout(other) == pytest.approx(HANGS_AFTER * predicted)
    quick = known_of()
    add_trial(quick, PROBE)
    assert quick.hang_timeout(other) == MIN_HANG_TIMEOUT
