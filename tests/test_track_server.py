"""The tracker against a real MLflow server that dies, comes back and dawdles."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from spine_ray.track.mlflow_log import deliver
from tests.support.mlflow_server import MlflowServer, SlowProxy
from tests.support.patience import PATIENCE_S, overtime, wait_for
from tests.support.tracked import Driver, differences, ended, epoch, started, whole_trial

pytestmark = pytest.mark.long


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
            wait_for(lambda: driver.tracker._runs)  # it has begun to tell of the first four
            server.kill()
        if number == 8:
            wait_for(lambda: driver.tracker._is_away)
            server.start()
        driver.record(*whole_trial(started(32 + number, tier="mid" if number % 2 else "light")))
    driver.record(started(99), epoch(started(99).trial_id, 1))
    driver.tracker.close(PATIENCE_S)
    assert driver.blocked_s < overtime()
    deliver(server.uri, driver.paths)
    assert differences(server.uri, driver.paths) == []


def test_a_slow_server_is_not_waited_for(server: MlflowServer, tmp_path: Path) -> None:
    proxy = SlowProxy(server)
    proxy.goes_on.clear()
    driver = Driver(tmp_path / "slow", proxy.uri)
    for number in range(4):
        driver.record(*whole_trial(started(32 + number), "stopped", "ASHA"))
        wait_for(lambda: proxy.asked)
    assert driver.blocked_s < overtime()
    driver.close()
    assert proxy.answered == 0
    proxy.goes_on.set()
    driver.tracker._thread.join()
    proxy.close()
    deliver(server.uri, driver.paths)
    assert differences(server.uri, driver.paths) == []


def test_a_request_that_timed_out_and_was_carried_out_leaves_no_second_run(
    server: MlflowServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    proxy = SlowProxy(server, late_runs=2)  # the tier's, and the trial's
    driver, start = Driver(tmp_path / "late", proxy.uri), started()
    driver.record(start, epoch(start.trial_id, 1))
    wait_for(lambda: not proxy.late_runs)
    driver.tracker.close(PATIENCE_S)
    proxy.close()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    last = Driver(tmp_path / "late", server.uri)
    last.record(epoch(start.trial_id, 2), epoch(start.trial_id, 3), ended(start.trial_id))
    last.tracker.close(PATIENCE_S)
    assert differences(server.uri, last.paths) == []
