"""The command as a user runs it: real ray, real timm models, real MLflow."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spine_ray.predict import main as predict_main
from spine_ray.select import main as select_main
from spine_ray.space.config import TrialConfig
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.tables import cost_key, read_samples
from spine_ray.study.trials import trials_from_events
from tests.support.study_checks import check_files, tracked_trials
from tests.support.tiny_search import WORDS, exit_code, oof_bytes, run, run_here, take_costs, write_pictures

pytestmark = pytest.mark.long

SHORT = (
    *("--space", "smoke", "--data", "pictures", "--study", "short", "--workers", "0"),
    *("--set", "freeze=1.0"),  # probes alone
)


@pytest.fixture(scope="module")
def first(tiny_search: Path) -> subprocess.CompletedProcess[str]:
    """A search on Ray, in a process of its own."""
    return run(tiny_search, *WORDS, "--study", "first", "--workers", "1")


@pytest.fixture(scope="module")
def smoke(tiny_search: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The smoke space on a few pictures."""
    words = ("--space", "smoke", "--data", "pictures", "--study", "smoke", "--workers", "0")
    return tiny_search / "smoke", run_here(tiny_search, *words)


def test_in_this_process_and_on_ray_oof_logits_are_the_same_bytes_from_folders_and_from_parquet(
    tiny_search: Path, first: subprocess.CompletedProcess[str]
) -> None:
    """Nothing hangs on who trains, nor on the order in which a process keeps its sets of words."""
    assert first.returncode == 0, first.stderr
    words = ("--space", "tiny.yaml", "--data", "pictures.parquet", "--study", "second", "--workers", "0")
    assert run_here(tiny_search, *words, "--plan").returncode == 0
    take_costs(tiny_search / "second", of=tiny_search / "first")
    again = run_here(tiny_search, *words)
    assert again.returncode == 0, again.stderr
    one, two = read_record(tiny_search / "first"), read_record(tiny_search / "second")
    assert (one.data_fingerprint, one.fold_fingerprint) == (two.data_fingerprint, two.fold_fingerprint)
    logits = oof_bytes(tiny_search / "first")
    assert len(logits) >= 2
    assert oof_bytes(tiny_search / "second") == logits


def test_the_command_again_trains_nothing_that_is_finished(tiny_search: Path, first: object) -> None:
    ledger = (tiny_search / "first" / "ledger.jsonl").read_bytes()
    again = run_here(tiny_search, *WORDS, "--study", "first", "--workers", "0", "--resume")
    assert again.returncode == 0, again.stderr
    assert (tiny_search / "first" / "ledger.jsonl").read_bytes() == ledger
    openings = read_record(tiny_search / "first").test_openings
    assert len(openings) == 1, "the test split is opened by the first search only"


