from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from spine_ray.climb.known import ANSWER_SECONDS
from spine_ray.climb.plan import GPU_TERA_MACS, _costs_on, check_shape
from spine_ray.climb.rehearsal import COSTS_ARE_OFF, Rehearsal
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.tiers import Climb
from spine_ray.core.backbone import facts
from spine_ray.ladder.budget import Budget
from spine_ray.ladder.gates import Verdict
from spine_ray.sampling.simulation import VirtualClock
from spine_ray.space.config import probe_config
from spine_ray.space.fields import Around
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.events import EpochDone
from spine_ray.study.tables import Cost
from spine_ray.study.trials import trials_from_events
from spine_ray.workers.request import WorkerRequest
from tests.support.climbs import climb_known, fine_tune_cost

ROWS, FOLDS, EPOCHS = 90, 3, 2
BACKBONES = ("test_resnet", "test_vit")
START = 1000.0


def space(reduction: int = 1) -> Space:
    recipe: dict[str, Any] = {"epochs": EPOCHS, "lr": Around(3.0)}
    tiers = [
        TierSpace(name=name, backbones=(backbone,), resolutions=(32,), recipe=recipe, trials=3)
        for name, backbone in zip(("light", "mid"), BACKBONES, strict=True)
    ]
    return Space(name="s", tiers=tuple(tiers), file=Path("s.yaml"), folds=FOLDS, reduction=reduction)


def cost(backbone: str) -> Cost:
    return fine_tune_cost(backbone, macs=10**6)


SECONDS = EPOCHS * FOLDS * (60 / 60.0 + 30 / 30.0)
"""Of a trial: 60 rows trained at 60 images/s and 30 scored at 30."""


CHECK_SECONDS = (4 * 90 / 30.0 + 10.0) * COSTS_ARE_OFF[1]
"""Four passes of all rows, and ten seconds for one batch by heart."""


@pytest.fixture(scope="module")
def known_facts() -> dict[tuple[str, int], Any]:
    return {(backbone, 32): facts(backbone, 32, 2) for backbone in BACKBONES}


def rehearse(
    known_facts: dict[tuple[str, int], Any],
    verdicts: tuple[str, ...],
    *,
    seed: int = 0,
    workers: int = 1,
    budget: float | None = None,
    reduction: int = 1,
    is_pretrained: bool = False,
    costs: Sequence[Cost] = tuple(map(cost, BACKBONES)),
) -> tuple[Rehearsal, float]:
    where = space(reduction)
    known = climb_known(
        where, ROWS, is_pretrained=is_pretrained, facts=known_facts, costs=costs, budget_s=budget, plan=True,
        began=START,
    )  # fmt: skip
    told = cast("Iterator[Verdict]", iter(verdicts))
    rehearsal = Rehearsal(known, VirtualClock(START), workers, told, seed, has_control=not is_pretrained)
    climb = Climb(known, rehearsal, where, Budget(began=START, seconds=budget))
    climb.probe()
    climb.fine_tune()
    return rehearsal, rehearsal.now() - START


def test_trials_take_what_their_measured_costs_say_give_or_take(known_facts: dict[tuple[str, int], Any]) -> None:
    ratios = []
    for seed in range(20):
        rehearsal, _ = rehearse(known_facts, ("climb",), seed=seed)
        assert {name: effort.trials for name, effort in rehearsal.tiers.items()} == {"light": 3, "mid": 3}
        assert all(effort.epochs == 3 * EPOCHS * FOLDS for effort in rehearsal.tiers.values())
        assert all(effort.images == 3 * EPOCHS * FOLDS * 60 for effort in rehearsal.tiers.values())
        ratios += [effort.device_seconds / (3 * SECONDS) for effort in rehearsal.tiers.values()]
    low, high = COSTS_ARE_OFF
    assert low <= min(ratios) < 1.0 < max(ratios) <= high


def test_more_workers_take_less_wall_time_and_more_memory(known_facts: dict[tuple[str, int], Any]) -> None:
    (alone, one), (crew, three) = (rehearse(known_facts, ("climb",), workers=count) for count in (1, 3))
    assert three < 0.7 * one  # the check before training and a tier's own start and end are done once
    assert crew.tiers["mid"].device_seconds == pytest.approx(alone.tiers["mid"].device_seconds, rel=0.01)
    assert (alone.tiers["mid"].peak_mb, crew.tiers["mid"].peak_mb) == (500.0, 1500.0)


def test_early_stopping_leaves_epochs_out(known_facts: dict[tuple[str, int], Any]) -> None:
    epochs = [rehearse(known_facts, ("climb",), seed=seed, reduction=3)[0].tiers["mid"].epochs for seed in range(10)]
    assert min(epochs) < 3 * EPOCHS * FOLDS
    assert max(epochs) <= 3 * EPOCHS * FOLDS


def test_a_gate_that_stops_ends_the_climb(known_facts: dict[tuple[str, int], Any]) -> None:
    with pytest.raises(StoppedByGate):
        rehearse(known_facts, ("stop",))


@pytest.mark.parametrize("budget", [50.0, 60.0, 90.0])
def test_within_a_budget_nothing_trains_after_its_training_time(
    known_facts: dict[tuple[str, int], Any], budget: float
) -> None:
    for seed in range(10):
        rehearsal, seconds = rehearse(known_facts, ("climb",), seed=seed, budget=budget)
        epochs = [event.seconds for event in rehearsal.known.events if isinstance(event, EpochDone)]
        longest = max(epochs, default=0.0)
        # Beyond it: the check before training, which no budget leaves out, and a tier's own start and end, twice.
        assert seconds <= max(budget - ANSWER_SECONDS, CHECK_SECONDS) + longest + 12.0


