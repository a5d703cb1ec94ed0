"""The command as a user runs it; the model as MLflow loads it."""

import base64
import importlib.util
import json
import resource
import shutil
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from spine_ray.export import main
from spine_ray.ship.bundle import open_bundle
from spine_ray.study.paths import StudyPaths
from spine_ray.track.mlflow_log import sqlite_uri

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def exported(shipped_study, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    assert main([str(shipped_study.root), "--out", str(out)]) == 0
    return out


@pytest.mark.timeout(120)
def test_a_bundle_lies_beside_its_mlflow_model(exported) -> None:
    assert sorted(path.name for path in exported.iterdir()) == ["SHA256SUMS", "bundle.json", "mlflow", "weights"]
    artefact, _ = open_bundle(exported)
    assert len(artefact.members) == 4
    assert artefact.cascade is not None
    assert not list(exported.rglob("*.pkl"))


@pytest.mark.timeout(120)
def test_mlflow_says_what_the_search_measured(exported, shipped_study, monkeypatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        import mlflow
        import pandas as pd

        model = mlflow.pyfunc.load_model(str(exported / "mlflow"))
        contents = [(shipped_study.pictures / name).read_bytes() for name in shipped_study.names]
        found = model.predict(pd.DataFrame({"image": contents}))
    probs = found[[name for name in found if name.startswith("p_")]].to_numpy()
    np.testing.assert_allclose(probs, np.exp(shipped_study.log_probs), atol=1e-5)


def test_signature_example_and_pins_are_there(exported) -> None:
    folder = exported / "mlflow"
    text = (folder / "MLmodel").read_text()
    assert '"type": "binary", "name": "image"' in text
    assert "loader_module: spine_ray.ship.served" in text
    pinned = (folder / "requirements.txt").read_text().split()
    assert {line.partition("==")[0] for line in pinned} == {
        "mlflow", "torch", "timm", "numpy", "pillow", "safetensors", "pandas",
    }  # fmt: skip
    assert all("==" in line for line in pinned)
    (row,) = json.loads((folder / "serving_input_example.json").read_text())["dataframe_split"]["data"]
    assert base64.b64decode(row[0]).startswith(b"\x89PNG")
    assert (folder / "code" / "spine_ray" / "ship" / "served.py").exists()


def test_what_is_there_is_not_written_over(exported, shipped_study, capsys) -> None:
    before = (exported / "SHA256SUMS").read_bytes()
    assert main([str(shipped_study.root), "--out", str(exported)]) == 2
    assert capsys.readouterr().err == f"error: {exported} is there already: name a new folder\n"
    assert (exported / "SHA256SUMS").read_bytes() == before


def test_a_study_that_is_none_is_refused_and_nothing_is_left(tmp_path, capsys) -> None:
    assert main([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "there is no study" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", ["empty", "nowhere"])
def test_a_link_is_refused_before_anything_is_done(shipped_study, tmp_path, capsys, target) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(target)
    assert main([str(shipped_study.root), "--out", str(tmp_path / "link")]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'link'} is a link: name a new folder\n"


def test_a_folder_that_cannot_be_made_is_one_line(shipped_study, tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert main([str(shipped_study.root), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {out} was not written: [Errno")
    assert error.count("\n") == 1


def test_a_disk_without_room_is_one_line_that_names_the_bundle_and_leaves_nothing(
    shipped_study, tmp_path, capsys
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # the same error at the same place as a full disk
    try:
        code = main([str(shipped_study.root), "--out", str(tmp_path / "out")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capsys.readouterr().err
    assert code == 2
    assert error.startswith(f"error: {tmp_path / 'out'} was not written: ")
    assert "File too large" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is not None, reason="what it needs is installed")
def test_onnx_says_what_it_needs_before_anything_is_written(shipped_study, tmp_path, capsys) -> None:
    assert main([str(shipped_study.root), "--out", str(tmp_path / "out"), "--onnx"]) == 2
    assert "pip install onnx onnxscript onnxruntime" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(autouse=True)
def modules_of_the_model_stay_out():
    """MLflow puts the model's own copy of the package in front; the other tests want theirs."""
    before = list(sys.path)
    yield
    sys.path[:] = before


@pytest.mark.timeout(180)
@pytest.mark.filterwarnings("ignore")  # MLflow's database layer has its own
def test_the_registered_model_is_that_of_the_ensembles_run(shipped_study, tmp_path, capfd) -> None:
    from mlflow.pyfunc import load_model
    from mlflow.tracking import MlflowClient

    study = tmp_path / "study"
    shutil.copytree(shipped_study.root, study)
    for place in ("first", "second"):
        assert main([str(study), "--out", str(tmp_path / place), "--register", "my digits"]) == 0
    assert "registered as models:/my digits/2" in capfd.readouterr().out
    uri = sqlite_uri(StudyPaths(study).tracking)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version("my digits", "2")
    run = client.get_run(version.run_id)
    assert run.data.tags["spine.kind"] == "ensemble"
    assert run.data.tags["spine.model"] == "models:/my digits/2"
    content = (shipped_study.pictures / shipped_study.names[0]).read_bytes()
    folder = client.download_artifacts(version.run_id, "model", str(tmp_path))
    found = load_model(folder).predict(pd.DataFrame({"image": [content]}))
    probs = found[[name for name in found if name.startswith("p_")]].to_numpy()
    np.testing.assert_allclose(probs, np.exp(shipped_study.log_probs[:1]), atol=1e-5)


@pytest.mark.parametrize("name", ["", "a/b", "models:/x", "it's"])
def test_a_name_that_means_something_to_mlflow_is_refused_before_anything_is_written(
    shipped_study, tmp_path, capfd, name
) -> None:
    assert main([str(shipped_study.root), "--out", str(tmp_path / "out"), "--register", name]) == 2
    assert "--register takes a name" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.timeout(120)
def test_without_mlflow_the_bundle_is_whole(exported, shipped_study, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("spine_ray.climb.export.has_mlflow", lambda: False)
    out = tmp_path / "out"
    assert main([str(shipped_study.root), "--out", str(out)]) == 0
    assert "  no MLflow model: MLflow is not installed\n" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"SHA256SUMS", "bundle.json", "weights"}
    assert (out / "SHA256SUMS").read_bytes() == (exported / "SHA256SUMS").read_bytes()


def test_without_mlflow_nothing_is_registered_and_nothing_written(shipped_study, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("spine_ray.climb.export.has_mlflow", lambda: False)
    assert main([str(shipped_study.root), "--out", str(tmp_path / "out"), "--register", "digits"]) == 2
    assert capsys.readouterr().err == "error: --register: MLflow is not installed; pip install mlflow\n"
    assert not (tmp_path / "out").exists()