def test_smoke_ends_with_an_answer(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, done = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for part in ("Every backbone by its probe", "Every backbone at its start recipe", "The best found"):
        assert part in done.stdout
    for part in ("sound after light", "best answer so far: "):
        assert part in done.stdout
    assert "opened once" in done.stdout


def test_a_study_has_every_file_of_the_contract(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    study, _ = smoke
    check_files(study, dev=72, test=18, folds=3)


def test_every_backbone_is_probed_first_and_probes_do_not_count_as_trials(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    study, _ = smoke
    trials = list(trials_from_events(read_ledger(StudyPaths(study).ledger)).values())
    probes, fine_tunes = trials[:6], trials[6:]
    assert {trial.config.backbone for trial in probes if trial.config.is_probe} == {
        "test_efficientnet", "test_byobnet", "test_resnet", "test_convnext", "test_vit", "test_vit2",
    }  # fmt: skip
    assert all(trial.is_completed and not trial.started.is_start for trial in probes)
    assert not any(trial.config.is_probe for trial in fine_tunes)
    for tier in dict.fromkeys(trial.started.tier for trial in fine_tunes):
        assert sum(trial.started.tier == tier for trial in fine_tunes) in (4, 8), "of 4, or of one more round"
    assert all(StudyPaths(study).probe_heads(trial.trial_id).exists() for trial in probes)


def test_gates_look_at_the_light_probes_first_and_compare_at_a_stage(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    study, done = smoke
    sound, *plateaus = json.loads(StudyPaths(study).gates.read_text())
    assert (sound["gate"], sound["after"], "stage" in sound["numbers"]) == ("sound", "light", False)
    assert plateaus
    for plateau in plateaus:
        assert (plateau["gate"], plateau["numbers"]["stage"]) == ("plateau", "searched")
        assert "(compared at their best fine-tunes)" in plateau["reason"]
    said = (
        "light: Is there a signal at all? (probes)",
        "gate sound after light",
        "light: Is there a signal at all? (4",
    )
    places = [done.stdout.index(each) for each in said]
    assert places == sorted(places)


@pytest.fixture(scope="module")
def short(tiny_search: Path) -> subprocess.CompletedProcess[str]:
    """A search with less time than an answer takes."""
    return run_here(tiny_search, *SHORT, "--budget", "1s")


@pytest.fixture(scope="module")
def finished(tiny_search: Path, short: object) -> tuple[bytes, subprocess.CompletedProcess[str]]:
    """The ledger of that search, and what --finish printed."""
    ledger = StudyPaths(tiny_search / "short").ledger.read_bytes()
    return ledger, run_here(tiny_search, *SHORT, "--finish")


def test_a_budget_that_holds_no_probe_is_refused_with_the_least_that_would_do(
    tiny_search: Path, short: subprocess.CompletedProcess[str]
) -> None:
    assert short.returncode == 2
    (line,) = short.stderr.strip().splitlines()
    found = re.match(
        r"error: --budget 1s is too short for one probe with its answer: the least that would do is (\d+)s\.", line
    )
    assert found is not None
    assert int(found[1]) >= 10 and int(found[1]) % 10 == 0
    assert "--finish answers from it" in line
    (probe,) = trials_from_events(read_ledger(StudyPaths(tiny_search / "short").ledger)).values()
    assert probe.config.is_probe and probe.is_completed, "what was done is kept"
    assert not StudyPaths(tiny_search / "short").ensemble.exists()


def test_finish_answers_from_what_is_there(
    tiny_search: Path, finished: tuple[bytes, subprocess.CompletedProcess[str]]
) -> None:
    paths, (ledger, done) = StudyPaths(tiny_search / "short"), finished
    assert done.returncode == 0, done.stderr
    assert paths.ledger.read_bytes() == ledger, "nothing was trained"
    (member,) = json.loads(paths.ensemble.read_text())["members"]
    assert "-probe-" in member["trial_id"]
    assert paths.refit(member["trial_id"]).exists()
    assert len(read_record(paths.root).test_openings) == 1
    assert paths.report.exists()
    assert not paths.plan.exists()


def test_a_search_of_probes_alone_goes_on_after_the_one_that_was_made(
    tiny_search: Path, finished: tuple[bytes, subprocess.CompletedProcess[str]]
) -> None:
    done = run_here(tiny_search, *SHORT)
    assert done.returncode == 0, done.stderr
    paths = StudyPaths(tiny_search / "short")
    assert paths.ledger.read_bytes().startswith(finished[0]), "what was made is kept"
    trials = trials_from_events(read_ledger(paths.ledger)).values()
    assert len(trials) == 6
    assert all(trial.config.is_probe and trial.is_completed and not trial.resumed for trial in trials)
    assert "The best found of every backbone is among the rows above." in done.stdout
    assert len(read_record(paths.root).test_openings) == 1, "opened by the first answer only"


def test_finish_of_a_study_in_which_nothing_was_completed_says_so(tiny_search: Path) -> None:
    words = ("--space", "tiny.yaml", "--data", "pictures", "--study", "empty", "--workers", "0")
    assert run_here(tiny_search, *words, "--plan").returncode == 0
    done = run_here(tiny_search, *words, "--finish")
    assert done.returncode == 3
    assert "stopped: no trial was completed, so there is nothing to choose from" in done.stdout
    assert StudyPaths(tiny_search / "empty").ledger.read_bytes() == b""


def test_mlflow_has_a_run_for_every_trial(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    study, _ = smoke
    assert tracked_trials(study) == set(trials_from_events(read_ledger(StudyPaths(study).ledger)))


def finish_without_time(tiny_search: Path, paths: StudyPaths) -> tuple[set[str], set[str]]:
    """Return the trials that stayed in the choice and the members chosen, where the budget holds no refit."""
    ledger = paths.ledger.read_bytes()
    words = ("--space", "smoke", "--data", "pictures", "--study", "smoke", "--workers", "0")
    done = run_here(tiny_search, *words, "--finish", "--budget", "0.01s")
    assert done.returncode == 0, done.stderr
    assert paths.ledger.read_bytes() == ledger
    left_out = re.findall(r"(\S+) is left out of the choice: the budget does not hold its refit", done.stdout)
    completed = {name for name, each in trials_from_events(read_ledger(paths.ledger)).items() if each.is_completed}
    members = {each["trial_id"] for each in json.loads(paths.ensemble.read_text())["members"]}
    return completed - set(left_out), members


def test_without_time_for_refits_what_is_fitted_is_chosen_among(
    tiny_search: Path, smoke: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    paths = StudyPaths(smoke[0])
    fitted = {path.parent.name for path in paths.refits()}
    stayed, members = finish_without_time(tiny_search, paths)
    assert stayed == fitted
    assert members <= fitted


def test_without_time_for_refits_and_nothing_fitted_the_fastest_refit_answers(
    tiny_search: Path, smoke: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    paths = StudyPaths(smoke[0])
    for path in paths.refits():
        path.unlink()
    stayed, members = finish_without_time(tiny_search, paths)
    trials = trials_from_events(read_ledger(paths.ledger))
    # As fast as each other are only trials of one backbone that differ in their rates.
    alike = {cost_key(trials[name].config) for name in stayed}
    assert len(alike) == 1
    assert members <= {path.parent.name for path in paths.refits()} <= stayed


def test_predictions_with_a_whole_fine_tune_of_given_weights_score_what_the_search_said(
    tiny_search: Path, smoke: tuple[Path, subprocess.CompletedProcess[str]]
) -> None:
    """Its batch-norms were trained by nobody here and travel with it."""
    paths = StudyPaths(smoke[0])
    trials = trials_from_events(read_ledger(paths.ledger))
    tuned = next(name for name, each in trials.items() if each.is_completed and has_frozen_norms(each.config))
    assert select_main([str(paths.root), "--pin", tuned]) == 0
    words = ("--space", "smoke", "--data", "pictures", "--study", "smoke", "--workers", "0")
    done = run_here(tiny_search, *words, "--finish", "--open-test")
    assert done.returncode == 0, done.stderr
    answer = json.loads(paths.ensemble.read_text())
    assert tuned in {each["trial_id"] for each in answer["members"]}
    samples = read_samples(paths.samples)
    truth = {samples.paths[row]: samples.classes[samples.labels[row]] for row in samples.test}
    out = tiny_search / "predicted.parquet"
    assert predict_main([str(paths.root), "--images", str(tiny_search / "pictures"), "--out", str(out)]) == 0
    rows = {each["sample"]: each for each in pq.read_table(out).to_pylist()}
    losses = [-math.log(rows[name][f"p_{label}"]) for name, label in truth.items()]
    assert sum(losses) / len(losses) == pytest.approx(answer["test"][0]["log_loss"], abs=1e-5)


def has_frozen_norms(config: TrialConfig) -> bool:
    with_norms = config.backbone in ("test_efficientnet", "test_byobnet", "test_resnet")
    return with_norms and config.freeze == 0.0 and config.training.batch_norm == "frozen"


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
    "finish of nothing": (["--space", "tiny.yaml", "--data", "pictures", "--finish"], "--finish: there is no study"),
    "finish and plan": (
        ["--space", "tiny.yaml", "--data", "pictures", "--finish", "--plan"],
        "--finish trains nothing",
    ),
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
def test_bad_input_is_one_clear_line_and_changes_nothing(
    case: str, tiny_search: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, told = BAD_INPUT[case]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("pictures", "tiny.yaml"):
        (tmp_path / name).symlink_to(tiny_search / name)
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "few", per_class=4)
    for extra in sorted((tmp_path / "few" / "seven").iterdir())[1:]:
        extra.unlink()
    shutil.copytree(tiny_search / "pictures" / "zero", tmp_path / "single" / "zero")
    (tmp_path / "unlabelled.csv").write_text("path,species\npictures/one/0.png,one\n")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert exit_code(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_study_of_other_data_is_refused(
    tiny_search: Path,
    first: object,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tiny_search)
    write_pictures(tmp_path / "others", per_class=10)
    ledger = (tiny_search / "first" / "ledger.jsonl").read_bytes()
    assert exit_code(["--space", "tiny.yaml", "--data", str(tmp_path / "others"), "--study", "first"]) == 2
    assert "made from other data" in capsys.readouterr().err
    assert (tiny_search / "first" / "ledger.jsonl").read_bytes() == ledger