@pytest.mark.parametrize("share", [0.75, 0.95])
def test_a_budget_that_holds_no_whole_trial_shortens_all_of_them(
    known_facts: dict[tuple[str, int], Any], share: float
) -> None:
    slow = [replace(cost(each), train_images_s=0.6, infer_images_s=3000.0, score_images_s=3000.0) for each in BACKBONES]
    whole = 1.25 * 1.15 * EPOCHS * FOLDS * 60 / 0.6  # of a trial and its refit
    check = 10.0 * COSTS_ARE_OFF[1] + 1.0
    budget = check + share * whole + ANSWER_SECONDS
    for seed in range(10):
        rehearsal, _ = rehearse(known_facts, ("climb",), seed=seed, budget=budget, costs=slow)
        epochs = {trial.config.training.epochs for trial in rehearsal.known.trials.values()}
        assert epochs == {1}, seed
        assert any(trial.is_completed for trial in rehearsal.known.trials.values()), seed


def test_in_a_budget_only_what_it_could_hold_is_measured(known_facts: dict[tuple[str, int], Any]) -> None:
    known = replace(rehearse(known_facts, ("climb",))[0].known, events=[])
    light, mid = (known.starts(tier)[0] for tier in known.prepared.spaces[0].tiers)
    known.costs = {}
    assert known.worth_measuring([light, mid], None) == [light, mid]
    assert known.worth_measuring([light, mid], 1000.0) == [min((light, mid), key=known.macs)]
    known.costs = {cost(light.backbone).key: replace(cost(light.backbone), macs=known.macs(light))}
    assert known.is_measured(light.backbone)
    assert not known.is_measured(mid.backbone)
    reckoned = known.forecast().seconds(mid)
    assert reckoned == pytest.approx(1.15 * SECONDS * known.macs(mid) / known.macs(light))
    assert known.worth_measuring([mid], reckoned / 3.9) == [mid]
    assert known.worth_measuring([mid], reckoned / 4.1) == []


def test_a_gpu_that_was_not_measured_is_an_assumption_with_two_ends() -> None:
    costs = {cost(backbone).key: cost(backbone) for backbone in BACKBONES}
    note, variants = _costs_on(WorkerRequest(8, "cuda"), WorkerRequest(2, "cpu"), costs)
    assert note.startswith("no GPU was measured")
    for tera, variant in zip(GPU_TERA_MACS, variants, strict=True):
        for each in variant.values():
            assert each.train_images_s == pytest.approx(tera * 1e12 / 3e6)
            assert each.infer_images_s == pytest.approx(tera * 1e12 / 1e6)
    assert _costs_on(WorkerRequest(8, "cpu"), WorkerRequest(2, "cpu"), costs) == ("", [costs])
    with pytest.raises(ValueError, match="measured on a GPU"):
        check_shape(WorkerRequest(8, "cpu"), "cuda")
    check_shape(WorkerRequest(8, "cpu"), "cpu")
    check_shape(WorkerRequest(8, "cuda"), "cpu")


def test_luck_is_a_function_of_the_seed(known_facts: dict[tuple[str, int], Any]) -> None:
    walls = [rehearse(known_facts, ("climb",), seed=seed)[1] for seed in (1, 1, 2)]
    assert walls[0] == walls[1] != walls[2]


def test_effort_counts_what_is_trained_in_every_fold_and_what_is_frozen_once(
    known_facts: dict[tuple[str, int], Any],
) -> None:
    known = rehearse(known_facts, ("climb",))[0].known
    done = next(trial.config for trial in known.trials.values())  # all trained, completed
    macs = known_facts[done.backbone, 32].macs
    # Two epochs, three folds: two thirds of the rows trained (3 passes), a third scored, in each; 14 passes a row.
    assert known.effort(done) == EPOCHS * (3 * (FOLDS - 1) + 1) * macs
    half, most = replace(done, freeze=0.5), replace(done, freeze=0.9)
    assert known.effort(half) == pytest.approx(0.5 * known.effort(done) + 0.5 * (EPOCHS + 1) * macs)
    assert known.effort(most) == pytest.approx(0.1 * known.effort(done) + 0.9 * (EPOCHS + 1) * macs)
    kept = trials_from_events(known.events)[done.trial_id]
    assert kept.ended is not None
    known.events += [
        replace(kept.started, trial_id=most.trial_id, config=most),
        replace(kept.ended, trial_id=most.trial_id),
    ]
    assert known.effort(most) == pytest.approx(0.1 * known.effort(done) + 0.9 * macs)  # its activations are there
    assert known.effort(half) == pytest.approx(0.5 * known.effort(done) + 0.5 * (EPOCHS + 1) * macs)
    assert known.effort(probe_config(done.backbone, 32)) == macs  # every row is passed once


def test_probes_take_a_pass_of_all_rows_and_the_first_gate_is_asked_before_anything_is_fine_tuned(
    known_facts: dict[tuple[str, int], Any],
) -> None:
    for seed in range(5):
        rehearsal, _ = rehearse(known_facts, ("climb",), seed=seed, is_pretrained=True)
        probes = [trial for trial in rehearsal.known.trials.values() if trial.config.is_probe]
        assert [trial.config.backbone for trial in probes] == list(BACKBONES)
        # 90 rows at 30 images/s for as much arithmetic as was measured, and two seconds to build the backbone.
        expected = 1.15 * (3.0 * known_facts[BACKBONES[0], 32].macs / 1e6 + 2.0)
        assert COSTS_ARE_OFF[0] * expected <= probes[0].seconds <= COSTS_ARE_OFF[1] * expected
        assert {name: effort.trials for name, effort in rehearsal.tiers.items()} == {"light": 4, "mid": 4}
    with pytest.raises(StoppedByGate):
        rehearse(known_facts, ("stop",), is_pretrained=True)
