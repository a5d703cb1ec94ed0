"""Bundles: whole, small, checked."""

import json
import subprocess

import numpy as np
import pytest
import torch
from safetensors import safe_open

from spine_ray.climb.artefact import study_artefact, with_cascade
from spine_ray.climb.pick import open_stored
from spine_ray.data.albums import open_album
from spine_ray.ship.bundle import new_folder, open_bundle, write_bundle
from spine_ray.ship.run import Predictor


@pytest.fixture(scope="module")
def study(shipped_study):
    return open_stored(shipped_study.root)


@pytest.fixture(scope="module")
def bundle(study, tmp_path_factory):
    artefact, tensors = study_artefact(study)
    out = tmp_path_factory.mktemp("bundle") / "out"
    with new_folder(out) as folder:
        write_bundle(with_cascade(study, artefact), tensors, folder)
    return out


@pytest.fixture
def copy(bundle, tmp_path):
    """A bundle that may be damaged."""
    subprocess.run(["cp", "-r", str(bundle), str(tmp_path / "copy")], check=True)
    return tmp_path / "copy"


def log_probs(artefact, tensors, pictures) -> np.ndarray:
    blocks = Predictor(artefact, tensors).predict(open_album(str(pictures)))
    return np.concatenate([block.log_probs for block in blocks])


def test_a_bundle_says_what_the_study_says(study, bundle, shipped_study) -> None:
    expected = log_probs(*study_artefact(study), shipped_study.pictures)
    torch.manual_seed(12345)  # whatever was drawn in between
    np.testing.assert_allclose(log_probs(*open_bundle(bundle), shipped_study.pictures), expected, atol=1e-6)


def test_all_that_decides_comes_back(study, bundle) -> None:
    artefact, _ = open_bundle(bundle)
    expected = with_cascade(study, study_artefact(study)[0])
    for name in ("classes", "seed", "stored_side", "members", "mix", "cascade"):
        assert getattr(artefact, name) == getattr(expected, name), name


def test_it_says_where_it_comes_from_and_what_its_numbers_describe(study, bundle) -> None:
    about = open_bundle(bundle)[0].about
    assert about["fitted_on"]["data_fingerprint"] == study.samples.data_fingerprint
    assert about["fitted_on"]["rows"] == len(study.samples.dev)
    assert "optimistic" in about["oof"]["what"]
    assert about["test"][0]["accuracy"] > 0
    assert about["test_openings"] == 1
    assert about["versions"]["exported_with"]["torch"] == torch.__version__.partition("+")[0]
    members = json.loads((bundle / "bundle.json").read_text())["members"]
    assert {(each["weights_source"], each["licence"]) for each in members} == {("random", "unknown")}


def test_frozen_tensors_of_several_members_are_stored_once(bundle, study) -> None:
    members = json.loads((bundle / "bundle.json").read_text())["members"]
    shared = [set(each["frozen"].values()) for each in members if each["config"]["freeze"] == 0.5]
    assert shared[0] == shared[1]
    with safe_open(bundle / "weights" / "frozen.safetensors", framework="np") as file:
        assert set(file.keys()) == set().union(*(set(each["frozen"].values()) for each in members))
    names = [path.name for path in (bundle / "weights").iterdir()]
    assert len(names) == 5  # one a member and the frozen part


def test_other_tools_can_check_it(bundle) -> None:
    done = subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=bundle, check=False)
    assert done.returncode == 0


def test_nothing_in_it_is_pickled(bundle) -> None:
    assert {path.suffix for path in bundle.rglob("*") if path.is_file()} == {".json", ".safetensors", ""}


DAMAGE = {
    "a flipped bit": ("weights/frozen.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    "a cut file": ("weights/frozen.safetensors", lambda content: content[:100]),
    "another weight": ("bundle.json", lambda content: content.replace(b'"weight": 0.', b'"weight": 1.', 1)),
    "a missing file": ("weights/frozen.safetensors", None),
    "no record": ("bundle.json", None),
    "no sums": ("SHA256SUMS", None),
    "sums of nothing": ("SHA256SUMS", lambda content: b""),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_or_altered_bundle_is_refused_in_one_line(case, copy) -> None:
    name, damage = DAMAGE[case]
    path = copy / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"no whole bundle|damaged or was altered") as caught:
        open_bundle(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"members": [{}]}, "is damaged"),
        ({"pool": "mean"}, "log or prob"),
    ],
)
def test_a_record_that_this_release_does_not_know_is_refused(change, told, copy) -> None:
    values = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**values, **change}))
    sums = subprocess.run(["sha256sum", "bundle.json"], cwd=copy, capture_output=True, text=True, check=True).stdout
    (copy / "SHA256SUMS").write_text(sums)
    with pytest.raises(ValueError, match=told):
        open_bundle(copy)


def test_a_folder_that_is_there_is_left_alone(tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="is there already"), new_folder(tmp_path / "out"):
        pass
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_bundle_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(KeyError), new_folder(tmp_path / "out") as folder:
        (folder / "half").touch()
        raise KeyError
    assert not list(tmp_path.iterdir())
