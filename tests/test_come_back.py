"""A study that is come back to: a backbone added, the data grown, a trial brought up to date."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from spine_ray.show.words import duration_text
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.tables import read_costs, read_samples
from spine_ray.study.trials import Trial, trials_from_events
from tests.support.tiny_search import CLASSES, oof_bytes, run_here, write_pictures

pytestmark = pytest.mark.long

SPACE = """
folds: 2
resolution: 32
weights: random
trials: {trials}
backbone: [{backbones}]
recipe: {{epochs: 2, batch_size: 16}}
"""
WORDS = ("--data", "pictures", "--study", "study", "--workers", "0")


def trials_of(study: Path) -> dict[str, Trial]:
    return trials_from_events(read_ledger(StudyPaths(study).ledger))


def write_space(folder: Path, name: str, *backbones: str) -> None:
    text = SPACE.format(trials=len(backbones), backbones=", ".join(backbones))
    (folder / f"{name}.yaml").write_text(text)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A study of which only the plan was asked."""
    folder = tmp_path_factory.mktemp("come_back")
    write_pictures(folder / "pictures")
    write_space(folder, "one", "test_resnet")
    write_space(folder, "two", "test_efficientnet")
    return folder, run_here(folder, "--space", "one.yaml", *WORDS, "--plan")


@pytest.mark.timeout(120)
def test_a_plan_trains_nothing_and_says_what_it_would_take(
    planned: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = planned
    assert done.returncode == 0, done.stderr
    assert "What it will take on 1 CPU worker; nothing was trained" in done.stdout
    paths = StudyPaths(folder / "study")
    assert paths.ledger.read_bytes() == b""
    assert {cost.backbone for cost in read_costs(paths).values()} == {"test_resnet"}
    assert not paths.ensemble.exists()


@pytest.fixture(scope="module")
def finished(planned: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    folder, _ = planned
    done = run_here(folder, "--space", "one.yaml", *WORDS)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def added(finished: Path) -> tuple[dict[str, bytes], subprocess.CompletedProcess[str]]:
    """What the first search left, and what adding a backbone printed."""
    before = oof_bytes(finished / "study")
    return before, run_here(finished, "--space", "two.yaml", *WORDS)


@pytest.mark.timeout(200)
def test_a_backbone_is_added_without_training_what_is_there(
    finished: Path, added: tuple[dict[str, bytes], subprocess.CompletedProcess[str]]
) -> None:
    before, done = added
    assert done.returncode == 0, done.stderr
    now = oof_bytes(finished / "study")
    assert {name: now[name] for name in before} == before
    assert sorted(name.split("-")[0] for name in now) == ["test_efficientnet", "test_resnet"]
    starts = [event for event in read_ledger(StudyPaths(finished / "study").ledger) if hasattr(event, "config")]
    assert len(starts) == 2, "each trial was started once"


def test_what_the_addition_changed_is_printed_and_kept(
    finished: Path, added: tuple[dict[str, bytes], subprocess.CompletedProcess[str]]
) -> None:
    _, done = added
    history = json.loads(StudyPaths(finished / "study").history.read_text())
    assert [len(change["added"]) for change in history] == [1, 1]
    assert history[0]["log_loss_before"] is None
    assert history[1]["log_loss_before"] == pytest.approx(history[0]["log_loss"])
    assert history[1]["gain"] == pytest.approx(history[1]["log_loss_before"] - history[1]["log_loss"])
    assert history[1]["gain_low"] <= history[1]["gain"] <= history[1]["gain_high"]
    assert "What this search changed" in done.stdout
    told = json.loads(StudyPaths(finished / "study").plan.read_text())["told"]
    assert told["actual"] > 0.0
    assert f"took {duration_text(told['actual'])}: " in done.stdout
    assert "1 trial added in" in done.stdout


def test_the_two_backbones_are_compared_on_the_same_rows(
    finished: Path, added: tuple[dict[str, bytes], subprocess.CompletedProcess[str]]
) -> None:
    found = json.loads(StudyPaths(finished / "study").comparison.read_text())
    first, second = found["rows"]
    assert {first["backbone"], second["backbone"]} == {"test_resnet", "test_efficientnet"}
    assert (first["behind"], first["margin"]) == (0.0, 0.0)
    assert second["behind"] == pytest.approx(second["log_loss"] - first["log_loss"])
    assert second["within_noise"] == (second["behind"] <= second["margin"])
    assert found["margins"][0][1] == pytest.approx(second["margin"])
    assert second["differs_in"] == []


@pytest.fixture(scope="module")
def grown(
    finished: Path, added: tuple[dict[str, bytes], subprocess.CompletedProcess[str]]
) -> tuple[dict[str, int], subprocess.CompletedProcess[str]]:
    """The folds before the data grew, and what the search on the grown data printed."""
    before = read_samples(StudyPaths(finished / "study").samples)
    write_pictures(finished / "more", per_class=40)
    for name in CLASSES:
        for number in range(30, 40):
            shutil.copy(finished / "more" / name / f"{number}.png", finished / "pictures" / name)
    resnet = next(name for name in trials_of(finished / "study") if name.startswith("test_resnet"))
    folds = dict(zip(before.sample_ids, before.folds.tolist(), strict=True))
    return folds, run_here(finished, "--space", "one.yaml", *WORDS, "--update", resnet)


@pytest.mark.timeout(200)
def test_a_trial_is_brought_up_to_date_on_grown_data_and_the_others_stay_marked(
    finished: Path, grown: tuple[dict[str, int], subprocess.CompletedProcess[str]]
) -> None:
    folds, done = grown
    assert done.returncode == 0, done.stderr + done.stdout
    samples = read_samples(StudyPaths(finished / "study").samples)
    now = dict(zip(samples.sample_ids, samples.folds.tolist(), strict=True))
    assert len(now) == len(folds) + 30
    assert {name: now[name] for name in folds} == folds
    versions = {trial.config.backbone: trial.started.data_version for trial in trials_of(finished / "study").values()}
    assert versions["test_resnet"] == samples.version != versions["test_efficientnet"]
    assert "30 pictures are new" in done.stdout
    assert "Trained before the data changed" in done.stdout
    change = read_record(finished / "study").data_changes[0]
    assert (change.added, change.relabelled, change.removed) == (30, 0, 0)
    assert StudyPaths(finished / "study").earlier_samples(change.version).exists()


@pytest.mark.timeout(200)
def test_a_trial_that_is_up_to_date_is_not_trained_again(
    finished: Path, grown: tuple[dict[str, int], subprocess.CompletedProcess[str]]
) -> None:
    resnet = next(name for name in trials_of(finished / "study") if name.startswith("test_resnet"))
    again = run_here(finished, "--space", "one.yaml", *WORDS, "--update", resnet)
    assert again.returncode == 2
    assert again.stderr.startswith(f"error: --update {resnet}: that trial was trained on the rows as they are now")
    assert again.stderr.count("\n") == 1
