"""The two sides of `benchmarks.real_pictures` as processes of their own: the mark and the search, timed and judged."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.picture_table import Draw, PictureTable, write_table
from benchmarks.predicted_losses import Judged, judge_file, rounded

ROOT = Path(__file__).parents[1]
PATIENCE_S = 600.0
"""What a process may take beyond its budget (the mark and predicting: at all) before it is ended."""
FAREWELL_S = 60.0
"""What an interrupted process may take to end by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all runs have in common."""

    pictures: Path
    """The folder in which all pictures lie."""
    weights: Path
    """Holds BACKBONE.safetensors."""
    backbones: tuple[str, ...]
    sizes: tuple[int, ...]
    """Sides of the square input, px."""
    freezes: tuple[float, ...]
    """Freeze depths that the search may try."""
    folds: int
    test_share: float | None
    """Of the study's rows, that the search keeps as its test split; None: rows beside them, which the table names."""
    search_words: str
    """Further words of the search's command line."""

    def space(self) -> str:
        """Return the space that is searched, as the text of its file."""
        values = {
            "question": "What do frozen features and fine-tuning reach on these pictures?",
            "folds": self.folds,
            "resolution": list(self.sizes),
            "freeze": list(self.freezes),
            "tiers": {"light": {"backbone": list(self.backbones)}},
        }
        if self.test_share is not None:
            values["test_share"] = self.test_share
        return json.dumps(values, indent=1)  # which is YAML, too


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """What both sides of one draw are given, in a folder of its own."""

    folder: Path
    classes: tuple[str, ...]
    judge_table: PictureTable

    @property
    def train(self) -> Path:
        """The rows to learn from."""
        return self.folder / "train.csv"

    @property
    def study(self) -> Path:
        """The same rows as the search takes them: with a test split beside them, unless it makes its own."""
        return self.folder / "study.csv"

    @property
    def judge(self) -> Path:
        """The rows to be judged on."""
        return self.folder / "judge.csv"

    @property
    def space(self) -> Path:
        """The space that is searched."""
        return self.folder / "backbones.yaml"

    @classmethod
    def write(cls, folder: Path, table: PictureTable, draw: Draw, setting: Setting) -> "Files":
        """Write them all."""
        folder.mkdir(parents=True)
        train, judge = table.take(draw.study), table.take(draw.judge)
        files = cls(folder=folder, classes=train.classes, judge_table=judge)
        write_table(train, files.train)
        write_table(judge, files.judge)
        both = table.take([*draw.study, *draw.test])
        splits = ["train"] * len(draw.study) + ["test"] * len(draw.test)
        write_table(both, files.study, splits if len(draw.test) else None)
        files.space.write_text(setting.space(), encoding="utf-8")
        return files


@dataclass(frozen=True, kw_only=True, slots=True)
class MarkRun:
    """One run of the mark."""

    seconds: float
    """Of its process, without judging."""
    found: dict[str, Any]
    """What it printed."""
    judged: Judged


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRun:
    """One run of the search."""

    budget: str
    """As it was asked for."""
    budget_s: float
    seconds: float
    """Of its process."""
    exit_code: int
    """Below 0: the signal that ended it."""
    last_words: str
    """The last line it printed."""
    completed: int
    """Trials with OOF logits."""
    members: tuple[str, ...] = ()
    """Of the ensemble; none where there is no answer."""
    predict_seconds: float | None = None
    """Of the process that predicted the judge rows."""
    judged: Judged | None = None
    """None where there is no answer."""

    def summary(self) -> dict[str, Any]:
        """Return what a report shows."""
        return {
            "budget": self.budget,
            "budget_s": rounded(self.budget_s),
            "seconds": rounded(self.seconds),
            "seconds_over_budget": rounded(self.seconds / self.budget_s),
            "exit_code": self.exit_code,
            "last_words": None if self.judged else self.last_words,
            "completed_trials": self.completed,
            "members": list(self.members),
            "predict_seconds": None if self.predict_seconds is None else rounded(self.predict_seconds),
            "judge": None if self.judged is None else self.judged.summary(),
        }


