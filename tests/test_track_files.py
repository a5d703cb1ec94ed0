from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, write_record
from spine_ray.study.trials import trials_from_events
from spine_ray.track.files import confusion, trial_files
from tests.support.tracked import ended, started, whole_trial

TRIAL = next(iter(trials_from_events(whole_trial(started())).values()))
LABELS, SAID = [0, 0, 0, 1, 1, 2], [0, 0, 2, 1, 1, 1]
COUNTS = [[2, 0, 1], [0, 2, 0], [0, 1, 0]]


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    """A study of three classes with one completed trial."""
    paths = StudyPaths(tmp_path)
    record = StudyRecord(
        seed=0,
        data="pictures",
        data_fingerprint="a",
        fold_fingerprint="b",
        classes=("cat", "dog", "<b>"),
        versions={},
        device="cpu",
        weights=WeightsRecord(kind="random", source="random", hashes={}),
        choices=Choices(activation_bytes=0, arithmetic={}),
    )
    write_record(paths, record)
    logits = np.eye(3, dtype=np.float32)[SAID]
    table = pa.table(
        {
            "label": pa.array(LABELS, pa.int32()),
            "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), 3),
        }
    )
    paths.oof(TRIAL.trial_id).parent.mkdir()
    pq.write_table(table, paths.oof(TRIAL.trial_id))
    return paths


def test_labels_are_counted_against_what_is_said(paths: StudyPaths) -> None:
    assert confusion(paths, TRIAL.trial_id, 3).tolist() == COUNTS


def test_a_completed_trial_carries_its_configuration_and_its_confusion(paths: StudyPaths) -> None:
    files = trial_files(paths, TRIAL)
    assert set(files) == {"config.json", "confusion_matrix.csv", "confusion_matrix.html"}
    assert files["confusion_matrix.csv"].splitlines() == ["label,cat,dog,<b>", "cat,2,0,1", "dog,0,2,0", "<b>,0,1,0"]
    assert "&lt;b&gt;" in files["confusion_matrix.html"]
    assert "<b>" not in files["confusion_matrix.html"]


def test_a_stopped_trial_carries_its_configuration_alone(paths: StudyPaths) -> None:
    assert set(trial_files(paths, replace(TRIAL, ended=ended(TRIAL.trial_id, "stopped")))) == {"config.json"}


def test_logits_of_other_classes_are_refused(paths: StudyPaths) -> None:
    with pytest.raises(ValueError, match="2 classes"):
        confusion(paths, TRIAL.trial_id, 2)
