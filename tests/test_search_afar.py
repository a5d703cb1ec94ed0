"""A search whose study lies in an object store: found again from any machine, few requests."""

import subprocess
from pathlib import Path

import pytest

from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.remote import Remote
from spine_ray.study.trials import Trial, trials_from_events
from tests.support.object_store import ObjectStore, bring_home
from tests.support.tiny_search import WORDS, oof_bytes, run_here

pytestmark = pytest.mark.long

REQUESTS_A_TRIAL = 60


def run_on(machine: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command on a machine with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_RAY_CACHE", str(machine))
        return run_here(folder, *WORDS, *words)


def trials_of(study: Path) -> dict[str, Trial]:
    return trials_from_events(read_ledger(StudyPaths(study).ledger))


@pytest.fixture(scope="module")
def folder(tiny_search: Path) -> Path:
    return tiny_search


@pytest.fixture(scope="module")
def uri(object_store: ObjectStore) -> str:
    return f"s3://{object_store.make_bucket()}/studies/tiny"


@pytest.fixture(scope="module")
def first(folder: Path, uri: str, object_store: ObjectStore) -> tuple[subprocess.CompletedProcess[str], int]:
    """What the search printed, and how often it asked the store."""
    object_store.requests.clear()
    done = run_on(folder / "here", folder, "--study", uri, "--workers", "0")
    return done, len(object_store.requests)


@pytest.fixture(scope="module")
def home(first: object, uri: str, folder: Path) -> Path:
    return bring_home(uri, folder / "home")


def test_the_whole_study_lies_at_the_uri(
    first: tuple[subprocess.CompletedProcess[str], int], uri: str, home: Path
) -> None:
    done, _ = first
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the study lies at {uri}" in done.stdout
    paths = StudyPaths(home)
    for path in (paths.record, paths.samples, paths.ledger, paths.costs, paths.ensemble, paths.report):
        assert path.exists(), path
    completed = {name for name, trial in trials_of(home).items() if trial.is_completed}
    assert completed == set(oof_bytes(home))
    assert len(completed) >= 2
    left = Remote.at(uri).sizes()
    assert "lease.json" not in left
    assert not any(name.startswith("checkpoints/") for name in left)


def test_it_asks_the_store_seldom(first: tuple[subprocess.CompletedProcess[str], int], home: Path) -> None:
    _, requests = first
    assert requests <= REQUESTS_A_TRIAL * len(trials_of(home))


def test_it_is_the_study_that_a_folder_would_hold(folder: Path, home: Path) -> None:
    near = run_on(folder / "here", folder, "--study", "near", "--workers", "0")
    assert near.returncode == 0, near.stdout + near.stderr
    assert oof_bytes(folder / "near") == oof_bytes(home)


def test_another_machine_goes_on_where_the_first_ended(folder: Path, uri: str, home: Path) -> None:
    before = StudyPaths(home).ledger.read_bytes()
    again = run_on(folder / "there", folder, "--study", uri, "--workers", "0", "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert StudyPaths(bring_home(uri, folder / "later")).ledger.read_bytes() == before


def test_a_study_that_is_not_there_cannot_be_resumed(folder: Path, object_store: ObjectStore) -> None:
    uri = f"s3://{object_store.make_bucket()}/nothing"
    done = run_on(folder / "there", folder, "--study", uri, "--resume")
    assert done.returncode == 2
    assert f"error: --resume: there is no study at {uri}" in done.stderr
    assert Remote.at(uri).sizes() == {}


def test_a_store_that_does_not_answer_is_one_line(folder: Path) -> None:
    done = run_on(folder / "there", folder, "--study", "s3://no-such-bucket-here/study")
    assert done.returncode == 2
    assert done.stderr.startswith("error: s3://no-such-bucket-here/study does not answer: ")
    assert done.stderr.count("\n") == 1
