"""Events as a search records them, and what MLflow has of a study beside what its ledger says."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialStarted
from spine_ray.study.ledger import append_event, read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tracking import keep_tracking
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.track.client import STUDY_TAG
from spine_ray.track.mlflow_log import Tracker
from spine_ray.track.records import RUN_STATUS, epoch_points, trial_params
from tests.support.patience import overtime


def started(resolution: int = 32, tier: str = "light", rows: str = "rows", at: float = 1_700_000_000.0) -> TrialStarted:
    config = TrialConfig(backbone="resnet18.a1_in1k", resolution=resolution, freeze=0.5, recipe=start_recipe("random"))
    return TrialStarted(
        trial_id=config.trial_id,
        tier=tier,
        config=config,
        family="resnet",
        is_start=True,
        total_steps=3,
        params=11,
        macs=18,
        weights_source="random",
        licence="apache-2.0",
        data_version=rows,
        time=at,
    )


def epoch(trial_id: str, step: int, seconds: float = 0.1, train_loss: float = 1.0) -> EpochDone:
    return EpochDone(
        trial_id=trial_id,
        step=step,
        fold=0,
        epoch=step,
        train_loss=train_loss,
        log_loss=1.0 / step,
        accuracy=0.5,
        seconds=seconds,
        train_images=200,
        train_images_s=100.0,
        score_images_s=300.0,
        peak_mb=50.0,
        views=10,
        micro_batch=32,
        note="",
    )


def ended(trial_id: str, status: Status = "completed", reason: str = "", at: float = 1_700_000_001.0) -> TrialEnded:
    return TrialEnded(
        trial_id=trial_id,
        status=status,
        reason=reason,
        step=3,
        log_loss=1 / 3,
        accuracy=0.5,
        seconds=0.3,
        time=at,
    )


def whole_trial(start: TrialStarted, status: Status = "completed", reason: str = "") -> list[Event]:
    name = start.trial_id
    return [start, *(epoch(name, step, 0.1 + step / 7) for step in (1, 2, 3)), ended(name, status, reason)]


class Driver:
    """A study and its tracker, as a search has them: what happens goes to the ledger first."""

    def __init__(self, root: Path, uri: str, retry_s: float = 0.3) -> None:
        self.paths = StudyPaths(root)
        root.mkdir(parents=True, exist_ok=True)
        tracking = keep_tracking(self.paths, None)
        self.tracker = Tracker(uri, tracking, self.paths, read_ledger(self.paths.ledger))
        self.tracker.retry_s = retry_s
        self.blocked_s, self._began = 0.0, time.monotonic()
        self.tracker.begin()

    def record(self, *events: Event) -> None:
        for event in events:
            append_event(self.paths.ledger, event)
            begin = time.perf_counter()
            self.tracker.put(event)
            self.blocked_s += time.perf_counter() - begin

    def close(self) -> None:
        """Close the tracker as a search does at its end: it waits for a server half a second, or 1 % of its time."""
        begin = time.monotonic()
        self.tracker.close()
        end = time.monotonic()
        assert end - begin < max(0.5, 0.01 * (end - self._began)) + overtime(), "the end of a search waits for a server"


def runs_of(uri: str, paths: StudyPaths) -> tuple[Any, list[Any]]:
    """Return a client and all runs of a study, asked of MLflow itself."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    study_id = keep_tracking(paths, None).study_id
    found = client.search_experiments(filter_string=f"tags.`{STUDY_TAG}` = '{study_id}'")
    assert len(found) == 1, "not one experiment"
    return client, list(client.search_runs([found[0].experiment_id], max_results=1000))


def differences(uri: str, paths: StudyPaths) -> list[str]:
    """Compare MLflow with the ledger run for run, and return what differs.

    Trials, states with reasons, params, every metric at every step, results, parents.
    """
    client, runs = runs_of(uri, paths)
    trials = trials_from_events(read_ledger(paths.ledger))
    named: dict[str, Any] = {}
    said = []
    for run in runs:
        name = run.data.tags.get("spine.trial_id")
        if name in named:
            said.append(f"{name} has two runs")
        if name is not None:
            named[name] = run
    said += [f"{name} is in one of the two only" for name in named.keys() ^ trials.keys()]
    parents = {run.info.run_id: run.data.tags["spine.tier"] for run in runs if run.data.tags["spine.kind"] == "tier"}
    if sorted(parents.values()) != sorted({trial.started.tier for trial in trials.values()}):
        said.append(f"tiers are {sorted(parents.values())}")
    for name in named.keys() & trials.keys():
        said += _trial_differences(client, named[name], trials[name], parents)
    return said


def _trial_differences(client: Any, run: Any, trial: Trial, parents: dict[str, str]) -> Iterator[str]:
    status, reason = (
        ("KILLED", "interrupted")
        if trial.ended is None
        else (
            RUN_STATUS[trial.ended.status],
            trial.ended.reason,
        )
    )
    if (run.info.status, run.data.tags.get("spine.reason", "")) != (status, reason):
        yield f"{trial.trial_id} is {run.info.status} ({run.data.tags.get('spine.reason')}), not {status} ({reason})"
    if run.data.params != trial_params(trial.started):
        yield f"{trial.trial_id} has other params"
    if parents.get(run.data.tags["mlflow.parentRunId"]) != trial.started.tier:
        yield f"{trial.trial_id} has another parent"
    curves: dict[str, list[tuple[int, float]]] = {}
    for points in epoch_points(trial).values():
        for point in points:
            curves.setdefault(point.key, []).append((point.step, point.value))
    for key, expected in curves.items():
        history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
        if not _is_same_curve(sorted(history), expected):
            yield f"{key} of {trial.trial_id} is {history}, not {expected}"
    if trial.is_completed and run.data.metrics.get("oof_log_loss") != trial.log_loss:
        yield f"{trial.trial_id} has OOF log-loss {run.data.metrics.get('oof_log_loss')}, not {trial.log_loss}"


def _is_same_curve(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> bool:
    return len(found) == len(expected) and all(
        one[0] == other[0] and (math.isclose(one[1], other[1], rel_tol=1e-12) or one[1] != one[1] != other[1])
        for one, other in zip(found, expected, strict=True)
    )
