"""A disk that is full, and a study that nobody may write to: real file systems, with mounts of a process's own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spine_ray.study.hold import holder_of
from spine_ray.study.ledger import open_ledger, read_ledger
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.survey import mend, survey
from spine_ray.study.tables import read_costs
from tests.support.selectable_study import config, samples, write_study

TESTS = Path(__file__).parent
WRITES = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from tests.support.selectable_study import config, cost, ended, samples
from spine_ray.study.ledger import append_event
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths, replace_json
from spine_ray.study.shipped import write_refit
from spine_ray.study.tables import write_costs

paths, kind, each = StudyPaths(Path(sys.argv[1])), sys.argv[2], config("swin")
filler = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
doing = {
    "oof": lambda: write_oof(paths, each.trial_id, samples(), filler[:900].reshape(300, 3)),
    "costs": lambda: write_costs(paths, [replace(cost(each), macs=i, peak_mb=float(filler[i])) for i in range(20_000)]),
    "ledger": lambda: [append_event(paths.ledger, replace(ended(each), time=float(i))) for i in range(20_000)],
    "ensemble": lambda: replace_json(paths.ensemble, ["x" * 4_000_000]),
    "weights": lambda: write_refit(paths, each.trial_id, {"head": filler}, frozen_hash="random", data_version="rows"),
}
try:
    doing[kind]()
except ValueError as error:
    print(error)
    sys.exit(2)
"""
FILES = {
    "costs": "costs.parquet",
    "ledger": "ledger.jsonl",
    "ensemble": "ensemble.json",
    "weights": "refit.safetensors",
    "oof": ".parquet",
}
ON_FULL_DISK = """
mount -t tmpfs -o size=1500k tmpfs "$2"
cp -r "$1" "$2/study"
[ "$4" = ledger ] || head -c 10000000 /dev/zero > "$2/filler" 2> /dev/null || true
"$3" -c "$5" "$2/study" "$4" || echo "exit code $?"
rm -f "$2/filler"
cp -r "$2/study" "$2.after"
"""
READ_ONLY = """
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
shift
"$@"
"""


def in_namespace(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script with mounts of its own: as root, or as anybody where the system allows that."""
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "HF_HUB_OFFLINE": "1"}
    for command in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            whole = [*command, "sh", "-ec", script, "sh", *map(str, words)]
            return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=100, check=False)
    pytest.skip("this system gives no process mounts of its own, so there is no real full or read-only disk to be had")


@pytest.fixture
def study(tmp_path: Path) -> StudyPaths:
    return write_study(tmp_path / "study")


def check_nothing_is_lost(paths: StudyPaths) -> None:
    """See that a study opens with all that was finished, and with no rest of what was being written."""
    mend(paths)
    assert survey(paths).lines == ()
    assert not list(paths.root.rglob("*.part"))
    assert len(read_oof(paths, config("swin").trial_id, samples())) == 300
    assert len(read_costs(paths)) == 5
    assert {event.trial_id for event in read_ledger(paths.ledger)} >= {config("swin").trial_id}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.timeout(100)
def test_a_full_disk_is_one_line_and_costs_nothing_that_was_finished(
    study: StudyPaths, tmp_path: Path, kind: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = in_namespace(ON_FULL_DISK, study.root, disk, sys.executable, kind, WRITES)
    assert done.stderr == ""
    line, code = done.stdout.splitlines()
    assert code == "exit code 2"
    assert f"{FILES[kind]} cannot be written: No space left on device (" in line
    assert "make room and give the same command again: what is finished is kept" in line
    check_nothing_is_lost(StudyPaths(tmp_path / "disk.after"))


@pytest.mark.parametrize("kind", ["costs", "ledger", "ensemble", "weights"])
@pytest.mark.timeout(100)
def test_a_file_that_may_not_grow_is_one_line_and_costs_nothing_that_was_finished(study: StudyPaths, kind: str) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))"
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
    command = [sys.executable, "-c", f"{limited}\n{WRITES}", str(study.root), kind]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert f"{FILES[kind]} cannot be written: File too large" in done.stdout
    assert done.stdout.count("\n") == 1
    check_nothing_is_lost(study)


@pytest.mark.timeout(100)
def test_a_ledger_that_was_torn_by_a_full_disk_goes_on_where_it_was(study: StudyPaths, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    in_namespace(ON_FULL_DISK, study.root, disk, sys.executable, "ledger", WRITES)
    paths = StudyPaths(tmp_path / "disk.after")
    found = open_ledger(paths.ledger)
    assert len(found.events) > 1000
    assert found.lost == 0


@pytest.mark.timeout(100)
def test_a_study_that_nobody_may_write_to_can_be_looked_at(study: StudyPaths) -> None:
    python = (sys.executable, "-m")
    subprocess.run([*python, "spine_ray.select", study.root], cwd=TESTS.parent, check=True, capture_output=True)
    shown = in_namespace(READ_ONLY, study.root, *python, "spine_ray.select", study.root, "--show")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "Pooled by" in shown.stdout


@pytest.mark.parametrize("words", [("spine_ray.select",), ("spine_ray.search", "--space", "smoke", "--study")])
@pytest.mark.timeout(100)
def test_a_study_that_nobody_may_write_to_is_refused_in_one_line(study: StudyPaths, words: tuple[str, ...]) -> None:
    refused = in_namespace(READ_ONLY, study.root, sys.executable, "-m", *words, study.root)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "study.lock cannot be written: Read-only file system; the folder must be writable" in refused.stderr
    assert holder_of(study) is None
