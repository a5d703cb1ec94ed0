from dataclasses import replace

import numpy as np
import pytest

from benchmarks import grid_training
from benchmarks.grid import GridSet, groups_of, known_arithmetic, order_of, prepare, write_head
from benchmarks.grid_sets import KINDS, least_loss, make_rows, mislabelled
from benchmarks.grid_store import is_stored, read_grid, trial_file
from benchmarks.grid_training import open_task, solved_heads, train_group
from spine_ray.climb.prepare import look_up
from spine_ray.core.network import Network
from spine_ray.core.probe import ProbeRun
from spine_ray.core.trial import TrialRun
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.configs import start_configs
from spine_ray.space.load import load_space

BACKBONE = "test_byobnet"
FREEZES = (0.0, 0.75)
SETS = (
    *(f"tiers.{tier}.backbone=[{BACKBONE}]" for tier in ("light", "mid", "heavy")),
    *("resolution=32", f"freeze={list(FREEZES)}", "recipe.epochs=2", "recipe.lr=[1e-3]"),
)
DEV, FRESH = 60, 40


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    space = look_up([load_space("benchmarks/spaces/grid.yaml", sets=SETS)])[0]
    return GridSet("digits", tmp_path_factory.mktemp("grid") / "digits", replace(space, tiers=space.tiers[:1]))


@pytest.fixture(scope="module")
def order(grid):
    pixels = prepare(grid, make_rows("digits", DEV, FRESH))
    write_head(grid, {BACKBONE: FLOAT32})
    return order_of(grid, pixels, {BACKBONE: FLOAT32})


@pytest.fixture(scope="module")
def stored(grid, order):
    for group in groups_of(grid.space):
        train_group(order, group)
    return read_grid(grid.folder)


def test_reader_has_a_place_for_every_configuration_and_row(stored):
    fresh = 1797 - DEV  # one copy of every scan that is held out
    assert [config.freeze for config in stored.configs] == [1.0, *FREEZES]  # the probe first
    assert stored.oof.shape == (3, DEV, 10)
    assert stored.fresh.shape == (3, 3, fresh, 10)
    assert np.isfinite(stored.oof).all() and np.isfinite(stored.fresh).all()
    assert stored.labels.shape == stored.folds.shape == (DEV,)
    assert stored.fresh_labels.shape == stored.fresh_groups.shape == (fresh,)
    assert [len(curve.steps) for curve in stored.curves] == [1, 2 * 3, 2 * 3]
    assert stored.fresh_losses.shape == (3, 3)
    assert all(stored.plain_seconds(place).wall > 0 for place in range(3))


@pytest.mark.parametrize("place", range(1 + len(FREEZES)))
def test_stored_oof_logits_are_those_of_a_trial(stored, order, place):
    config = stored.configs[place]
    samples, task = open_task(order.folder, order.pixels)
    network = Network(config, task.classes, task.seed, order.setup(config, 0))
    if config.is_probe:
        run = ProbeRun(task, samples.folds, network, samples.num_folds)
    else:
        heads = solved_heads(order, config)
        assert set(heads) == {0, 1, 2}
        run = TrialRun(config, task, samples.folds, network, samples.num_folds, heads)
    while not run.is_done:
        record = run.next_epoch()
    np.testing.assert_array_equal(stored.oof[place], run.oof_logits()[samples.dev])
    assert stored.curves[place].steps[-1].record.log_loss == record.log_loss
    assert stored.oof_losses[place] == pytest.approx(record.log_loss)


def test_only_a_cold_prefix_is_counted(stored, order):
    probe, full, part = stored.curves
    assert full.was_warm and not part.was_warm and not probe.was_warm
    assert part.steps[0].prefix_images == 2 * DEV  # the scoring view and one training view
    assert probe.steps[0].prefix_images == DEV
    for curve in (part, probe):
        assert curve.steps[0].warm().wall < curve.steps[0].record.seconds


def test_a_fold_model_on_fresh_rows_is_as_good_as_on_held_out_rows(stored):
    assert stored.fresh_losses.mean(axis=1) == pytest.approx(stored.oof_losses, rel=0.3)


def test_interrupted_grid_goes_on(stored, grid, order, monkeypatch):
    _, lost, kept = (trial_file(grid.folder, config) for config in stored.configs)
    before = kept.stat().st_mtime_ns
    lost.unlink()
    with pytest.raises(ValueError, match="lacks 1 of 3 trials"):
        read_grid(grid.folder)
    trained = []
    real = grid_training.trained
    monkeypatch.setattr(grid_training, "trained", lambda config, *rest: trained.append(config) or real(config, *rest))
    for group in groups_of(grid.space):
        train_group(order, group)
    assert trained == [stored.configs[1]]
    assert kept.stat().st_mtime_ns == before and is_stored(grid.folder, stored.configs[1])
    np.testing.assert_array_equal(read_grid(grid.folder).oof, stored.oof)


def test_another_space_in_the_same_folder_is_refused(stored, grid):
    assert known_arithmetic(grid) == {BACKBONE: FLOAT32}
    tier = replace(grid.space.tiers[0], freezes=(0.5,))
    with pytest.raises(ValueError, match="of another space"):
        known_arithmetic(replace(grid, space=replace(grid.space, tiers=(tier,))))


@pytest.mark.parametrize("name", ["grid", "grid_turned"])
def test_spaces_are_the_whole_grid_and_begin_with_the_start_recipes(name):
    space = look_up([load_space(f"benchmarks/spaces/{name}.yaml")])[0]
    configs = [config for group in groups_of(space) for config in group.configs]
    assert len({config.trial_id for config in configs}) == 6 * 2 * (1 + 2 * 3)
    whole = [
        config
        for group in groups_of(look_up([load_space("benchmarks/spaces/grid.yaml")])[0])
        for config in group.configs
    ]
    assert {config.trial_id for config in configs} == {config.trial_id for config in whole}
    starts = [config for tier in space.tiers for config in start_configs(tier, "pretrained")]
    assert all(config in configs for config in starts)


def test_share_of_wrong_labels_is_as_said_and_nobody_knows_more():
    kind = replace(KINDS["wrong"], wrong=0.2)
    truth = np.arange(20_000) % kind.classes
    labels = mislabelled(truth, kind, np.random.default_rng(0))
    assert (labels != truth).mean() == pytest.approx(0.2, abs=0.01)
    best = np.full((kind.classes, kind.classes), 0.2 / (kind.classes - 1))
    np.fill_diagonal(best, 0.8)
    assert least_loss(kind) == pytest.approx(-np.log(best[truth, labels]).mean(), abs=0.02)


def test_scans_of_fresh_rows_are_in_no_dev_row():
    rows = make_rows("digits", DEV, FRESH)
    assert not set(rows.groups[rows.folds < 0]) & set(rows.groups[rows.folds >= 0])
    assert {len(np.unique(rows.labels[rows.folds == fold])) for fold in range(3)} == {10}
