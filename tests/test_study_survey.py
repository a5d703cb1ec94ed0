"""Every file of a finished study cut short, one at a time: the study opens, and says what that cost."""

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from spine_ray.compare import main as compare
from spine_ray.select import main as select
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths, copy_of
from spine_ray.study.record import read_record
from spine_ray.study.survey import mend, survey
from spine_ray.study.tables import read_costs, read_samples
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.track.mlflow_log import deliver, sqlite_uri
from tests.support.tiny_search import oof_bytes, run_here, write_pictures

pytestmark = pytest.mark.long

SPACE = """
folds: 2
resolution: 32
weights: random
recipe: {epochs: 2, batch_size: 16}
tiers:
  light: {backbone: [test_efficientnet], trials: 1}
  mid: {backbone: [test_resnet], trials: 1, gate: always}
"""
WORDS = (
    *("--space", "space.yaml", "--data", "pictures", "--study", "study", "--workers", "0"),
    *("--set", "tiers.light.freeze=[0.0, 1.0]"),  # whose probe is asked for, so that there is one of random weights
)
CUTS: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "all but one byte": lambda content: content[:-1],
}
TWICE = ("study.json", "samples.parquet", "ledger.jsonl", "costs.parquet", "ensemble.json", "history.json")
AGAIN = (
    "audit.json",
    "checks.json",
    "comparison.json",
    "contact_sheet.png",
    "control.parquet",
    "gates.json",
    "mlflow.db",
    "plan.json",
    "report.html",
    "spaces/space.yaml",
    "tracking.json",
    "trials.parquet",
)
NAMES = (*TWICE, *AGAIN, "oof", "weights")
"""Each file of a study; the last two stand for one file in those folders."""
WITH_LAST_LINE = (".json", ".html", ".yaml")
"""Of these the last byte is the end of the last line: without it nothing is missing."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "space.yaml").write_text(SPACE)
    write_pictures(folder / "pictures")
    done = run_here(folder, *WORDS)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


@pytest.fixture
def paths(finished: Path, tmp_path: Path) -> StudyPaths:
    """A copy of the finished study."""
    ignored = shutil.ignore_patterns("ray", "mlruns")
    return StudyPaths(Path(shutil.copytree(finished / "study", tmp_path / "study", ignore=ignored)))


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


def file_of(paths: StudyPaths, name: str) -> Path:
    if name == "oof":
        return sorted((paths.root / "oof").iterdir())[0]
    return paths.refits()[0] if name == "weights" else paths.root / name


def cut(path: Path, how: str) -> None:
    path.write_bytes(CUTS[how](path.read_bytes()))


def trials(paths: StudyPaths) -> dict[str, Trial]:
    return trials_from_events(read_ledger(paths.ledger))


def is_whole_without(path: Path, how: str) -> bool:
    return how == "all but one byte" and path.suffix in WITH_LAST_LINE


@pytest.mark.timeout(300)
def test_the_table_names_every_file_of_a_study(finished: Path) -> None:
    paths = StudyPaths(finished / "study")
    found = {path.relative_to(paths.root).as_posix() for path in paths.root.rglob("*") if path.is_file()}
    others = {name for name in found if name.split("/")[0] in ("ray", "copies", "oof", "probes", "weights", "mlruns")}
    assert found - others == {*TWICE, *AGAIN, "study.lock", "study.fence", "study.holder"}
    assert survey(paths).lines == ()


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(300)
def test_a_study_with_a_file_cut_short_is_mended_and_says_so(paths: StudyPaths, name: str, how: str) -> None:
    before, path = trials(paths), file_of(paths, name)
    whole = path.read_bytes()
    cut(path, how)
    lines = mend(paths)
    told = [line for line in lines if path.name in line]
    if is_whole_without(path, how):
        assert lines == ()
    else:
        assert told
        assert len(told) == len(lines) == 1
        assert "\n" not in told[0]
        assert path.exists() == (name in TWICE)
    if name in TWICE and not is_whole_without(path, how):
        assert path.read_bytes() == whole
    assert survey(paths).lines == ()
    kept = {trial_id for trial_id, trial in trials(paths).items() if trial.is_completed}
    assert set(before) - kept == ({path.stem} if name == "oof" else set())
    assert read_record(paths.root).seed == 0
    assert read_samples(paths.samples)
    assert len(read_costs(paths)) == 3, "of two fine-tunes and a probe"


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.timeout(300)
def test_select_shows_the_ensemble_of_a_study_with_a_file_cut_short_and_changes_nothing(
    paths: StudyPaths, name: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(paths, name)
    cut(path, how)
    files = {each: each.read_bytes() for each in paths.root.rglob("*") if each.is_file()}
    assert select([str(paths.root), "--show"]) == 0
    told = capsys.readouterr()
    assert "Pooled by" in told.out
    assert (path.name in told.err) == (not is_whole_without(path, how))
    assert files == {each: each.read_bytes() for each in paths.root.rglob("*") if each.is_file()}


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.parametrize("name", [name for name in NAMES if name != "mlflow.db"])
@pytest.mark.timeout(300)
def test_compare_opens_a_study_with_a_file_cut_short(
    paths: StudyPaths, name: str, how: str, taken_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    path = file_of(paths, name)
    cut(path, how)
    assert compare([str(paths.root), "--port", str(taken_port)]) == 2
    *lines, last = capsys.readouterr().err.strip().splitlines()
    assert last.startswith(f"error: port {taken_port} of this machine is taken")
    assert len(lines) == (0 if is_whole_without(path, how) else 1)


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.timeout(300)
def test_a_database_cut_short_is_written_anew_from_the_ledger(paths: StudyPaths, how: str) -> None:
    cut(paths.tracking, how)
    assert any("its runs are written anew from the ledger" in line for line in mend(paths))
    deliver(sqlite_uri(paths.tracking), paths)
    client = mlflow.MlflowClient(sqlite_uri(paths.tracking))
    experiments = [each.experiment_id for each in client.search_experiments()]
    runs = client.search_runs(experiments, "tags.`spine.kind` = 'trial'")
    assert {run.data.tags["spine.trial_id"] for run in runs} == set(trials(paths))
    for tracked in runs:
        trial = trials(paths)[tracked.data.tags["spine.trial_id"]]
        assert tracked.data.metrics["oof_log_loss"] == pytest.approx(trial.log_loss)
        steps = [metric.step for metric in client.get_metric_history(tracked.info.run_id, "log_loss")]
        assert sorted(steps) == [epoch.step for epoch in trial.epochs]


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.timeout(300)
def test_a_file_and_its_copy_both_lost_cost_only_what_they_held(
    paths: StudyPaths, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (paths.root / name, copy_of(paths.root / name)):
        cut(path, "half")
    code = select([str(paths.root)])
    told = capsys.readouterr().err.strip().splitlines()
    assert name in told[0]
    assert len(told) <= 2
    if name in ("ensemble.json", "history.json"):
        assert code == 0
        assert json.loads(paths.ensemble.read_text())["members"]
    elif name == "ledger.jsonl":  # half of which is all of the probe, and no other end of a trial
        assert code == 0
        assert ["-probe-" in each["trial_id"] for each in json.loads(paths.ensemble.read_text())["members"]] == [True]
    else:
        assert code == 2
        assert told[-1].startswith("error: ")


@pytest.mark.parametrize("how", CUTS)
@pytest.mark.timeout(300)
def test_solved_heads_cut_short_cost_nothing_for_they_are_solved_again(paths: StudyPaths, how: str) -> None:
    (probe,) = [trial_id for trial_id, trial in trials(paths).items() if trial.config.is_probe]
    cut(paths.probe_heads(probe), how)
    assert mend(paths) == ()
    assert trials(paths)[probe].is_completed


@pytest.mark.timeout(300)
def test_what_a_member_lost_is_shown_and_cannot_be_chosen_until_it_is_trained_again(
    paths: StudyPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    member = json.loads(paths.ensemble.read_text())["members"][0]["trial_id"]
    cut(paths.oof(member), "half")
    assert mend(paths) == (f"{paths.oof(member)} is damaged: its trial is trained again by the next search",)
    assert trials(paths)[member].status is None
    assert mend(paths) == ()
    assert select([str(paths.root), "--show"]) == 0
    assert member in capsys.readouterr().out
    assert select([str(paths.root), "--pin", member]) == 2
    assert "no completed trial" in capsys.readouterr().err
    assert select([str(paths.root)]) == 0
    assert member not in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_the_search_makes_again_what_can_be_made_and_trains_only_what_was_lost(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "again")
    paths = StudyPaths(tmp_path / "again" / "study")
    before, logits = trials(paths), oof_bytes(paths.root)
    lost = file_of(paths, "oof")
    for name in ("ledger.jsonl", "samples.parquet", *AGAIN, "oof", "weights"):
        cut(file_of(paths, name), "half")
    done = run_here(tmp_path / "again", *WORDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" is damaged: ") == 4 + len(AGAIN)
    assert oof_bytes(paths.root) == logits
    after = [event.trial_id for event in read_ledger(paths.ledger) if hasattr(event, "config")]
    assert sorted(after) == sorted([*before, lost.stem, lost.stem]), "found lost, and trained once more"
    assert survey(paths).lines == ()
    assert all((paths.root / name).exists() for name in AGAIN)
