import csv
import math
import time

import numpy as np
import pytest

from benchmarks.comparison import Run, against_bare, compare, images_s_over_bare, oof_log_loss
from benchmarks.counts import steps_of, work_of
from benchmarks.fold_table import FoldTable, read_table, write_table
from benchmarks.jpegs import deal, write_jpegs
from benchmarks.sides import EQUAL, Order, SideResult, read_order, read_result, write_order, write_result
from benchmarks.throughput import STAT, Mix, Runs, machine_cpu_seconds, report


def trials(**changes):
    return Mix(backbones=("resnet18",), **changes).trials()


def table(rows, folds=3):
    return FoldTable(tuple(map(str, range(rows))), tuple("ab"[row % 2] for row in range(rows)), np.arange(rows) % folds)


def run(wall, seconds, losses, of):
    names = [trial.trial_id for trial in of]
    by_name = [dict(zip(names, values, strict=True)) for values in (seconds, losses)]
    return Run(wall=wall, seconds=by_name[0], losses=by_name[1], images_s=dict.fromkeys(names, 90.0))


def test_the_full_mix_is_every_backbone_at_every_depth_and_rate():
    every = Mix().trials()
    assert len({trial.trial_id for trial in every}) == 18
    assert {trial.training.epochs for trial in every} == {3}


@pytest.mark.parametrize(("rows", "steps"), [(600, 3 * (12 + 12 + 12)), (96, 3 * (2 + 2 + 2)), (95, 3 * (1 + 1 + 2))])
def test_a_trial_takes_whole_batches_of_32_in_every_fold_and_epoch(rows, steps):
    # 600 rows train on 400 a fold: 12 batches; 96 on 64: 2; 95 on 63, 63 and 64: 1, 1 and 2.
    assert steps_of(trials()[0], table(rows)) == steps


def test_prefix_views_are_counted_once_and_the_rest_for_every_trial():
    works = {work.example.freeze: work for work in work_of(trials(), table(600))}
    assert {freeze: work.prefix_images for freeze, work in works.items()} == {0.0: 0, 0.75: 2400}
    assert {work.steps for work in works.values()} == {3 * 108}
    assert {work.scored_images for work in works.values()} == {3 * 3 * 600}


def test_folds_have_equal_shares_of_every_class_and_survive_the_file(tmp_path):
    drawn = write_jpegs(tmp_path, pictures=36, classes=3, folds=3, seed=0)
    read = read_table(tmp_path)
    assert (read.paths, read.names) == (drawn.paths, drawn.names)
    np.testing.assert_array_equal(read.folds, drawn.folds)
    assert all(np.bincount(read.labels[read.held_out(fold)]).tolist() == [4, 4, 4] for fold in range(3))
    assert all((tmp_path / path).is_file() for path in read.paths)
    assert len({(tmp_path / path).read_bytes() for path in read.paths}) == 36
    with (tmp_path / "folds.csv").open() as file:
        assert next(csv.reader(file)) == ["path", "label", "fold"]


def test_folds_follow_from_the_seed():
    names = ["a", "b"] * 30
    np.testing.assert_array_equal(deal(names, 3, 1), deal(names, 3, 1))
    assert not np.array_equal(deal(names, 3, 1), deal(names, 3, 2))


def test_too_few_pictures_or_drawings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="too few for 3 folds"):
        write_jpegs(tmp_path, pictures=5, classes=2, folds=3, seed=0)
    with pytest.raises(ValueError, match="classes must be 2 to"):
        write_jpegs(tmp_path, pictures=5000, classes=1000, folds=3, seed=0)


def test_labels_count_class_names_sorted_as_text(tmp_path):
    given = FoldTable(("x", "y", "z"), ("b", "a", "b"), np.array([0, 1, 1]))
    write_table(given, tmp_path)
    assert read_table(tmp_path).labels.tolist() == [1, 0, 1]


def test_ratios_are_plain_over_spine_of_medians_and_of_seconds_by_freeze():
    two = trials(freezes=(0.0, 0.75), rates=(1e-3,))
    plain = [run(wall, [10.0, 20.0], [2.0, 2.0], two) for wall in (30.0, 40.0, 90.0)]
    spine = [run(wall, [5.0, 2.0], [2.1, 2.3], two) for wall in (10.0, 8.0, 50.0)]
    said = compare(two, plain, spine)
    assert said["plain_wall_over_spine_wall"] == 4.0
    assert said["trial_seconds_ratio_by_freeze"] == {"0.00": 2.0, "0.75": 10.0}
    # Two workers: plain's middle run has 80 - 30 = 50 more seconds, 25 a trial; spine's 20 - 7 = 13, 6.5 a trial.
    assert said["slot_seconds_ratio_by_freeze"] == {"0.00": round(35 / 11.5, 4), "0.75": round(45 / 8.5, 4)}
    # Differences 0.1 and 0.3: mean 0.2, deviation 0.1414, over sqrt(2) = 0.1.
    assert said["mean_log_loss_difference"] == 0.2
    assert said["standard_error_over_trials"] == 0.1


