"""The tracker against a real MLflow server that dies, comes back and dawdles."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spine_ray.track.mlflow_log import deliver
from tests.support.mlflow_server import MlflowServer, SlowProxy
from tests.support.tracked import Driver, differences, ended, epoch, started, whole_trial

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]


@pytest.fixture(scope="module")
def lasting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    yield server
    server.kill()


@pytest.fixture
def server(lasting_server: MlflowServer) -> MlflowServer:
    """One that runs, whatever the test before did to it."""
    lasting_server.start()
    return lasting_server


def test_a_server_killed_in_the_middle_has_everything_in_the_end(server: MlflowServer, tmp_path: Path) -> None:
    driver = Driver(tmp_path / "killed", server.uri)
    for number in range(12):
        if number == 4:
            server.kill()
        if number == 8:
            server.start()
        driver.record(*whole_trial(started(32 + number, tier="mid" if number % 2 else "light")))
        time.sleep(0.3)
    driver.record(started(99), epoch(started(99).trial_id, 1))
    driver.tracker.close(60)
    assert driver.blocked_s < 0.1
    deliver(server.uri, driver.paths)
    assert differences(server.uri, driver.paths) == []


def test_a_slow_server_is_not_waited_for(server: MlflowServer, tmp_path: Path) -> None:
    proxy = SlowProxy(server, seconds=0.5)
    driver = Driver(tmp_path / "slow", proxy.uri)
    for number in range(4):
        driver.record(*whole_trial(started(32 + number), "stopped", "ASHA"))
    assert driver.blocked_s < 0.1
    begin = time.monotonic()
    driver.tracker.close()
    assert time.monotonic() - begin < 1.5
    driver.tracker._thread.join()
    proxy.close()
    deliver(server.uri, driver.paths)
    assert differences(server.uri, driver.paths) == []


def test_a_request_that_timed_out_and_was_carried_out_leaves_no_second_run(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy = SlowProxy(server, seconds=1.5)
    driver, start = Driver(tmp_path / "late", proxy.uri), started()
    driver.record(start, epoch(start.trial_id, 1))
    driver.tracker.close(8)
    proxy.close()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    last = Driver(tmp_path / "late", server.uri)
    last.record(epoch(start.trial_id, 2), epoch(start.trial_id, 3), ended(start.trial_id))
    last.tracker.close(60)
    assert differences(server.uri, last.paths) == []
