"""MLflow's client as this room uses it: the runs of one experiment, and what is known of each without asking again."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_ray.track.records import Point

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A request that timed out may have been carried out: what repeats it has to look first.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What MLflow is told before it is imported, unless the user's environment says otherwise."""

METRICS_PER_BATCH = 900
PARAMS_PER_BATCH = 90
"""MLflow refuses more than 1000 metrics or 100 params in one request."""

SQLITE = "sqlite:///"
STUDY_TAG = "spine.study"


@dataclass(slots=True)
class Run:
    """A run as it stands in MLflow."""

    run_id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """Latest value of each."""


class Client:
    """The runs of one study in one MLflow store. Every method may raise whatever MLflow raises."""

    def __init__(self, uri: str, study: str, study_id: str) -> None:
        """Import MLflow (seconds), connect, and find or create the study's experiment.

        Args:
            uri: MLflow's tracking URI.
            study: Name of the experiment; another study of that name gets a longer one.
            study_id: What tells the study from others of its name.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        for noisy in ("alembic", "mlflow"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        # Imported here and not above: it takes seconds, which only the writer's thread has.
        import mlflow.entities
        from mlflow.tracking import MlflowClient

        self._entities: Any = mlflow.entities
        self._mlflow: Any = MlflowClient(tracking_uri=uri)
        self._place = _artifacts_beside(uri)
        experiment = self._find_or_create_experiment(study, study_id)
        self.experiment_id, self._experiment_tags = str(experiment.experiment_id), dict(experiment.tags)

    def runs(self) -> Iterator[Run]:
        """Yield every run that was not deleted, newest first."""
        token = None
        while True:
            page = self._mlflow.search_runs([self.experiment_id], max_results=1000, page_token=token)
            for run in page:
                data = run.data
                yield Run(run.info.run_id, run.info.status, dict(data.tags), dict(data.params), dict(data.metrics))
            token = page.token
            if not token:
                return

    def curve(self, run: Run, key: str) -> dict[int, float]:
        """Return the values of a metric by step."""
        return {point.step: point.value for point in self._mlflow.get_metric_history(run.run_id, key)}

    def tag_experiment(self, key: str, value: str) -> None:
        """Set a tag of the experiment where it is not so already."""
        if self._experiment_tags.get(key) != value:
            self._mlflow.set_experiment_tag(self.experiment_id, key, value)
            self._experiment_tags[key] = value

    def create(self, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """Create a run that is running."""
        run = self._mlflow.create_run(self.experiment_id, start_time=start_ms, tags=dict(tags), run_name=name)
        return Run(str(run.info.run_id), "RUNNING", dict(tags))

    def log(
        self,
        run: Run,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Add points and params, then set tags, in as few requests as MLflow allows.

        What the store has already in the same words stays one; a tag that is so already is not set again.
        """
        metrics = [self._entities.Metric(each.key, each.value, each.at_ms, each.step) for each in points]
        texts = [self._entities.Param(key, value) for key, value in (params or {}).items()]
        new = {key: value for key, value in (tags or {}).items() if run.tags.get(key, "") != value}
        while metrics or texts or new:
            is_last = len(metrics) <= METRICS_PER_BATCH and len(texts) <= PARAMS_PER_BATCH
            marks = [self._entities.RunTag(key, value) for key, value in new.items()] if is_last else []
            self._mlflow.log_batch(run.run_id, metrics[:METRICS_PER_BATCH], texts[:PARAMS_PER_BATCH], marks)
            metrics, texts = metrics[METRICS_PER_BATCH:], texts[PARAMS_PER_BATCH:]
            if is_last:
                break
        run.metrics |= {each.key: each.value for each in points}
        run.params |= params or {}
        run.tags |= new

    def reopen(self, run: Run) -> None:
        """Let a run be running."""
        if run.status != "RUNNING":
            self._mlflow.update_run(run.run_id, status="RUNNING")
            run.status = "RUNNING"

    def end(self, run: Run, status: str, end_ms: int) -> None:
        """Let a run be over."""
        if run.status != status:
            self._mlflow.set_terminated(run.run_id, status=status, end_time=end_ms)
            run.status = status

    def untag(self, run: Run, key: str) -> None:
        """Take a tag away where there is one."""
        if run.tags.pop(key, None) is not None:
            self._mlflow.delete_tag(run.run_id, key)

    def rename(self, run: Run, name: str) -> None:
        """Give a run another name."""
        self._mlflow.update_run(run.run_id, name=name)

    def delete(self, run: Run) -> None:
        """Delete a run; MLflow can restore it."""
        self._mlflow.delete_run(run.run_id)

    def put_text(self, run: Run, name: str, text: str) -> None:
        """Store a small file with a run."""
        self._mlflow.log_text(run.run_id, text, name)

    def register(self, run: Run, model: Path, name: str) -> str:
        """Store a model's folder with a run and make it a new version of a registered model; return its URI."""
        self._mlflow.log_artifacts(run.run_id, str(model), "model")
        if not self._mlflow.search_registered_models(filter_string=f"name = '{name}'"):
            self._mlflow.create_registered_model(name)
        made = self._mlflow.create_model_version(name, f"runs:/{run.run_id}/model", run.run_id)
        return f"models:/{name}/{made.version}"

    def _find_or_create_experiment(self, study: str, study_id: str) -> Any:
        for known in self._mlflow.search_experiments(filter_string=f"tags.`{STUDY_TAG}` = '{study_id}'"):
            if self._place in (None, known.artifact_location):
                return known
            # The study was moved since: new files cannot go to where it was.
            self._mlflow.rename_experiment(known.experiment_id, f"{known.name} as it was at {known.artifact_location}")
            self._mlflow.set_experiment_tag(known.experiment_id, STUDY_TAG, f"{study_id} moved")
        free = next(name for name in _names(study, study_id) if self._mlflow.get_experiment_by_name(name) is None)
        tags = {STUDY_TAG: study_id, "mlflow.experimentKind": "custom_model_development"}
        return self._mlflow.get_experiment(
            self._mlflow.create_experiment(free, artifact_location=self._place, tags=tags)
        )


def _artifacts_beside(uri: str) -> str | None:
    """Return where a database file's artifacts go: MLflow would put them under the working directory."""
    if not uri.startswith(SQLITE):
        return None
    return (Path(uri.removeprefix(SQLITE)).absolute().parent / "mlruns").as_uri()


def _names(study: str, study_id: str) -> Iterator[str]:
    yield study
    yield f"{study}-{study_id[:6]}"
    number = 2
    while True:
        yield f"{study}-{study_id[:6]}-{number}"
        number += 1
