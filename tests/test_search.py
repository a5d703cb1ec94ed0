"""The command as a user runs it: real ray, real timm models, real MLflow."""

import json
import shutil
import subprocess
from pathlib import Path

import mlflow
import pyarrow.parquet as pq
import pytest

from spine_ray.study.ledger import read_ledger
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.tables import read_costs, read_samples
from spine_ray.study.trials import trials_from_events
from spine_ray.track.mlflow_log import sqlite_uri
from tests.support.tiny_search import TINY, exit_code, oof_bytes, run, run_here, write_parquet, write_pictures

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY)
    write_pictures(folder / "pictures")
    write_parquet(folder / "pictures", folder / "pictures.parquet")
    return folder


@pytest.fixture(scope="module")
def first(tiny: Path) -> subprocess.CompletedProcess[str]:
    return run(tiny, "--space", "tiny.yaml", "--data", "pictures", "--study", "first", "--workers", "1")


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("smoke")
    return folder / "studies" / "smoke-digits", run(folder, "--space", "smoke")


@pytest.mark.timeout(300)
def test_two_runs_give_byte_identical_oof_logits_from_folders_and_from_parquet(tiny: Path, first: object) -> None:
    """The first ran in another process: nothing hangs on the order in which a process keeps its sets of words."""
    again = run_here(tiny, "--space", "tiny.yaml", "--data", "pictures.parquet", "--study", "second", "--workers", "1")
    assert again.returncode == 0, again.stderr
    one, two = read_record(tiny / "first"), read_record(tiny / "second")
    assert (one.data_fingerprint, one.fold_fingerprint) == (two.data_fingerprint, two.fold_fingerprint)
    logits = oof_bytes(tiny / "first")
    assert len(logits) >= 2
    assert oof_bytes(tiny / "second") == logits


@pytest.mark.timeout(300)
def test_the_command_again_trains_nothing_that_is_finished(tiny: Path, first: object) -> None:
    ledger = (tiny / "first" / "ledger.jsonl").read_bytes()
    words = ("--space", "tiny.yaml", "--data", "pictures", "--study", "first", "--workers", "1", "--resume")
    again = run_here(tiny, *words)
    assert again.returncode == 0, again.stderr
    assert (tiny / "first" / "ledger.jsonl").read_bytes() == ledger
    assert len(read_record(tiny / "first").test_openings) == 1, "the test split is opened by the first search only"


