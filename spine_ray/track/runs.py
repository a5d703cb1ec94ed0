"""MLflow runs of one study: a parent per tier, a child per trial, found again by tag before one is created."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spine_ray.study.events import EpochDone, TrialEnded, TrialResumed, TrialStarted
from spine_ray.track.records import (
    RUN_STATUS,
    EnsembleChosen,
    Entry,
    epoch_metrics,
    final_metrics,
    summary_fields,
    trial_params,
)

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What MLflow is told before it is imported, unless the user's environment says otherwise."""

METRICS_PER_BATCH = 900
PARAMS_PER_BATCH = 100
"""MLflow refuses more than 1000 metrics or 100 params in one request."""

SQLITE = "sqlite:///"

_log = logging.getLogger(__name__)


class RunStore:
    """The runs of one study in one MLflow store. Every method may raise whatever MLflow raises."""

    def __init__(self, uri: str, study: str) -> None:
        """Import MLflow (seconds), connect, and find or create the experiment named after the study."""
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # Imported here and not above: it takes seconds, which only the writer's thread has.
        import mlflow.entities
        from mlflow.tracking import MlflowClient

        self._entities: Any = mlflow.entities
        self._client: Any = MlflowClient(tracking_uri=uri)
        self._experiment = self._find_or_create_experiment(uri, study)
        self._tiers: dict[str, str] = {}
        self._trials: dict[str, str] = {}
        self._steps: dict[str, set[int]] = {}
        self._pending: dict[str, list[Any]] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        """Write entries in order. What the store has already is not written again."""
        for entry in entries:
            content = entry.content
            if isinstance(content, TrialStarted):
                self._start_trial(content)
            elif isinstance(content, EpochDone):
                self._log_epoch(content, entry.at_ms)
            elif isinstance(content, TrialResumed):
                self._tell_resumed(content)
            elif isinstance(content, TrialEnded):
                self._end_trial(content, entry.at_ms)
            else:
                self._log_ensemble(content, entry.at_ms)
        self._flush()

    def end_open_runs(self) -> None:
        """End what still runs: tiers are finished; a trial without an end was interrupted."""
        self._flush()
        for run in self._search("attributes.status = 'RUNNING'", limit=1000):
            is_trial = run.data.tags.get("spine.kind") == "trial"
            if is_trial:
                self._client.set_tag(run.info.run_id, "spine.reason", "interrupted")
            self._client.set_terminated(run.info.run_id, status="KILLED" if is_trial else "FINISHED")

    def _find_or_create_experiment(self, uri: str, study: str) -> str:
        known = self._client.get_experiment_by_name(study)
        if known is not None:
            return str(known.experiment_id)
        # Without a place of its own, MLflow would put artifacts under the working directory.
        beside = Path(uri.removeprefix(SQLITE)).absolute().parent / "mlruns"
        location = beside.as_uri() if uri.startswith(SQLITE) else None
        return str(self._client.create_experiment(study, artifact_location=location))

    def _search(self, condition: str, limit: int = 1) -> list[Any]:
        return list(self._client.search_runs([self._experiment], filter_string=condition, max_results=limit))

    def _find(self, kind: str, key: str) -> Any | None:
        found = self._search(f"tags.`spine.kind` = '{kind}' and tags.`spine.{kind}` = '{key}'")
        return found[0] if found else None

    def _create(self, name: str, tags: Mapping[str, str], start_ms: int) -> str:
        run = self._client.create_run(self._experiment, start_time=start_ms, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def _tier_run(self, tier: str, start_ms: int) -> str:
        if tier not in self._tiers:
            found = self._find("tier", tier)
            if found is not None:
                self._reopen(found)
                self._tiers[tier] = found.info.run_id
            else:
                self._tiers[tier] = self._create(tier, {"spine.kind": "tier", "spine.tier": tier}, start_ms)
        return self._tiers[tier]

    def _start_trial(self, event: TrialStarted) -> None:
        start_ms = int(event.time * 1000)
        parent = self._tier_run(event.tier, start_ms)
        found = self._find_trial(event.trial_id)
        if found is not None:
            run_id, logged, measured = found.info.run_id, found.data.params, found.data.metrics
            self._reopen(found)
        else:
            tags = {
                "spine.kind": "trial",
                "spine.trial_id": event.trial_id,
                "spine.tier": event.tier,
                "mlflow.parentRunId": parent,
            }
            run_id, logged, measured = self._create(event.trial_id, tags, start_ms), {}, {}
            self._steps[run_id] = set()
        self._trials[event.trial_id] = run_id
        # A param cannot change in MLflow: only those that are missing are sent.
        missing = {key: value for key, value in trial_params(event).items() if key not in logged}
        sizes = {"cost_params": float(event.params), "cost_macs": float(event.macs)}
        self._log(run_id, missing, {} if sizes.keys() <= measured.keys() else sizes, start_ms)

    def _find_trial(self, trial_id: str) -> Any | None:
        found = self._search(f"tags.`spine.trial_id` = '{trial_id}'")
        return found[0] if found else None

    def _reopen(self, run: Any) -> None:
        if run.info.status != "RUNNING":
            self._client.update_run(run.info.run_id, status="RUNNING")
            self._client.set_tag(run.info.run_id, "spine.reason", "")

    def _trial_run(self, trial_id: str) -> str | None:
        if trial_id not in self._trials:
            found = self._find_trial(trial_id)
            if found is None:
                # Not an error: it would hold back all that waits behind it, for ever.
                _log.warning("an event of trial %s is left out: its start was never tracked", trial_id)
                return None
            self._trials[trial_id] = found.info.run_id
        return self._trials[trial_id]

    def _log_epoch(self, event: EpochDone, at_ms: int) -> None:
        run_id = self._trial_run(event.trial_id)
        if run_id is None:
            return
        if run_id not in self._steps:
            history = self._client.get_metric_history(run_id, "log_loss")
            self._steps[run_id] = {metric.step for metric in history}
        if event.step in self._steps[run_id]:
            return
        self._steps[run_id].add(event.step)
        waiting = self._pending.setdefault(run_id, [])
        waiting += self._metrics(epoch_metrics(event), at_ms, event.step)
        if len(waiting) > METRICS_PER_BATCH:
            self._flush()

    def _tell_resumed(self, event: TrialResumed) -> None:
        run_id = self._trial_run(event.trial_id)
        if run_id is not None:
            self._client.set_tag(run_id, "spine.resumed", f"from epoch {event.step}: {event.reason}")

    def _end_trial(self, event: TrialEnded, at_ms: int) -> None:
        run_id = self._trial_run(event.trial_id)
        if run_id is None:
            return
        self._pending.setdefault(run_id, []).extend(self._metrics(final_metrics(event), at_ms, event.step))
        self._flush()
        self._client.set_tag(run_id, "spine.reason", event.reason)
        self._client.set_terminated(run_id, status=RUN_STATUS[event.status], end_time=int(event.time * 1000))

    def _log_ensemble(self, chosen: EnsembleChosen, at_ms: int) -> None:
        if self._find("ensemble", chosen.key) is not None:
            return
        params, metrics = summary_fields(chosen.summary)
        # The tag comes last: a run that was cut short is not mistaken for the whole.
        run_id = self._create("ensemble", {"spine.kind": "ensemble"}, at_ms)
        self._log(run_id, params, metrics, at_ms)
        self._client.set_tag(run_id, "spine.ensemble", chosen.key)
        self._client.set_terminated(run_id, status="FINISHED", end_time=at_ms)

    def _metrics(self, values: Mapping[str, float], at_ms: int, step: int) -> list[Any]:
        return [self._entities.Metric(key, float(value), at_ms, step) for key, value in values.items()]

    def _log(self, run_id: str, params: Mapping[str, str], metrics: Mapping[str, float], at_ms: int) -> None:
        listed = [self._entities.Param(key, value) for key, value in params.items()]
        self._client.log_batch(run_id, metrics=self._metrics(metrics, at_ms, 0), params=listed[:PARAMS_PER_BATCH])
        for first in range(PARAMS_PER_BATCH, len(listed), PARAMS_PER_BATCH):
            self._client.log_batch(run_id, params=listed[first : first + PARAMS_PER_BATCH])

    def _flush(self) -> None:
        for run_id, metrics in self._pending.items():
            if metrics:
                self._client.log_batch(run_id, metrics=metrics)
        self._pending.clear()
