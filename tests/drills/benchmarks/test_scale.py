"""The driver on a simulated clock: few trials, so that a second is enough."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.curves import Curves, keep, read_curves
from benchmarks.scale import SPACE
from benchmarks.scale_driver import Load, Simulation, simulate
from spine_ray.space.load import load_space
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tracking import keep_tracking
from spine_ray.study.trials import trials_from_events
from spine_ray.track.mlflow_log import Tracker, sqlite_uri

pytestmark = pytest.mark.timeout(180)
LOAD = Load(
    trials=24, slots=4, epoch_s=60.0, seed=0, ray_result_s=0.0, ray_trial_s=0.0, is_cpu_time=True, known=0, tracked=0
)


@pytest.fixture(scope="module")
def curves() -> Curves:
    return read_curves()


def run(folder: Path, curves: Curves, load: Load = LOAD) -> Simulation:
    paths = StudyPaths(folder)
    tracker = Tracker(sqlite_uri(paths.tracking), keep_tracking(paths, None), paths, [])
    try:
        return simulate(load, load_space(str(SPACE)), curves, folder, tracker)
    finally:
        tracker.close()


@pytest.fixture(scope="module")
def played(curves: Curves, tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return run(tmp_path_factory.mktemp("scale"), curves)


def test_every_trial_ends_in_the_ledger_and_losers_are_stopped(played: Simulation) -> None:
    trials = trials_from_events(read_ledger(played.paths.ledger))
    assert len(trials) == LOAD.trials
    assert {trial.status for trial in trials.values()} == {"completed", "stopped"}
    assert len(played.meter.suggest_s) == LOAD.trials + 1  # the last asks in vain
    assert len(played.meter.result_s) == len(played.meter.epochs) == sum(len(each.epochs) for each in trials.values())


def test_no_more_trains_at_once_than_there_are_slots(played: Simulation) -> None:
    for began, _ in played.meter.epochs:
        at_once = sum(start <= began < start + seconds for start, seconds in played.meter.epochs)
        assert at_once <= LOAD.slots


def test_workers_wait_while_the_driver_is_busy(played: Simulation, curves: Curves, tmp_path: Path) -> None:
    assert played.meter.busy_share(LOAD.slots) > 0.9
    slow = run(tmp_path, curves, replace(LOAD, ray_result_s=30.0))
    # Four workers with epochs of about 60 s need 120 s of this driver for every 60 s of theirs.
    assert 0.3 < slow.meter.busy_share(LOAD.slots) < 0.7


def test_the_same_seed_is_the_same_search(played: Simulation, curves: Curves, tmp_path: Path) -> None:
    tried = [list(each.known.trials) for each in (played, run(tmp_path, curves, replace(LOAD, slots=4)))]
    assert tried[0][:8] == tried[1][:8]  # later, the driver's own time decides which of two results comes first


def test_a_search_comes_back_to_the_trials_that_were_there(curves: Curves, tmp_path: Path) -> None:
    played = run(tmp_path, curves, replace(LOAD, known=16))
    assert len(trials_from_events(read_ledger(played.paths.ledger))) == LOAD.trials
    assert len(played.meter.suggest_s) == LOAD.trials - 16 + 1


def test_a_drawn_trial_is_a_function_of_configuration_and_seed_and_as_long_as_asked(curves: Curves) -> None:
    config = curves.curves[0].config
    drawn = curves.draw(config, 0, 60.0)
    assert drawn == curves.draw(config, 0, 60.0) != curves.draw(config, 1, 60.0)
    assert sum(epoch.seconds for epoch in drawn) / len(drawn) == pytest.approx(60.0, rel=0.5)
    assert [epoch.step for epoch in drawn] == [turn[0] for turn in curves.curves[0].turns]


def test_a_drawn_trial_is_worse_the_further_its_rate_is_from_the_real_one(curves: Curves) -> None:
    config = curves.curves[0].config
    losses = []
    for factor in (1.0, 10.0, 100.0):
        off = replace(config, recipe=replace(config.training, lr=config.training.lr * factor))
        losses.append(sum(curves.draw(off, seed, 60.0)[-1].log_loss for seed in range(20)))
    assert losses == sorted(losses)


def test_curves_are_read_as_they_were_kept(curves: Curves, tmp_path: Path) -> None:
    keep(curves, tmp_path / "curves.json")
    assert read_curves(tmp_path / "curves.json") == curves
