"""Searches that are killed, beside the same search left in peace."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spine_ray.climb.interruption import GRACE_S
from spine_ray.study.checkpoint import CONTROL, read_checkpoint
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialResumed
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from tests.support.patience import BREATHS, PATIENCE_S, breaths
from tests.support.tiny_search import ROOT, oof_bytes, run, run_here, write_pictures

SPACE = """
folds: 2
resolution: 32
weights: random
trials: {trials}
recipe: {{epochs: {epochs}, batch_size: 16, lr: {{around_start: 3}}}}
tiers:
  light: {{question: Light first, backbone: [test_efficientnet, test_byobnet]}}
  mid: {{question: Then more, backbone: [test_resnet], gate: always}}
"""
WORDS = ("--space", "long.yaml", "--data", "pictures")


@dataclass(frozen=True)
class Process:
    pid: int
    began: str
    """In the system's ticks: tells it from a later one of the same id."""
    command: str = field(compare=False)


@dataclass
class Death:
    """How one life of a search ended."""

    signals: tuple[signal.Signals, ...]
    seconds: float
    """From the first signal to the end of the process."""
    returncode: int
    output: str
    breath: float
    """The most seconds that a bare Python took to start and end meanwhile, on the same busy machine."""
    kept: dict[str, int]
    """The epochs of each trial whose state was on the disk when it was over."""
    family: list[Process]
    """Its own processes when it came."""

    @property
    def was_in_time(self) -> bool:
        """Whether it took no longer than the grace that a search is given to close everything."""
        return self.seconds < GRACE_S + BREATHS * self.breath


@dataclass
class Story:
    """Two studies with the same measured costs: one searched in peace, one in many lives."""

    folder: Path
    calm: Path
    killed: Path
    workers: str
    deaths: list[Death] = field(default_factory=list)
    last: subprocess.CompletedProcess[str] | None = None


def two_studies(folder: Path, *, workers: str, trials: int, epochs: int) -> Story:
    """Measure once, so that both studies try the same; then search the one in peace."""
    write_pictures(folder / "pictures")
    (folder / "long.yaml").write_text(SPACE.format(trials=trials, epochs=epochs))
    search = run_here if workers == "0" else run
    done = search(folder, *WORDS, "--workers", workers, "--study", "calm", "--plan")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(folder / "calm", folder / "killed")
    done = search(folder, *WORDS, "--workers", workers, "--study", "calm")
    assert done.returncode == 0, done.stdout + done.stderr
    return Story(folder, folder / "calm", folder / "killed", workers)


def live_and_die(story: Story, signals: tuple[signal.Signals, ...], luck: random.Random) -> bool:
    """Search the study that is killed until it has done a new epoch, and a little more; say whether it was alive."""
    before = epochs_in(story.killed)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    words = [sys.executable, "-m", "spine_ray.search", *WORDS, "--workers", story.workers, "--study", "killed"]
    with (story.folder / "output").open("w") as output:
        process = subprocess.Popen(words, cwd=story.folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + PATIENCE_S
        while epochs_in(story.killed) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(luck.uniform(0.0, 0.5))
        if process.poll() is not None:
            return False
        family = [each for each in map(process_of, descendants(process.pid)) if each is not None]
        with breaths() as taken:
            began = time.monotonic()
            for each in signals:
                process.send_signal(each)
                time.sleep(0.2)
            returncode = process.wait(timeout=PATIENCE_S)
            seconds = time.monotonic() - began
    output_text = (story.folder / "output").read_text()
    kept = epochs_kept(StudyPaths(story.killed))
    story.deaths.append(Death(signals, seconds, returncode, output_text, max(taken), kept, family))
    return True


def epochs_in(study: Path) -> int:
    """Count the whole lines of epochs in a ledger that may be being written."""
    ledger = StudyPaths(study).ledger
    lines = ledger.read_bytes().splitlines(keepends=True) if ledger.exists() else []
    return sum(line.startswith(b'{"event": "epoch"') and line.endswith(b"\n") for line in lines)


def epochs_kept(paths: StudyPaths) -> dict[str, int]:
    """Return how many epochs the kept state of each unfinished trial holds."""
    kept = {}
    for name in (path.stem for path in paths.checkpoints.glob("*.safetensors")):
        found = read_checkpoint(paths, name)
        if found is not None and name != CONTROL:
            kept[name] = len(found.about["records"])
    return kept


def descendants(pid: int) -> list[int]:
    found, waiting = [], [pid]
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    while waiting:
        parent = waiting.pop()
        children = [child for child, its in parents.items() if its == parent]
        found += children
        waiting += children
    return found


def outlived(deaths: list[Death], seconds: float) -> list[Process]:
    """Wait for processes to end by themselves, as ray's agents do within a minute, and return those that do not."""
    family = [each for death in deaths for each in death.family]
    deadline = time.monotonic() + seconds
    while (left := [each for each in family if process_of(each.pid) == each]) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def process_of(pid: int) -> Process | None:
    """Return who has an id, None where nobody alive has it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if stat[0] == "Z" else Process(pid, stat[19], command_of(pid))
    except OSError:  # it has just ended
        return None


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def check_that_they_are_one(story: Story) -> None:
    """Compare what both studies hold in the end."""
    calm, killed = (trials_from_events(read_ledger(StudyPaths(each).ledger)) for each in (story.calm, story.killed))
    assert list(killed) == list(calm)
    for name, trial in calm.items():
        other = killed[name]
        assert (other.status, other.ended and other.ended.reason) == (trial.status, trial.ended and trial.ended.reason)
        assert [each.step for each in other.epochs] == [each.step for each in trial.epochs]
        assert [each.log_loss for each in other.epochs] == [each.log_loss for each in trial.epochs]
    assert oof_bytes(story.killed) == oof_bytes(story.calm)
    assert ensemble_of(story.killed) == ensemble_of(story.calm)
    assert not list(StudyPaths(story.killed).checkpoints.iterdir())
    events, ended = read_ledger(StudyPaths(story.killed).ledger), set()
    for event in events:
        assert event.trial_id not in ended, "a finished trial is never touched again"
        if isinstance(event, TrialEnded):
            ended.add(event.trial_id)
    assert epochs_in(story.killed) == epochs_in(story.calm) + epochs_not_kept(events)
    resumed = [event for event in events if isinstance(event, TrialResumed)]
    assert any(death.kept for death in story.deaths)
    for death in story.deaths:
        for name, steps in death.kept.items():
            assert any(each.trial_id == name and each.step >= steps for each in resumed), (
                "what was kept is gone on from"
            )


def epochs_not_kept(events: Sequence[Event]) -> int:
    """Count the epochs that came after the last kept state of a trial that lost its process: just these are repeated.

    How often a state is kept is `Checkpointer`'s, and tested there.
    """
    step: dict[str, int] = {}
    lost = 0
    for event in events:
        if isinstance(event, TrialResumed):
            recorded = step.get(event.trial_id, 0)
            assert 0 < event.step <= recorded + 1, "a state is kept before its epoch is recorded"
            lost += max(0, recorded - event.step)
        if isinstance(event, EpochDone | TrialResumed):
            step[event.trial_id] = event.step
    return lost


def ensemble_of(study: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(StudyPaths(study).ensemble.read_text())
    return found