@pytest.mark.timeout(300)
def test_smoke_ends_with_an_answer(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for part in ("Every backbone at its start recipe", "The best found", "sound after light", "plateau after mid"):
        assert part in done.stdout
    assert "opened once" in done.stdout


@pytest.mark.timeout(300)
def test_a_study_has_every_file_of_the_contract(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    study, _ = smoke
    paths = StudyPaths(study)
    record = read_record(study)
    assert record.classes == tuple("0123456789")
    assert record.weights.kind == "pretrained"
    assert set(record.weights.hashes) >= {"test_resnet", "test_vit"}
    assert paths.space("smoke").exists()
    samples = read_samples(paths.samples)
    assert (len(samples.dev), len(samples.test), samples.num_folds) == (1438, 359, 3)
    findings = json.loads(paths.audit.read_text())["findings"]
    # The scans are 8 px a side, the input 32.
    assert {finding["kind"] for finding in findings if finding["level"] != "fact"} == {"upsampled"}
    trials = trials_from_events(read_ledger(paths.ledger))
    table = {row["trial_id"]: row for row in pq.read_table(paths.trials).to_pylist()}
    assert set(table) == set(trials)
    for name, trial in trials.items():
        assert table[name]["status"] == trial.status
        assert paths.oof(name).exists() == trial.is_completed
        if trial.is_completed:
            assert read_oof(paths, name, samples).shape == (1438, 10)
    assert {key[0] for key in read_costs(paths)} >= {"test_efficientnet", "test_resnet", "test_vit"}
    assert [decision["gate"] for decision in json.loads(paths.gates.read_text())][:1] == ["sound"]
    ensemble = json.loads(paths.ensemble.read_text())
    for member in ensemble["members"]:
        assert paths.refit(member["trial_id"]).exists()
    assert len(record.test_openings) == 1
    assert paths.report.read_text().startswith("<!DOCTYPE html>")
    assert (study / "ray").is_dir()


@pytest.mark.timeout(300)
def test_mlflow_has_a_run_for_every_trial(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    study, _ = smoke
    paths = StudyPaths(study)
    client = mlflow.MlflowClient(sqlite_uri(paths.tracking))
    experiment = client.get_experiment_by_name(study.name)
    runs = client.search_runs([experiment.experiment_id], "tags.`spine.trial_id` LIKE '%'")
    tracked = {run.data.tags["spine.trial_id"] for run in runs}
    assert tracked == set(trials_from_events(read_ledger(paths.ledger)))


BAD_INPUT = {
    "unknown space": (["--space", "laddr"], "laddr"),
    "unknown key": (["--space", "tiny.yaml", "--set", "fold=3"], "folds"),
    "unknown backbone": (["--space", "tiny.yaml", "--set", "backbone=resnet5O"], "resnet50"),
    "missing data": (["--space", "tiny.yaml", "--data", "nowhere"], "nowhere"),
    "empty data": (["--space", "tiny.yaml", "--data", "empty"], "empty"),
    "one class": (["--space", "tiny.yaml", "--data", "single"], "only one class"),
    "few samples": (["--space", "tiny.yaml", "--data", "few"], "seven"),
    "no label column": (["--space", "tiny.yaml", "--data", "unlabelled.csv"], "label"),
    "resolution": (["--space", "tiny.yaml", "--set", "resolution=0"], "resolution"),
    "weights folder": (["--space", "tiny.yaml", "--weights", "empty"], "test_resnet.safetensors"),
    "weights out of reach": (["--space", "resnet50", "--data", "pictures", "--weights", "auto"], "--weights random"),
    "resume of nothing": (["--space", "tiny.yaml", "--data", "pictures", "--resume"], "--resume"),
    "budget": (["--space", "tiny.yaml", "--budget", "soon"], "soon"),
    "workers": (["--space", "tiny.yaml", "--data", "pictures", "--workers", "999"], "--workers"),
    "no such machine": (["--space", "tiny.yaml", "--data", "pictures", "--plan", "--on", "0"], "--on"),
    "this process on a cluster": (
        ["--space", "tiny.yaml", "--data", "pictures", "--workers", "0", "--address", "10.0.0.1:6379"],
        "leave one away",
    ),
    "machine without a plan": (["--space", "tiny.yaml", "--data", "pictures", "--on", "8xGPU"], "--plan"),
    "machine": (["--space", "tiny.yaml", "--data", "pictures", "--plan", "--on", "many"], "8xGPU"),
    "no word": (["--space", "tiny.yaml", "--nonsense"], "--nonsense"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
@pytest.mark.timeout(120)
def test_bad_input_is_one_clear_line_and_changes_nothing(
    case: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, told = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("pictures", "tiny.yaml"):
        (tmp_path / name).symlink_to(tiny / name)
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "few", per_class=4)
    for extra in sorted((tmp_path / "few" / "seven").iterdir())[1:]:
        extra.unlink()
    shutil.copytree(tiny / "pictures" / "zero", tmp_path / "single" / "zero")
    (tmp_path / "unlabelled.csv").write_text("path,species\npictures/one/0.png,one\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert exit_code(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.timeout(300)
def test_a_study_of_other_data_is_refused(
    tiny: Path, first: object, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny)
    write_pictures(tmp_path / "others", per_class=10)
    ledger = (tiny / "first" / "ledger.jsonl").read_bytes()
    assert exit_code(["--space", "tiny.yaml", "--data", str(tmp_path / "others"), "--study", "first"]) == 2
    assert "made from other data" in capsys.readouterr().err
    assert (tiny / "first" / "ledger.jsonl").read_bytes() == ledger
