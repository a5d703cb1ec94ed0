"""Bundles: whole, small, checked."""

import hashlib
import json
import subprocess
from pathlib import Path

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


def name_sums(bundle) -> None:
    """Name the files of a bundle with their hashes, as anybody can."""
    names = [path.relative_to(bundle) for path in (bundle / "bundle.json", *(bundle / "weights").iterdir())]
    done = subprocess.run(["sha256sum", *names], cwd=bundle, capture_output=True, text=True, check=True)
    (bundle / "SHA256SUMS").write_text(done.stdout)


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


ITSELF = Path(__file__).absolute()
OF_NOTHING, OF_ITSELF = (hashlib.sha256(content).hexdigest() for content in (b"", ITSELF.read_bytes()))


def without(name: bytes, sums: bytes) -> bytes:
    return b"".join(line for line in sums.splitlines(keepends=True) if name not in line)


DAMAGE = {
    "a flipped bit": ("weights/frozen.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 1])),
    "a cut file": ("weights/frozen.safetensors", lambda content: content[:100]),
    "another weight": ("bundle.json", lambda content: content.replace(b'"weight": 0.', b'"weight": 1.', 1)),
    "a missing file": ("weights/frozen.safetensors", None),
    "no record": ("bundle.json", None),
    "no sums": ("SHA256SUMS", None),
    "sums of nothing": ("SHA256SUMS", lambda content: b""),
    "sums cut after the record": ("SHA256SUMS", lambda content: content[: content.index(b"\n") + 1]),
    "sums cut before the last weights": ("SHA256SUMS", lambda content: content[: content[:-1].rindex(b"\n") + 1]),
    "sums without what is frozen": ("SHA256SUMS", lambda content: without(b"weights/frozen.safetensors", content)),
    "sums of a file outside": ("SHA256SUMS", lambda content: content + f"{OF_NOTHING}  ../beside\n".encode()),
    "sums of a file by its whole path": ("SHA256SUMS", lambda content: content + f"{OF_ITSELF}  {ITSELF}\n".encode()),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_or_altered_bundle_is_refused_in_one_line(case, copy) -> None:
    name, damage = DAMAGE[case]
    path = copy / name
    (copy.parent / "beside").touch()
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
    name_sums(copy)
    with pytest.raises(ValueError, match=told):
        open_bundle(copy)


def test_weights_that_changed_with_the_sums_cut_short_are_refused(copy) -> None:
    first, *_ = (copy / "SHA256SUMS").read_text().splitlines(keepends=True)
    (copy / "SHA256SUMS").write_text(first)
    weights = next(path for path in (copy / "weights").iterdir() if path.name != "frozen.safetensors")
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"no whole bundle: SHA256SUMS does not name weights/.*\.safetensors$"):
        open_bundle(copy)


def test_a_bundle_without_frozen_tensors_needs_no_file_of_them(copy) -> None:
    values = json.loads((copy / "bundle.json").read_text())
    for member in values["members"]:
        member["frozen"] = {}
    (copy / "bundle.json").write_text(json.dumps(values))
    (copy / "weights" / "frozen.safetensors").unlink()
    name_sums(copy)
    assert len(open_bundle(copy)[0].members) == 4


def test_what_lies_beside_the_bundles_own_files_is_no_part_of_it(copy) -> None:
    (copy / "onnx").mkdir()
    (copy / "onnx" / "member.onnx").write_bytes(b"another program's")
    assert len(open_bundle(copy)[0].members) == 4


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
