"""A search on several nodes on this machine, each with a cache of its own; the study in an object store."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import pytest
from ray.cluster_utils import Cluster

from spine_ray.climb.afar import folder_for
from spine_ray.study.events import EpochDone, TrialEnded, TrialResumed
from spine_ray.study.ledger import read_ledger
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.remote import Mirror, Remote
from spine_ray.study.tables import read_samples
from spine_ray.study.trials import trials_from_events
from tests.support.object_store import ObjectStore, bring_home
from tests.support.tiny_search import run, write_pictures

SPACE = """
folds: 2
resolution: 32
weights: random
trials: {trials}
recipe: {{epochs: {epochs}, batch_size: 16, lr: {{around_start: 3}}}}
tiers:
  light: {{question: Light first, backbone: [test_efficientnet, test_byobnet, test_resnet]}}
  mid: {{question: Then more, backbone: [test_vit], gate: always}}
"""
MANY = """
folds: 2
resolution: 32
weights: random
trials: 104
backbone: [test_resnet]
recipe: {epochs: 1, batch_size: 16, lr: {around_start: 3}}
"""
CODE = Path(__file__).parents[2]
REQUESTS_A_TRIAL = 60


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "long.yaml").write_text(SPACE.format(trials=5, epochs=16))
    (tmp_path / "many.yaml").write_text(MANY)
    write_pictures(tmp_path / "pictures", per_class=150)
    monkeypatch.setenv("PYTHONPATH", str(CODE))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path / "driver"))
    return tmp_path


@pytest.fixture
def nodes(folder: Path, object_store: ObjectStore) -> Iterator["Nodes"]:
    found = Nodes(folder)
    yield found
    found.cluster.shutdown()


class Nodes:
    """A head that trains nothing and three workers."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self.cluster = Cluster(
            initialize_head=True, connect=False, head_node_args={"num_cpus": 0, "include_dashboard": False}
        )
        self.workers = [self.add() for _ in range(3)]
        self.cluster.wait_for_nodes()

    def add(self) -> object:
        self._count += 1
        cache = self._folder / f"node{self._count}"
        return self.cluster.add_node(num_cpus=1, env_vars={"SPINE_RAY_CACHE": str(cache)})


def search(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "spine_ray.search", "--data", "pictures", *words]
    with (folder / "output").open("ab") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)


def wait_until(
    what: Callable[[], bool], process: "subprocess.Popen[bytes] | None" = None, seconds: float = 240
) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert process is None or process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def events_of(study: Path) -> list[object]:
    return list(read_ledger(StudyPaths(study).ledger))


def check_that_nothing_finished_was_touched(study: Path) -> None:
    ended: set[str] = set()
    for event in read_ledger(StudyPaths(study).ledger):
        assert event.trial_id not in ended
        if isinstance(event, TrialEnded):
            ended.add(event.trial_id)
    trials = trials_from_events(read_ledger(StudyPaths(study).ledger)).values()
    assert all(trial.ended is not None and (trial.ended.status != "failed") for trial in trials)


@pytest.mark.timeout(900)
def test_a_node_dies_another_comes_and_the_logits_are_those_of_one_machine(
    folder: Path, nodes: Nodes, object_store: ObjectStore
) -> None:
    uri = f"s3://{object_store.make_bucket()}/studies/long"
    words = ("--space", "long.yaml", "--data", "pictures", "--study", "near", "--workers", "2")
    planned = run(folder, *words, "--plan")  # what is measured then holds for both
    assert planned.returncode == 0, planned.stdout + planned.stderr
    Mirror(Remote.at(uri), folder / "near").send()
    near = run(folder, *words)
    assert near.returncode == 0, near.stdout + near.stderr
    process = search(folder, "--space", "long.yaml", "--study", uri, "--address", nodes.cluster.address)
    mirror = folder_for(uri)
    wait_until(lambda: running(mirror) == 3, process)
    nodes.cluster.remove_node(nodes.workers[0], allow_graceful=False)
    time.sleep(5)
    nodes.add()
    assert process.wait(600) == 0, (folder / "output").read_text()
    far = bring_home(uri, folder / "far")
    told = (folder / "output").read_text()
    assert told.count(": ready: ") == 4, told
    check_that_nothing_finished_was_touched(far)
    assert any(isinstance(event, TrialResumed) for event in events_of(far)), "no trial was on the node that died"
    both = [name for name in completed(folder / "near") if name in completed(far)]
    assert len(both) >= 3
    for name in both:
        np.testing.assert_allclose(oof_of(far, name), oof_of(folder / "near", name), atol=1e-4)
    caches = [each for each in folder.glob("node*") if (each / "pixels").exists()]
    assert len(caches) >= 3, "every node decodes for itself"


def running(study: Path) -> int:
    """Count the trials that have trained and not ended."""
    trials = trials_from_events(read_ledger(StudyPaths(study).ledger)).values()
    return sum(bool(trial.epochs) and trial.ended is None for trial in trials)


def completed(study: Path) -> list[str]:
    trials = trials_from_events(read_ledger(StudyPaths(study).ledger))
    return [name for name, trial in trials.items() if trial.is_completed]


