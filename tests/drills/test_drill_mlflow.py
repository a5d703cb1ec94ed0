"""Whole searches against a real MLflow server that is absent, killed, slow or outlived by its driver."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spine_ray.study.events import EpochDone
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.track.mlflow_log import deliver
from tests.support.mlflow_server import MlflowServer, SlowProxy
from tests.support.tracked import differences

pytestmark = pytest.mark.timeout(1500)
SHARE = 0.01
"""How much of a search its tracker may keep it."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(tmp_path / "server")
    yield server
    server.kill()


def search(folder: Path, uri: str) -> subprocess.Popen[bytes]:
    words = ["--space", "smoke", "--study", "study", "--tracking", uri]
    script = Path(__file__).with_name("timed_search.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, str(script), "kept.json", *words], cwd=folder, env=environment)


def epochs_in(study: Path) -> int:
    return sum(isinstance(event, EpochDone) for event in read_ledger(StudyPaths(study).ledger))


def wait_for_epochs(process: subprocess.Popen[bytes], study: Path, number: int) -> None:
    while epochs_in(study) < number:
        assert process.poll() is None, "the search ended early"
        time.sleep(0.2)


def check_agreement(folder: Path, server: MlflowServer) -> None:
    """Let `compare` deliver what is left, then compare server and ledger run for run."""
    paths = StudyPaths(folder / "study")
    deliver(server.uri, paths)
    assert differences(server.uri, paths) == []


def check_share(folder: Path) -> None:
    """Say how long the tracker kept the search."""
    kept = json.loads((folder / "kept.json").read_text())
    share = kept["blocked_s"] / kept["search_s"]
    sys.stdout.write(f"\n{kept['blocked_s']:.3f} s of {kept['search_s']:.0f} s blocked ({share:.2%}), {kept}\n")
    assert share <= SHARE


def test_a_server_that_is_absent_from_the_start(server: MlflowServer, tmp_path: Path) -> None:
    assert search(tmp_path, server.uri).wait() == 0
    check_share(tmp_path)
    server.start()
    check_agreement(tmp_path, server)


def test_a_server_that_is_killed_in_the_middle_and_comes_back(server: MlflowServer, tmp_path: Path) -> None:
    server.start()
    process = search(tmp_path, server.uri)
    wait_for_epochs(process, tmp_path / "study", 10)
    server.kill()
    wait_for_epochs(process, tmp_path / "study", 40)
    server.start()
    assert process.wait() == 0
    check_share(tmp_path)
    check_agreement(tmp_path, server)


def test_a_server_that_takes_its_time(server: MlflowServer, tmp_path: Path) -> None:
    server.start()
    proxy = SlowProxy(server, seconds=3.0)
    assert search(tmp_path, proxy.uri).wait() == 0
    proxy.close()
    check_share(tmp_path)
    check_agreement(tmp_path, server)


@pytest.mark.parametrize("meanwhile", [lambda server: None, MlflowServer.kill], ids=["server lives", "server dies"])
def test_a_driver_that_is_killed_and_goes_on(
    server: MlflowServer, tmp_path: Path, meanwhile: Callable[[MlflowServer], None]
) -> None:
    server.start()
    for number in (8, 20, 35):
        process = search(tmp_path, server.uri)
        wait_for_epochs(process, tmp_path / "study", number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        meanwhile(server)
    server.kill()
    server.start()
    assert search(tmp_path, server.uri).wait() == 0
    check_agreement(tmp_path, server)
