"""Twenty deaths of the driver, and workers that die every half minute."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import Trial, trials_from_events
from tests.support.deaths import (
    SPACE,
    WORDS,
    check_that_they_are_one,
    command_of,
    descendants,
    live_and_die,
    outlived,
    two_studies,
)
from tests.support.tiny_search import run, write_pictures

DEATHS = 20
KILL_EVERY_S = 30.0


@pytest.mark.timeout(3600)
def test_twenty_deaths_of_the_driver_change_nothing(tmp_path: Path) -> None:
    story, luck = two_studies(tmp_path, workers="1", trials=6, epochs=12), random.Random(1)
    while len(story.deaths) < DEATHS:
        assert live_and_die(story, (signal.SIGKILL,), luck), f"it was over after {len(story.deaths)} deaths"
    story.last = run(tmp_path, *WORDS, "--workers", "1", "--study", "killed", "--resume")
    assert story.last.returncode == 0, story.last.stdout + story.last.stderr
    check_that_they_are_one(story)
    assert outlived(story.deaths, 120.0) == []


@pytest.mark.timeout(3600)
def test_workers_that_die_every_half_minute_cost_hardly_a_trial(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", per_class=150)
    (tmp_path / "long.yaml").write_text(SPACE.format(trials=6, epochs=24))
    words = ("--space", "long.yaml", "--data", "pictures", "--workers", "2")
    calm = run(tmp_path, *words, "--study", "calm")
    assert calm.returncode == 0, calm.stdout + calm.stderr
    kills = search_among_killers(tmp_path, words)
    completed = sum(trial.is_completed for trial in trials_of(tmp_path / "calm"))
    trials = trials_of(tmp_path / "killed")
    assert kills >= 3
    assert sum(trial.is_completed for trial in trials) >= 0.95 * completed
    for trial in trials:
        assert trial.ended is not None
        assert trial.is_completed or trial.ended.reason
    assert any(trial.resumed for trial in trials)


def search_among_killers(folder: Path, words: tuple[str, ...]) -> int:
    """Search while every half minute one of the search's workers, warm or thin, is killed; return how many were."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "spine_ray.search", *words, "--study", "killed"]
    luck, kills, over = random.Random(2), [], threading.Event()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)

    def kill() -> None:
        while not over.wait(KILL_EVERY_S):
            workers = [
                pid for pid in descendants(process.pid) if command_of(pid).startswith(("ray::Worker", "ray::Trial"))
            ]
            if workers:
                kills.append(luck.choice(workers))
                os.kill(kills[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert process.wait(timeout=3000) == 0
    finally:
        over.set()
        killer.join()
    return len(kills)


def trials_of(study: Path) -> list[Trial]:
    return list(trials_from_events(read_ledger(StudyPaths(study).ledger)).values())


@pytest.mark.timeout(600)
def test_a_worker_that_hangs_is_ended_and_its_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "pictures", per_class=150)
    (tmp_path / "long.yaml").write_text(SPACE.format(trials=1, epochs=24))
    code = (
        "import spine_ray.climb.known as known, spine_ray.search, sys\n"
        "known.MIN_HANG_TIMEOUT = 60.0\n"
        "sys.exit(spine_ray.search.main())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code, *WORDS, "--workers", "1", "--study", "hung"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    while StudyPaths(tmp_path / "hung").ledger.exists() is False or not any(
        trial.epochs for trial in trials_of(tmp_path / "hung")
    ):
        assert process.poll() is None
        time.sleep(0.2)
    (worker,) = [pid for pid in descendants(process.pid) if command_of(pid).startswith("ray::Worker")]
    os.kill(worker, signal.SIGSTOP)
    assert process.wait(timeout=400) == 0
    trials = trials_of(tmp_path / "hung")
    assert all(trial.is_completed for trial in trials)
    reasons = [each.reason for trial in trials for each in trial.resumed]
    assert reasons == ["no epoch within 60 s: the worker hung and was ended"]
