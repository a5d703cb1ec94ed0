"""The runs of one study: a parent a tier, a child a trial, one for the ensemble; made to say what the ledger says."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spine_ray.study.events import Event
from spine_ray.study.paths import StudyPaths, read_json
from spine_ray.study.tables import Costs, read_costs
from spine_ray.study.trials import Trial, add_event
from spine_ray.track.client import Client, Run
from spine_ray.track.records import (
    RUN_STATUS,
    Point,
    end_ms,
    ensemble_metrics,
    ensemble_params,
    epoch_points,
    trial_metrics,
    trial_params,
)
from spine_ray.track.view import EARLIER, KIND_TAG, VIEW_TAG, comparison_view

ENDED_TAG = "spine.ended"
"""When the trial ended, as the ledger has it: set last, so that a run which has it lacks nothing."""

OOF_TAG = "spine.oof"
"""Where the OOF logits are: set after the other files, so that a run which has it lacks none."""
MODEL_TAG = "spine.model"
"""Of the ensemble's run: the newest registered model that was made of it."""
NAME_TAGS = {"tier": "spine.tier", "trial": "spine.trial_id", "ensemble": "spine.ensemble"}
"""By kind of run: the tag that says what it stands for."""


class StudyRuns:
    """What MLflow shows of one study. Every method may raise whatever MLflow raises.

    Nothing is written from memory of what was sent: at the start the store is asked for all runs, and each trial's
    run is continued where it is a beginning of what the ledger says, else put aside and written anew. So it does not
    matter what a dead server, or a dead driver, left half done.
    """

    def __init__(self, client: Client, paths: StudyPaths) -> None:
        """Ask the store for the runs it has; of several runs of one trial the fullest is kept."""
        self._client, self._paths = client, paths
        self._trials: dict[str, Trial] = {}
        self._costs: Costs = read_costs(paths)
        self._steps: dict[str, dict[int, float]] = {}
        self._runs: dict[tuple[str, str], Run] = {}
        """By kind and name."""
        self.without_files: dict[str, Trial] = {}
        """Ended trials whose files were not stored since this store was opened."""
        client.tag_experiment(VIEW_TAG, comparison_view())
        self._look_up()

    def deliver(self, events: Iterable[Event]) -> None:
        """Write what is past: a trial without an end was interrupted."""
        for name in self._fold(events):
            trial = self._trials[name]
            run = self._written(trial)
            if trial.ended is None:
                self._interrupt(run, trial)

    def follow(self, events: Iterable[Event]) -> None:
        """Write what happens: a trial without an end is running."""
        for name in self._fold(events):
            trial = self._trials[name]
            run = self._written(trial)
            self._client.reopen(self._tier(trial))
            if trial.ended is None:
                self._client.reopen(run)
                self._client.log(run, tags={"spine.reason": ""})

    def refresh(self) -> None:
        """Write what the study says beside its ledger: costs measured since, and the ensemble."""
        self._costs = read_costs(self._paths)
        for trial in self._trials.values():
            self._log_numbers(self._runs["trial", trial.trial_id], trial)
        if self._paths.ensemble.exists():
            self._write_ensemble(read_json(self._paths.ensemble))

    def end(self) -> None:
        """End what still runs."""
        ends: dict[str, int] = {}
        for trial in self._trials.values():
            run = self._runs["trial", trial.trial_id]
            if run.status == "RUNNING":
                self._interrupt(run, trial)
            tier = trial.started.tier
            ends[tier] = max(ends.get(tier, 0), end_ms(trial))
        for tier, at_ms in ends.items():
            self._client.end(self._runs["tier", tier], "FINISHED", at_ms)

    def store_files(self, files: Mapping[str, str], trial: Trial) -> None:
        """Store small files with an ended trial's run, and where its OOF logits are."""
        run = self._runs["trial", trial.trial_id]
        for name, text in files.items():
            self._client.put_text(run, name, text)
        where = oof_place(self._paths, trial)
        self._client.log(run, tags={"mlflow.note.content": f"OOF logits: `{where}`", OOF_TAG: where})
        del self.without_files[trial.trial_id]

    def register(self, model: Path, name: str) -> str:
        """Store a model with the ensemble's run, make it a version of a registered model, and return its URI.

        Raises:
            ValueError: If there is no ensemble.
        """
        run = next((run for (kind, _), run in self._runs.items() if kind == "ensemble"), None)
        if run is None:
            raise ValueError("the study has no ensemble yet")
        registered = self._client.register(run, model, name)
        self._client.log(run, tags={MODEL_TAG: registered})
        return registered

    def _look_up(self) -> None:
        found: dict[tuple[str, str], list[Run]] = {}
        for run in self._client.runs():
            kind = run.tags.get(KIND_TAG, "")
            if kind in NAME_TAGS:
                found.setdefault((kind, run.tags.get(NAME_TAGS[kind], "")), []).append(run)
        for (kind, name), runs in found.items():
            if name:
                self._runs[kind, name] = self._fullest(runs)
            else:  # begun by a writer that died before it could say of what
                for run in runs:
                    self._client.delete(run)

    def _fullest(self, runs: Sequence[Run]) -> Run:
        """Keep one of the runs that stand for one thing: a request that timed out was carried out all the same."""
        kept, *others = sorted(runs, key=lambda run: (ENDED_TAG in run.tags, len(run.metrics)), reverse=True)
        for other in others:
            self._client.delete(other)
        return kept

    def _fold(self, events: Iterable[Event]) -> list[str]:
        """Take events in and return the trials that they are about, in order."""
        touched: dict[str, None] = {}
        for event in events:
            add_event(self._trials, event)
            touched[event.trial_id] = None
        return list(touched)

    def _written(self, trial: Trial) -> Run:
        """Return the trial's run, which now says what the trial says."""
        run = self._runs.get(("trial", trial.trial_id))
        if run is not None and _is_told(run, trial):
            self._log_numbers(run, trial)
            self._note_files(run, trial)
            return run
        if run is not None and not self._is_beginning(run, trial):
            self._put_aside(run, trial.trial_id)
            run = None
        if run is None:
            run = self._create(trial)
        tags: dict[str, str] = {}
        if trial.ended is not None:
            self._client.end(run, RUN_STATUS[trial.ended.status], end_ms(trial))
            ended = repr(trial.ended.time)
            tags = {"spine.reason": trial.ended.reason, "spine.note": trial.note, ENDED_TAG: ended}
            self._note_files(run, trial)
        self._log_all(run, trial, tags)
        return run

    def _is_beginning(self, run: Run, trial: Trial) -> bool:
        """Say whether all that the run says, the trial says too: MLflow cannot unlearn a param or a point."""
        if run.tags.get("spine.data_version") != trial.started.data_version:
            return False
        params = trial_params(trial.started)
        if any(params.get(key) != value for key, value in run.params.items()):
            return False
        if trial.trial_id not in self._steps:
            self._steps[trial.trial_id] = self._client.curve(run, "seconds")
        seconds = {epoch.step: epoch.seconds for epoch in trial.epochs}
        # No two epochs take the same time to the last digit.
        return all(
            math.isclose(seconds.get(step, math.nan), value, rel_tol=1e-9)
            for step, value in self._steps[trial.trial_id].items()
        )

    def _put_aside(self, run: Run, trial_id: str) -> None:
        """Keep what was finished under another kind; delete what was not."""
        if ENDED_TAG in run.tags:
            self._keep_as_earlier(run, "trial", trial_id)
        else:
            self._client.delete(run)
        del self._runs["trial", trial_id]
        self._steps.pop(trial_id, None)

    def _keep_as_earlier(self, run: Run, kind: str, name: str) -> None:
        self._client.untag(run, NAME_TAGS[kind])
        self._client.log(run, tags={KIND_TAG: EARLIER})
        self._client.rename(run, f"{name} ({EARLIER})")

    def _create(self, trial: Trial) -> Run:
        started = trial.started
        tags = {
            KIND_TAG: "trial",
            NAME_TAGS["trial"]: trial.trial_id,
            "spine.tier": started.tier,
            "spine.data_version": started.data_version,
            "mlflow.parentRunId": self._tier(trial).run_id,
        }
        run = self._client.create(trial.trial_id, tags, int(started.time * 1000))
        self._runs["trial", trial.trial_id] = run
        self._steps[trial.trial_id] = {}
        return run

    def _tier(self, trial: Trial) -> Run:
        name = trial.started.tier
        if ("tier", name) not in self._runs:
            tags = {KIND_TAG: "tier", NAME_TAGS["tier"]: name}
            self._runs["tier", name] = self._client.create(name, tags, int(trial.started.time * 1000))
        return self._runs["tier", name]

    def _log_all(self, run: Run, trial: Trial, tags: Mapping[str, str]) -> None:
        told = self._steps[trial.trial_id]
        points = [point for step, those in epoch_points(trial).items() if step not in told for point in those]
        params = {key: value for key, value in trial_params(trial.started).items() if key not in run.params}
        self._client.log(run, [*points, *self._numbers(run, trial)], params, tags)
        told.update({epoch.step: epoch.seconds for epoch in trial.epochs})

    def _log_numbers(self, run: Run, trial: Trial) -> None:
        self._client.log(run, self._numbers(run, trial))

    def _numbers(self, run: Run, trial: Trial) -> list[Point]:
        return _points(_news(run, trial_metrics(trial, self._costs)), end_ms(trial))

    def _interrupt(self, run: Run, trial: Trial) -> None:
        self._client.log(run, tags={"spine.reason": "interrupted"})
        self._client.end(run, "KILLED", end_ms(trial))

    def _note_files(self, run: Run, trial: Trial) -> None:
        if run.tags.get(OOF_TAG) != oof_place(self._paths, trial):
            self.without_files[trial.trial_id] = trial

    def _write_ensemble(self, stored: Mapping[str, Any]) -> None:
        """Write the ensemble that the study has now; the one before is kept as an earlier one."""
        text = json.dumps(stored, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        if ("ensemble", key) in self._runs:
            return
        for kind, name in [place for place in self._runs if place[0] == "ensemble"]:
            self._keep_as_earlier(self._runs.pop((kind, name)), kind, kind)
        at_ms = int(self._paths.ensemble.stat().st_mtime * 1000)
        # The key is told last: a run that was cut short is not mistaken for the whole.
        run = self._client.create("ensemble", {KIND_TAG: "ensemble"}, at_ms)
        self._client.put_text(run, "ensemble.json", json.dumps(stored, indent=1) + "\n")
        self._client.end(run, "FINISHED", at_ms)
        tags = {"mlflow.note.content": self._members(stored["members"]), NAME_TAGS["ensemble"]: key}
        self._client.log(run, _points(ensemble_metrics(stored), at_ms), ensemble_params(stored), tags)
        self._runs["ensemble", key] = run

    def _members(self, members: Sequence[Mapping[str, Any]]) -> str:
        """Return the members as Markdown, each with a link to its run."""
        lines = ["| member | weight |", "|---|---|"]
        for member in members:
            run = self._runs.get(("trial", member["trial_id"]))
            where = f"#/experiments/{self._client.experiment_id}/runs/{run.run_id}" if run else ""
            lines.append(f"| [{member['trial_id']}]({where}) | {member['weight']:.3f} |")
        return "\n".join(lines)


def oof_place(paths: StudyPaths, trial: Trial) -> str:
    """Say where a trial's OOF logits are."""
    return str(paths.oof(trial.trial_id).resolve()) if trial.is_completed else f"none, it {trial.status}"


def _is_told(run: Run, trial: Trial) -> bool:
    """Say whether the run lacks nothing of an ended trial."""
    return trial.ended is not None and run.tags.get(ENDED_TAG) == repr(trial.ended.time)


def _news(run: Run, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers that the run does not have, or has otherwise."""
    known = run.metrics
    return {
        key: value
        for key, value in metrics.items()
        if key not in known or not (math.isclose(known[key], value, rel_tol=1e-9) or math.isnan(value))
    }


def _points(metrics: Mapping[str, float], at_ms: int) -> list[Point]:
    return [Point(key=key, value=value, at_ms=at_ms, step=0) for key, value in metrics.items()]