def run_mark(files: Files, setting: Setting) -> MarkRun:
    """Run the mark.

    Raises:
        RuntimeError: If it fails.
    """
    out = files.folder / "mark.csv"
    words = ["--train", str(files.train), "--judge", str(files.judge), "--weights", str(setting.weights)]
    words += ["--px", *map(str, setting.sizes), "--backbones", *setting.backbones, "--out", str(out)]
    done = _run(["benchmarks.frozen_features", *words], files.folder / "mark", PATIENCE_S)
    if done.exit_code != 0:
        raise RuntimeError(f"the mark ended with exit code {done.exit_code}: {done.last_words}")
    found = json.loads(done.last_words)
    judged = judge_file(out, files.judge_table, files.classes)
    return MarkRun(seconds=done.seconds - float(found["judge_seconds"]), found=found, judged=judged)


def run_search(files: Files, setting: Setting, budget: str, budget_s: float) -> SearchRun:
    """Run the search with nothing kept from others, and predict the judge rows where it has an answer."""
    name = f"search-{budget.replace('+', '-plus-')}"
    folder = files.folder / name
    study = folder / "study"
    words = ["--space", str(files.space), "--data", str(files.study), "--data-root", str(setting.pictures)]
    words += ["--study", str(study), "--budget", f"{budget_s:.1f}s", "--weights", str(setting.weights)]
    words += shlex.split(setting.search_words)
    done = _run(["spine_ray.search", *words], folder, budget_s + PATIENCE_S)
    run = SearchRun(
        budget=budget,
        budget_s=budget_s,
        seconds=done.seconds,
        exit_code=done.exit_code,
        last_words=done.last_words,
        completed=_completed(study / "ledger.jsonl"),
    )
    ensemble = study / "ensemble.json"
    if not ensemble.exists():
        return run
    members = tuple(str(member["trial_id"]) for member in json.loads(ensemble.read_text())["members"])
    out = folder / "predictions.csv"
    words = [str(study), "--images", str(files.judge), "--labels", str(files.judge), "--out", str(out)]
    predicted = _run(["spine_ray.predict", *words], folder, PATIENCE_S)
    if predicted.exit_code != 0:
        last_words = f"predict ended with exit code {predicted.exit_code}: {predicted.last_words}"
        return replace(run, members=members, last_words=last_words)
    judged = judge_file(out, files.judge_table, files.classes)
    return replace(run, members=members, predict_seconds=predicted.seconds, judged=judged)


@dataclass(frozen=True, slots=True)
class _Done:
    seconds: float
    exit_code: int
    last_words: str


def _run(module_words: Sequence[str], folder: Path, limit_s: float) -> _Done:
    """Run a module with a cache of its own in a folder, where its words are kept as well."""
    folder.mkdir(exist_ok=True)
    log = folder / f"{module_words[0].rpartition('.')[2]}.log"
    environment = {**os.environ, "SPINE_RAY_CACHE": str(folder / "cache")}
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as words:
        command = [sys.executable, "-m", *module_words]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=words, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            exit_code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            exit_code = _end(process)
        except KeyboardInterrupt:
            _end(process)
            raise
    seconds = time.perf_counter() - began
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return _Done(seconds, exit_code, next((line for line in reversed(lines) if line), ""))


def _end(process: subprocess.Popen[bytes]) -> int:
    """Interrupt a process and those it started; kill them where that does not help."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(FAREWELL_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def _completed(ledger: Path) -> int:
    """Count the trials of a study that completed."""
    if not ledger.exists():
        return 0
    lines = ledger.read_text(encoding="utf-8").split("\n")[:-1]  # without one that was being written at the end
    events = [json.loads(line) for line in lines]
    return len({event["trial_id"] for event in events if event.get("status") == "completed"})
