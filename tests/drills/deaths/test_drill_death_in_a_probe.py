"""Deaths in the middle of a probe: features on disk stay, and the end is that of a search left in peace."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spine_ray.study.events import EpochDone
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from tests.support.deaths import command_of, descendants, ensemble_of
from tests.support.patience import PATIENCE_S
from tests.support.tiny_search import ROOT, oof_bytes, write_pictures

pytestmark = pytest.mark.timeout(1200)

SPACE = f"""
folds: 3
resolution: 192
freeze: 1.0
weights: {ROOT}/search_spaces/small_weights
backbone: [test_resnet, edgenext_xx_small]
"""
WORDS = ("--space", "probes.yaml", "--data", "pictures")
PER_CLASS = 170


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pictures, a space of two probes, and a study that was searched in peace."""
    folder = tmp_path_factory.mktemp("probes")
    write_pictures(folder / "pictures", PER_CLASS)
    (folder / "probes.yaml").write_text(SPACE)
    assert searching(folder, "calm", "0").wait(PATIENCE_S) == 0, output_of(folder, "calm")
    yield folder


def searching(folder: Path, study: str, workers: str, *more: str) -> subprocess.Popen[bytes]:
    """Start a search whose cache is its own: what another computed is not there."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "SPINE_RAY_CACHE": str(folder / f"{study}-cache"),
    }  # fmt: skip
    command = [sys.executable, "-m", "spine_ray.search", *WORDS, "--study", study, "--workers", workers, *more]
    with (folder / f"{study}.log").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def output_of(folder: Path, study: str) -> str:
    return (folder / f"{study}.log").read_text()


def wait_for_the_middle(folder: Path, study: str, process: subprocess.Popen[bytes]) -> list[Path]:
    """Wait until the second probe has its first chunk of features, and a little more; return what is on the disk."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert process.poll() is None, output_of(folder, study)
        entries = {path.parent for path in (folder / f"{study}-cache").rglob("from-000000000.npy")}
        if len(entries) == 2:
            time.sleep(0.2)
            return sorted(path for entry in entries for path in entry.glob("from-*.npy"))
        time.sleep(0.02)
    raise AssertionError(f"no second probe began: {output_of(folder, study)}")


def check_that_they_are_one(folder: Path, study: str, chunks: dict[Path, int]) -> None:
    assert oof_bytes(folder / study) == oof_bytes(folder / "calm")
    assert ensemble_of(folder / study)["hash"] == ensemble_of(folder / "calm")["hash"]  # costs differ from run to run
    events = read_ledger(StudyPaths(folder / study).ledger)
    steps = [event.trial_id for event in events if isinstance(event, EpochDone)]
    assert sorted(steps) == sorted(set(steps)), "no probe was solved twice"
    assert {path: path.stat().st_mtime_ns for path in chunks} == chunks, "no chunk was computed twice"


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_search_that_dies_in_a_probe_goes_on_from_its_last_chunk(sent: signal.Signals, folder: Path) -> None:
    study = sent.name
    process = searching(folder, study, "0")
    chunks = wait_for_the_middle(folder, study, process)
    process.send_signal(sent)
    assert process.wait(PATIENCE_S) == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    trials = trials_from_events(read_ledger(StudyPaths(folder / study).ledger))
    assert sum(trial.is_completed for trial in trials.values()) == 1
    times = {path: path.stat().st_mtime_ns for path in chunks}
    assert searching(folder, study, "0", "--resume").wait(PATIENCE_S) == 0, output_of(folder, study)
    check_that_they_are_one(folder, study, times)


def test_a_worker_that_dies_in_a_probe_is_replaced_and_goes_on_from_its_last_chunk(folder: Path) -> None:
    process = searching(folder, "worker", "1")
    chunks = wait_for_the_middle(folder, "worker", process)
    times = {path: path.stat().st_mtime_ns for path in chunks}
    (worker,) = [pid for pid in descendants(process.pid) if command_of(pid).startswith("ray::Worker")]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 0, output_of(folder, "worker")
    check_that_they_are_one(folder, "worker", times)
