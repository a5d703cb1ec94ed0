"""What a finished study must hold, wherever it was searched."""

import json
from pathlib import Path

import mlflow
import pyarrow.parquet as pq

from spine_ray.study.ledger import read_ledger
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.tables import read_costs, read_samples
from spine_ray.study.trials import trials_from_events
from spine_ray.track.mlflow_log import sqlite_uri


def check_files(study: Path, *, dev: int, test: int, folds: int) -> None:
    """Check every file of the contract in a study of the smoke space."""
    paths, record = StudyPaths(study), read_record(study)
    assert record.weights.kind == "pretrained"
    assert set(record.weights.hashes) >= {"test_resnet", "test_vit"}
    assert paths.space("smoke").exists()
    samples = read_samples(paths.samples)
    assert (len(samples.dev), len(samples.test), samples.num_folds) == (dev, test, folds)
    trials = trials_from_events(read_ledger(paths.ledger))
    table = {row["trial_id"]: row for row in pq.read_table(paths.trials).to_pylist()}
    assert set(table) == set(trials)
    for name, trial in trials.items():
        assert table[name]["status"] == trial.status
        assert paths.oof(name).exists() == trial.is_completed
        if trial.is_completed:
            assert read_oof(paths, name, samples).shape == (dev, len(record.classes))
    assert {key[0] for key in read_costs(paths)} >= {"test_efficientnet", "test_resnet", "test_vit"}
    assert [decision["gate"] for decision in json.loads(paths.gates.read_text())][:1] == ["sound"]
    ensemble = json.loads(paths.ensemble.read_text())
    for member in ensemble["members"]:
        assert paths.refit(member["trial_id"]).exists()
    assert len(record.test_openings) == 1
    assert paths.report.read_text().startswith("<!DOCTYPE html>")


def tracked_trials(study: Path) -> set[str]:
    """Return the trials that have a run in the study's own MLflow database."""
    client = mlflow.MlflowClient(sqlite_uri(StudyPaths(study).tracking))
    experiment = client.get_experiment_by_name(study.name)
    runs = client.search_runs([experiment.experiment_id], "tags.`spine.trial_id` LIKE '%'")
    return {run.data.tags["spine.trial_id"] for run in runs}
