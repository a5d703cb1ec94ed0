import logging
import sqlite3
from pathlib import Path

import pytest

from spine_ray.study.paths import StudyPaths
from spine_ray.track.mlflow_log import check_uri, deliver, public_uri, sqlite_uri
from tests.support.patience import PATIENCE_S, overtime, wait_for
from tests.support.tracked import Driver, differences, ended, epoch, runs_of, started, whole_trial

DEAD = "http://user:secret@127.0.0.1:9"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sqlite_uri(tmp_path_factory.mktemp("store") / "mlflow.db")


def test_what_is_put_is_in_mlflow_when_the_tracker_is_closed(uri: str, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "structure", uri)
    light, mid = started(32), started(64, tier="mid")
    driver.record(*whole_trial(light), *whole_trial(mid, "stopped", "ASHA at step 3"))
    driver.record(started(96), epoch(started(96).trial_id, 1))
    driver.tracker.close(PATIENCE_S)
    assert differences(uri, driver.paths) == []
    named = {run.info.run_name: run for run in runs_of(uri, driver.paths)[1]}
    child, stopped = named[light.trial_id], named[mid.trial_id]
    assert child.data.metrics["oof_log_loss"] == 1 / 3
    assert child.data.metrics["total_seconds"] == 0.3
    assert child.data.metrics["cost_macs"] == 18.0
    assert "oof_log_loss" not in stopped.data.metrics
    assert {named[name].info.status for name in ("light", "mid")} == {"FINISHED"}


def test_a_dead_server_costs_no_time_and_what_it_missed_is_delivered(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(tmp_path / "missed", DEAD)
    with caplog.at_level(logging.WARNING, logger="spine_ray"):
        for resolution in range(32, 52):
            driver.record(*whole_trial(started(resolution), "failed", "out of memory"))
        assert driver.blocked_s < overtime()
        driver.close()
    assert "secret" not in caplog.text
    assert len([record for record in caplog.records if record.name.startswith("spine_ray")]) <= 2
    deliver(uri, driver.paths)
    assert differences(uri, driver.paths) == []
    deliver(uri, driver.paths)
    assert differences(uri, driver.paths) == []


def test_what_a_killed_driver_had_not_told_the_next_one_does(uri: str, tmp_path: Path) -> None:
    start = started()
    first = Driver(tmp_path / "killed", uri)
    first.record(start, epoch(start.trial_id, 1))
    first.tracker.close(PATIENCE_S)
    # In the ledger, and lost with the process that was to tell MLflow:
    dead = Driver(tmp_path / "killed", DEAD)
    dead.record(*whole_trial(started(64)), epoch(start.trial_id, 2))
    dead.tracker.close(0)
    second = Driver(tmp_path / "killed", uri)
    second.record(epoch(start.trial_id, 3), ended(start.trial_id))
    second.tracker.close(PATIENCE_S)
    assert differences(uri, second.paths) == []


def test_a_store_that_comes_back_gets_what_it_missed(tmp_path: Path) -> None:
    start, folder = started(), tmp_path / "store"
    folder.write_text("a file where the store's folder should be")
    uri = sqlite_uri(folder / "mlflow.db")
    driver = Driver(tmp_path / "away", uri)
    driver.record(start, epoch(start.trial_id, 1))
    wait_for(lambda: driver.tracker._is_away)
    folder.unlink()
    driver.record(epoch(start.trial_id, 2), epoch(start.trial_id, 3), ended(start.trial_id))
    wait_for(lambda: not driver.tracker._is_away)
    driver.tracker.close(PATIENCE_S)
    assert differences(uri, driver.paths) == []


def test_a_locked_database_holds_nobody_up(tmp_path: Path) -> None:
    database = tmp_path / "locked" / "mlflow.db"
    driver = Driver(tmp_path / "locked", sqlite_uri(database))
    driver.record(*whole_trial(started(32)))
    wait_for(lambda: driver.tracker._told == 5)
    with sqlite3.connect(database) as other:
        other.execute("BEGIN EXCLUSIVE")
        driver.record(*whole_trial(started(64)))
        assert driver.blocked_s < overtime()
        driver.tracker.close(1.0)
        other.rollback()
    driver.tracker._thread.join()  # in a search, the process would be gone
    deliver(sqlite_uri(database), driver.paths)
    assert differences(sqlite_uri(database), driver.paths) == []


def test_a_store_that_refuses_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 does not take") as raised:
        deliver(DEAD, StudyPaths(tmp_path))
    assert "secret" not in str(raised.value)


def test_a_uri_is_shown_without_its_password() -> None:
    assert public_uri(DEAD) == "http://127.0.0.1:9"
    assert public_uri("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


@pytest.mark.parametrize("uri", ["mlruns", "htp://server", "./mlflow.db"])
def test_a_uri_that_mlflow_does_not_know_is_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="--tracking"):
        check_uri(uri)