def test_one_trial_has_no_standard_error():
    one = trials(freezes=(0.0,), rates=(1e-3,))
    assert (
        compare(one, [run(1.0, [1.0], [2.0], one)], [run(1.0, [1.0], [2.0], one)])["standard_error_over_trials"] is None
    )


def test_the_share_of_bare_arithmetic_is_of_median_walls():
    one = trials(freezes=(0.0,), rates=(1e-3,))
    said = against_bare([run(wall, [1.0], [2.0], one) for wall in (8.0, 10.0, 12.0)], [5.0, 4.0, 9.0])
    assert said == {"bare_seconds": 5.0, "share_of_wall": 0.5, "wall_over_bare": 2.0}


def test_images_a_second_are_a_share_of_the_bare_loops():
    one = trials(freezes=(0.0,), rates=(1e-3,))
    runs = [run(1.0, [1.0], [2.0], one)]
    name = "resnet18 at 96 px, freeze 0.00"
    assert images_s_over_bare(one, runs, [{name: 80.0}, {name: 100.0}, {name: 300.0}]) == {name: 0.9}


def test_a_report_leaves_out_what_did_not_run():
    one = trials(freezes=(0.0,), rates=(1e-3,))
    trained, busy = {"plain": [run(8.0, [1.0], [2.0], one)]}, {"plain": [15.0]}
    said = report(
        one, Runs(trained=trained, bare_walls={"bare": [9.0]}, bare_seconds={"bare": [2.0]}, machine_cpu=busy)
    )
    assert said["plain"]["machine_cpu_seconds"] == [15.0]
    assert set(said) == {"plain", "bare"}
    assert said["plain"]["against_bare"]["wall_over_bare"] == 4.0


def test_each_side_is_measured_against_the_bare_side_of_its_own_arithmetic():
    one = trials(freezes=(0.0,), rates=(1e-3,))
    trained = {side: [run(wall, [1.0], [2.0], one)] for side, wall in {"plain": 40.0, "spine": 8.0}.items()}
    trained["spine_equal"] = [run(10.0, [1.0], [2.0], one)]
    seconds = {"bare": [4.0], "bare_equal": [5.0]}
    arithmetic = {side: {"resnet18": EQUAL} for side in trained}
    said = report(one, Runs(trained=trained, bare_walls=seconds, bare_seconds=seconds, arithmetic=arithmetic))
    assert said["spine"]["against_bare"]["share_of_wall"] == 0.5
    assert said["spine_equal"]["against_bare_equal"]["share_of_wall"] == 0.5
    assert said["plain"]["against_bare"]["wall_over_bare"] == 10.0
    assert said["plain"]["against_bare_equal"]["wall_over_bare"] == 8.0
    assert "against_bare_equal" not in said["spine"]
    assert said["spine_equal"]["against_plain"]["plain_wall_over_spine_wall"] == 4.0


@pytest.mark.skipif(not STAT.exists(), reason="Linux alone counts them here")
def test_the_machines_cpu_seconds_hold_those_of_this_process():
    before, own = machine_cpu_seconds(), time.process_time()
    while time.process_time() - own < 0.3:
        sum(range(1000))
    assert machine_cpu_seconds() - before >= 0.25


def test_log_loss_is_after_temperature_and_nan_where_a_model_diverged():
    labels = np.array([0, 1, 0, 1])
    # Right in three of four whatever the scale of the logits: best at p = 3/4.
    logits = 4.0 * np.array([[1, 0], [0, 1], [1, 0], [1, 0]], np.float32)
    assert oof_log_loss(logits, labels) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), abs=1e-4)
    logits[0, 0] = np.nan
    assert math.isnan(oof_log_loss(logits, labels))
    with pytest.raises(ValueError, match="as many rows"):
        oof_log_loss(logits[:3], labels)


def test_orders_and_results_survive_their_files(tmp_path):
    path = tmp_path / "x.json"
    order = Order(
        side="bare",
        trials=trials(),
        folder=tmp_path,
        out=tmp_path,
        loader_workers=1,
        reuse_actors=True,
        arithmetic={"resnet18": EQUAL},
    )
    write_order(order, path)
    assert read_order(path) == order
    result = SideResult({"a": 1.5}, {"resnet18": EQUAL}, {"a": 90.0})
    write_result(result, path)
    assert read_result(path) == result
