import json
from pathlib import Path

import pytest

from spine_ray.study.ledger import append_event, read_ledger
from spine_ray.study.paths import StudyPaths, replace_json
from spine_ray.study.tracking import keep_tracking
from spine_ray.track.client import Client
from spine_ray.track.mlflow_log import sqlite_uri
from spine_ray.track.runs import StudyRuns
from tests.support.tracked import differences, ended, epoch, runs_of, started, whole_trial

pytestmark = [
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sqlite_uri(tmp_path_factory.mktemp("store") / "mlflow.db")


def open_runs(uri: str, paths: StudyPaths) -> StudyRuns:
    return StudyRuns(Client(uri, paths.root.name, keep_tracking(paths, None).study_id), paths)


def deliver(uri: str, paths: StudyPaths) -> None:
    runs = open_runs(uri, paths)
    runs.deliver(read_ledger(paths.ledger))
    runs.refresh()
    runs.end()


def record(paths: StudyPaths, *events) -> None:
    paths.root.mkdir(exist_ok=True)
    for event in events:
        append_event(paths.ledger, event)


def test_a_live_trial_runs_until_the_end(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "live"), started()
    record(paths, start)
    runs = open_runs(uri, paths)
    runs.follow([start, epoch(start.trial_id, 1)])
    assert {run.info.status for run in runs_of(uri, paths)[1]} == {"RUNNING"}
    record(paths, epoch(start.trial_id, 1))
    runs.end()
    assert differences(uri, paths) == []
    runs.follow([epoch(start.trial_id, 2)])
    assert {run.info.status for run in runs_of(uri, paths)[1]} == {"RUNNING"}


def test_an_epoch_that_was_trained_again_replaces_the_one_before(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "again"), started()
    record(paths, start, epoch(start.trial_id, 1), epoch(start.trial_id, 2, seconds=0.2))
    deliver(uri, paths)
    record(paths, start, epoch(start.trial_id, 2, seconds=0.3), epoch(start.trial_id, 3), ended(start.trial_id))
    deliver(uri, paths)
    assert differences(uri, paths) == []


def test_a_trial_on_other_rows_is_another_run_and_the_finished_one_is_kept(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "rows"), started()
    record(paths, *whole_trial(start))
    deliver(uri, paths)
    record(paths, started(rows="more rows"), epoch(start.trial_id, 1, seconds=5.0))
    deliver(uri, paths)
    assert differences(uri, paths) == []
    kinds = sorted(run.data.tags["spine.kind"] for run in runs_of(uri, paths)[1])
    assert kinds == ["earlier", "tier", "trial"]


def test_of_two_runs_for_one_trial_the_fuller_stays(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "twice"), started()
    record(paths, *whole_trial(start))
    deliver(uri, paths)
    client, before = runs_of(uri, paths)
    # As a request leaves it that timed out here and was carried out there.
    tags = {"spine.kind": "trial", "spine.trial_id": start.trial_id}
    client.create_run(before[0].info.experiment_id, tags=tags, run_name=start.trial_id)
    assert any("two runs" in line for line in differences(uri, paths))
    deliver(uri, paths)
    assert differences(uri, paths) == []
    assert {run.info.run_id for run in runs_of(uri, paths)[1]} == {run.info.run_id for run in before}


def test_nothing_is_written_twice(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "once"), started()
    record(
        paths,
        *whole_trial(start, "failed", "loss is nan"),
        started(64),
        epoch(started(64).trial_id, 1, 0.5, float("nan")),
    )
    for _ in range(3):
        deliver(uri, paths)
    assert differences(uri, paths) == []
    client, runs = runs_of(uri, paths)
    for run in runs:
        for key in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps)), key


def test_many_epochs_take_more_than_one_request(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "many"), started()
    record(paths, start, *(epoch(start.trial_id, step, seconds=1 / step) for step in range(1, 151)))
    deliver(uri, paths)
    assert differences(uri, paths) == []


def ensemble(log_loss: float, trial_id: str) -> dict[str, object]:
    gain = {"gain": 0.1, "low": 0.05, "high": 0.15}
    return {
        "hash": "abc",
        "members": [{"trial_id": trial_id, "weight": 1.0}],
        "pool": "log",
        "best_single": trial_id,
        "report": {"log_loss": log_loss, "accuracy": 0.9, "cost": 2.0, "cross_fit": gain, "apparent": gain},
        "test": [{"log_loss": 0.3, "accuracy": 0.8}],
    }


def test_the_ensemble_is_a_run_with_its_members_and_one_at_a_time(uri: str, tmp_path: Path) -> None:
    paths, start = StudyPaths(tmp_path / "ensemble"), started()
    record(paths, *whole_trial(start))
    for log_loss in (0.25, 0.25, 0.2):
        replace_json(paths.ensemble, ensemble(log_loss, start.trial_id))
        deliver(uri, paths)
    client, runs = runs_of(uri, paths)
    kinds = sorted(run.data.tags["spine.kind"] for run in runs)
    assert kinds == ["earlier", "ensemble", "tier", "trial"]
    child = next(run for run in runs if run.data.tags["spine.kind"] == "trial")
    found = next(run for run in runs if run.data.tags["spine.kind"] == "ensemble")
    assert found.data.metrics["oof_log_loss"] == 0.2
    assert found.data.metrics["test_accuracy"] == 0.8
    assert found.data.params["members"] == start.trial_id
    assert child.info.run_id in found.data.tags["mlflow.note.content"]
    assert [file.path for file in client.list_artifacts(found.info.run_id)] == ["ensemble.json"]
    assert json.loads(Path(client.download_artifacts(found.info.run_id, "ensemble.json")).read_text())["hash"] == "abc"


def test_two_studies_of_one_name_on_one_server_are_two_experiments(uri: str, tmp_path: Path) -> None:
    for place in ("here", "there"):
        paths = StudyPaths(tmp_path / place / "digits")
        paths.root.mkdir(parents=True)
        record(paths, *whole_trial(started()))
        deliver(uri, paths)
        assert differences(uri, paths) == []
    client, _ = runs_of(uri, paths)
    names = [each.name for each in client.search_experiments() if each.name.startswith("digits")]
    assert len(names) == 2


def test_a_study_that_was_moved_gets_its_files_where_it_is(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path / "old")
    record(paths, *whole_trial(started()))
    deliver(sqlite_uri(paths.tracking), paths)
    moved = StudyPaths(paths.root.rename(tmp_path / "new"))
    deliver(sqlite_uri(moved.tracking), moved)
    assert differences(sqlite_uri(moved.tracking), moved) == []
    _, runs = runs_of(sqlite_uri(moved.tracking), moved)
    assert all(run.info.artifact_uri.startswith((moved.root / "mlruns").as_uri()) for run in runs)
