"""A study from Python."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from spine_ray import open_study
from spine_ray.climb.artefact import study_artefact, with_cascade
from spine_ray.climb.choice import stored_choice
from spine_ray.climb.pick import open_stored
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import log_loss
from spine_ray.study.paths import StudyPaths
from spine_ray.study.survey import opened_to_change


@pytest.fixture(scope="module")
def study(shipped_study):
    return open_study(shipped_study.root)


def test_the_board_ranks_completed_trials_by_their_oof_log_loss(study) -> None:
    rows = study.board().to_pylist()
    assert len(rows) == 4
    assert [row["log_loss"] for row in rows] == sorted(row["log_loss"] for row in rows)
    assert rows[0]["behind"] == 0.0
    assert all(row["low"] < row["log_loss"] < row["high"] and row["is_member"] for row in rows)


def test_oof_logits_are_those_of_the_board(study) -> None:
    best = study.board().to_pylist()[0]
    table = study.oof(best["trial_id"])
    logits = np.array(table.column("logits").to_pylist(), np.float32)
    labels = table.column("label").to_numpy()
    assert log_loss(log_probs(logits, fit_temperature(logits, labels)), labels) == pytest.approx(best["log_loss"])
    assert study.oof("test_vit").num_rows == table.num_rows
    with pytest.raises(ValueError, match="names 2 trials"):
        study.oof("test_resnet")


def test_trials_are_a_table_that_pandas_takes(study) -> None:
    frame = study.trials().to_pandas()
    assert set(frame.status) == {"completed"}
    assert set(frame.backbone) == {"test_resnet", "test_vit", "test_efficientnet"}


def test_the_ensemble_is_what_the_study_keeps(study, shipped_study) -> None:
    assert study.ensemble() == json.loads((shipped_study.root / "ensemble.json").read_text())


def test_folders_paths_and_bytes_are_predicted_alike(study, shipped_study) -> None:
    whole = study.predict(shipped_study.pictures)
    paths = [shipped_study.pictures / name for name in whole.column("sample").to_pylist()]
    by_path = study.predict(paths)
    by_bytes = study.predict([path.read_bytes() for path in paths])
    assert by_path.column("p_digit 3") == whole.column("p_digit 3") == by_bytes.column("p_digit 3")
    labels = [name.partition("/")[0] for name in whole.column("sample").to_pylist()]
    right = np.mean([said == label for said, label in zip(whole.column("class").to_pylist(), labels, strict=True)])
    assert right == pytest.approx((shipped_study.log_probs.argmax(axis=1) == shipped_study.truth).mean())


def test_a_picture_that_cannot_be_read_is_a_row(study) -> None:
    (row,) = study.predict([b"no picture"]).to_pylist()
    assert row["error"] == "not a picture of a known kind"
    assert row["class"] is None


def test_no_pictures_and_no_study_are_refused(study, tmp_path) -> None:
    with pytest.raises(ValueError, match="hold no pictures"):
        study.predict([])
    with pytest.raises(ValueError, match="there is no study"):
        open_study(tmp_path)


def test_importing_the_package_loads_no_library() -> None:
    code = "import spine_ray, sys; sys.exit(any(name in sys.modules for name in ('numpy', 'torch', 'pyarrow', 'ray')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_was_fitted_predicts_though_oof_logits_are_lost(shipped_study, tmp_path) -> None:
    root = tmp_path / "study"
    shutil.copytree(shipped_study.root, root)
    paths = StudyPaths(root)
    member = stored_choice(paths)["members"][0]["trial_id"]
    paths.oof(member).unlink()
    with opened_to_change(paths):  # which has the trial begun anew
        pass
    found = open_study(root).predict(shipped_study.pictures)
    whole = open_study(shipped_study.root).predict(shipped_study.pictures)
    assert found.equals(whole)
    stored = open_stored(root)
    with pytest.raises(ValueError, match=f"OOF logits of {member} are lost"):
        with_cascade(stored, study_artefact(stored)[0])
