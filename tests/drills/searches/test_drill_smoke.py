"""The smoke search as a newcomer runs it: the built-in sample, Ray on all cores, three tiers."""

import json
import subprocess
from pathlib import Path

import pytest

from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.trials import trials_from_events
from tests.support.study_checks import check_files, tracked_trials
from tests.support.tiny_search import oof_bytes, run, take_costs

pytestmark = [
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("smoke")
    return folder / "studies" / "smoke-digits", run(folder, "--space", "smoke")


def test_smoke_ends_with_an_answer(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for part in ("Every backbone at its start recipe", "The best found", "sound after light", "plateau after mid"):
        assert part in done.stdout
    assert "opened once" in done.stdout


def test_a_study_has_every_file_of_the_contract(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    study, _ = smoke
    assert read_record(study).classes == tuple("0123456789")
    findings = json.loads(StudyPaths(study).audit.read_text())["findings"]
    # The scans are 8 px a side, the input 32.
    assert {finding["kind"] for finding in findings if finding["level"] != "fact"} == {"upsampled"}
    check_files(study, dev=1438, test=359, folds=3)
    assert (study / "ray").is_dir()


def test_mlflow_has_a_run_for_every_trial(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    study, _ = smoke
    assert tracked_trials(study) == set(trials_from_events(read_ledger(StudyPaths(study).ledger)))


def test_in_one_process_and_on_one_worker_of_ray_the_smoke_space_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # of joblib: two threads spin where the machine has other work
    for workers in ("1", "0"):
        words = ("--space", "smoke", "--study", workers, "--workers", workers)
        if workers == "0":
            assert run(tmp_path, *words, "--plan").returncode == 0
            take_costs(tmp_path / "0", of=tmp_path / "1")
        done = run(tmp_path, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    logits = oof_bytes(tmp_path / "0")
    assert len(logits) >= 6
    assert oof_bytes(tmp_path / "1") == logits
