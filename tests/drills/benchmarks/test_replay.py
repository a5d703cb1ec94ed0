"""Searches replayed from a stored grid: here one whose truth is known because it was drawn."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.gates import judge, summary
from benchmarks.grid import SPACE, groups_of
from benchmarks.grid_store import Curve, Grid, Plain, Step, key_of
from benchmarks.quality_per_cost import VARIANTS, Judge, search_once, variants
from benchmarks.replay import Archive, dev_rows, fresh_rows, replay
from benchmarks.selector import Seconds
from spine_ray.climb.prepare import look_up
from spine_ray.core.backbone import family_of
from spine_ray.core.epoch_record import ALL_FOLDS, EpochRecord
from spine_ray.data.samples import Samples
from spine_ray.space.load import load_space

DEV, FRESH, CLASSES, FOLDS, EPOCHS = 300, 24_000, 5, 3, 4
SKILL = {"light": 1.0, "mid": 1.0, "heavy": 2.0}
"""How far the true class's logit stands out, by tier: mid brings nothing, heavy much."""
(SPACE_OF_GRID,) = look_up([load_space(str(SPACE))])
PROBES = 12
"""Of 6 backbones at 2 resolutions."""


def step(turn: int, is_probe: bool, cold: bool) -> Step:
    record = EpochRecord(
        step=turn + 1, fold=ALL_FOLDS if is_probe else turn // EPOCHS, epoch=turn % EPOCHS + 1,
        train_loss=1.0, log_loss=1.0 / (turn + 1), accuracy=0.5, seconds=9.0, train_images=200, train_images_s=400.0,
        score_images_s=400.0, peak_mb=1.0, views=EPOCHS, micro_batch=32, note="",
    )  # fmt: skip
    passed = 2.0 if cold and turn < EPOCHS else 0.0
    return Step(record=record, cpu=1.0 + passed, prefix=Seconds(passed, passed), prefix_images=0)


@pytest.fixture(scope="module")
def grid() -> Grid:
    rng = np.random.default_rng(0)
    groups = groups_of(SPACE_OF_GRID)
    configs = [config for group in groups for config in group.configs]
    tiers = [group.tier for group in groups for _ in group.configs]
    labels = rng.integers(0, CLASSES, DEV + FRESH)
    samples = Samples(
        sample_ids=tuple(f"{row:016x}" for row in range(DEV + FRESH)), paths=tuple(map(str, range(DEV + FRESH))),
        labels=labels, classes=tuple("abcde"), groups=np.arange(DEV + FRESH),
        splits=("dev",) * DEV + ("test",) * FRESH,
        folds=np.concatenate([np.arange(DEV) % FOLDS, np.full(FRESH, -1)]).astype(np.int8),
    )  # fmt: skip
    truth = np.eye(CLASSES)[labels]
    luck = rng.normal(0.0, 1.0, (len(configs), DEV + FRESH, CLASSES))
    logits = np.array([SKILL[tier] for tier in tiers])[:, None, None] * truth + luck
    fresh = np.repeat(logits[:, None, DEV:], FOLDS, axis=1)
    curves = []
    for group in groups:
        for place, config in enumerate(group.configs):
            turns = range(1 if config.is_probe else EPOCHS * FOLDS)
            steps = tuple(step(turn, config.is_probe, config.freeze > 0 and place == 0) for turn in turns)
            curves.append(Curve(steps=steps, network=Seconds(0.0, 0.0), start=Seconds(0.0, 0.0)))
    plain = Plain(train=Seconds(3.0, 3.0), score=Seconds(1.0, 1.0), train_images=200, score_images=100)
    return Grid(
        name="drawn", configs=tuple(configs), tiers=tuple(tiers),
        families=tuple(family_of(config.backbone) for config in configs), macs=(10**6,) * len(configs),
        curves=tuple(curves), oof=logits[:, :DEV].astype(np.float32), fresh=fresh.astype(np.float16), samples=samples,
        plain={key_of(config): plain for config in configs},
        arithmetic={config.backbone: "float32 contiguous" for config in configs}, least_loss=0.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def archive(grid: Grid) -> Archive:
    return Archive(grid, SPACE_OF_GRID, overhead=5.0)


@pytest.mark.timeout(120)
def test_a_replay_tries_points_of_the_grid_and_pays_every_frozen_prefix_once(archive: Archive) -> None:
    played = replay(archive, dev_rows(archive.grid), seed=0, trials=8)
    trials = played.known.trials
    probes = [trial for trial in trials.values() if trial.config.is_probe]
    assert [trial.config.is_probe for trial in trials.values()] == sorted(
        (trial.config.is_probe for trial in trials.values()), reverse=True
    ), "the probes come first"
    assert {trial.config.backbone for trial in probes} == {config.backbone for config in archive.grid.configs}
    assert len(probes) == PROBES
    assert 3 * 8 <= len(trials) - len(probes) <= 4 * 8  # a tier may have one more helping
    assert set(trials) <= set(archive.places)
    prefixes = {key_of(trial.config) for trial in trials.values() if trial.config.freeze == 0.75}
    epochs = sum(len(trial.epochs) for trial in trials.values())
    stopped_early = sum(
        2.0 * max(0, EPOCHS - len(trial.epochs)) for trial in trials.values() if trial.config.freeze == 0.75
    )
    control = 1.0  # a probe, whose features it leaves to the others
    whole = epochs * 1.0 + len(prefixes) * EPOCHS * 2.0 + len(probes) * 2.0 + control + 5.0
    assert whole - stopped_early - 1e-6 <= played.device_seconds <= whole + 1e-6
    assert [seconds for seconds, _ in played.finished] == sorted(seconds for seconds, _ in played.finished)


@pytest.mark.timeout(120)
def test_the_gates_intervals_hold_the_truth_that_was_drawn(archive: Archive) -> None:
    judged = [
        each for seed in range(20) for each in judge(replay(archive, fresh_rows(archive.grid, 600, seed), seed, 4))
    ]
    told = summary("drawn", judged)
    assert told["covered"] >= 0.8  # type: ignore[operator]
    assert {each.after for each in judged} == {"mid"}
    assert abs(float(np.mean([each.true_gain for each in judged]))) < 0.02
    assert told["wrong"] <= 0.1  # type: ignore[operator]


def test_fresh_rows_are_judged_by_the_model_of_their_fold(grid: Grid) -> None:
    told = np.arange(FOLDS, dtype=np.float16)[None, :, None, None]
    marked = replace(grid, fresh=np.broadcast_to(told, grid.fresh.shape))
    rows = fresh_rows(marked, 600, seed=1)
    assert len(rows.samples.folds) == 600
    assert (rows.logits[0, :, 0] == rows.samples.folds).all()
    assert np.bincount(rows.samples.folds).min() >= 150
    assert set(rows.samples.sample_ids) <= set(np.array(grid.samples.sample_ids)[grid.samples.test])


@pytest.mark.timeout(120)
def test_a_search_reaches_the_grids_quality_for_less(archive: Archive) -> None:
    small = replace(
        archive, space=replace(archive.space, tiers=tuple(replace(t, trials=3) for t in archive.space.tiers))
    )
    asked = Judge(archive.grid)
    found = search_once(small, asked, target=2.0, seed=0)  # anything is as good as that
    assert 0.0 < found.reached < found.seconds
    assert found.regret < 0.0
    assert found.completed <= found.trials == 9 + PROBES
    assert tuple(name for name, _ in variants(archive.space)) == VARIANTS