def oof_of(study: Path, name: str) -> np.ndarray:
    return read_oof(StudyPaths(study), name, read_samples(StudyPaths(study).samples))


@pytest.mark.timeout(900)
def test_a_job_that_is_stopped_and_submitted_again_goes_on_by_itself(
    folder: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"s3://{object_store.make_bucket()}/studies/job"
    install_job_server(folder / "job_server")
    monkeypatch.setenv("PYTHONPATH", f"{CODE}:{folder / 'job_server'}")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "7" * 64)
    with Head(folder) as head:
        words = ["--space", str(folder / "long.yaml"), "--data", str(folder / "pictures"), "--study", uri]
        head.submit("first", *words)
        mirror = folder_for(uri)
        wait_until(lambda: any(isinstance(each, EpochDone) for each in events_of(mirror)))
        head.ray("job", "stop", "first")
        wait_until(lambda: head.status("first") == "stopped")
        assert "interrupted; the same command again goes on from here" in head.ray("job", "logs", "first")
        before = len(events_of(bring_home(uri, folder / "between")))
        assert before > 0
        head.submit("again", *words)
        wait_until(lambda: head.status("again") in ("succeeded", "failed"), seconds=500)
        assert head.status("again") == "succeeded", head.ray("job", "logs", "again")
    far = bring_home(uri, folder / "far")
    check_that_nothing_finished_was_touched(far)
    assert StudyPaths(far).ensemble.exists()


def install_job_server(folder: Path) -> None:
    """Install what `ray[default]` has beyond what a search needs, beside the environment: it slows every start."""
    wanted = [each.partition(";")[0] for each in requires("ray") or () if 'extra == "default"' in each]
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    known = ["--constraint", str(CODE / "requirements.lock")]
    subprocess.run([*command, "--target", str(folder), *known, *wanted], check=True, timeout=300)


class Head:
    """A head with a dashboard and a job server on loopback, ended with the block."""

    def __init__(self, folder: Path) -> None:
        self._address = "http://127.0.0.1:8299"
        script = Path(sys.executable).with_name("ray")
        self._command = [sys.executable, str(script)]
        words = ["start", "--head", "--block", "--num-cpus", "2", "--port", "6399", "--dashboard-host", "127.0.0.1"]
        with (folder / "head").open("ab") as output:
            self._process = subprocess.Popen(
                [*self._command, *words, "--dashboard-port", "8299", "--disable-usage-stats"],
                cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> "Head":
        try:
            wait_until(lambda: self._try("job", "list").returncode == 0, self._process, 60)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        os.kill(self._process.pid, signal.SIGTERM)
        self._process.wait(60)

    def submit(self, name: str, *words: str) -> None:
        search = [sys.executable, "-m", "spine_ray.search", *words, "--address", "auto"]
        self.ray("job", "submit", "--no-wait", "--submission-id", name, "--", *search)

    def status(self, name: str) -> str:
        told = self.ray("job", "status", name)
        return next((each for each in ("stopped", "succeeded", "failed") if each in told), "running")

    def ray(self, *words: str) -> str:
        done = self._try(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _try(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "RAY_ADDRESS": self._address}
        return subprocess.run(
            [*self._command, *words], env=environment, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.mark.timeout(1200)
def test_requests_do_not_grow_with_the_trials_that_are_finished(folder: Path, object_store: ObjectStore) -> None:
    uri = f"s3://{object_store.make_bucket()}/studies/many"
    object_store.requests.clear()
    process = search(folder, "--space", "many.yaml", "--study", uri, "--workers", "2")
    mirror, seen = folder_for(uri), []
    for count in (10, 40, 70, 100):
        wait_until(lambda count=count: sum(isinstance(e, TrialEnded) for e in events_of(mirror)) >= count, process, 900)  # type: ignore[misc]
        seen.append((time.monotonic(), len(object_store.requests)))
    assert process.wait(300) == 0
    early, late = seen[1][1] - seen[0][1], seen[3][1] - seen[2][1]
    spans = [seen[1][0] - seen[0][0], seen[3][0] - seen[2][0]]
    print(f"\n30 trials: {early} requests from trial 10 in {spans[0]:.0f} s, {late} from trial 70 in {spans[1]:.0f} s")
    print(f"in all {len(object_store.requests)} requests, 104 trials")
    assert late <= 1.1 * early
    assert len(object_store.requests) <= REQUESTS_A_TRIAL * 104


@pytest.mark.timeout(900)
def test_the_smoke_space_asks_an_object_store_seldom(folder: Path, object_store: ObjectStore) -> None:
    uri = f"s3://{object_store.make_bucket()}/studies/smoke"
    object_store.requests.clear()
    done = run(folder, "--space", "smoke", "--study", uri)
    assert done.returncode == 0, done.stdout + done.stderr
    trials = trials_from_events(read_ledger(StudyPaths(bring_home(uri, folder / "home")).ledger))
    print(f"\n{len(object_store.requests)} requests for {len(trials)} trials")
    assert len(object_store.requests) <= REQUESTS_A_TRIAL * len(trials)
