from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from spine_ray.study.paths import StudyPaths
from spine_ray.study.shipped import check_refit, is_fitted, read_heads, read_refit, write_heads, write_refit

ARRAYS = {
    "head.weight": np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32),
    "head.bias": np.zeros(3, np.float32),
    "norm.num_batches_tracked": np.array(17, np.int64),
    "stem.weight": np.asfortranarray(np.arange(12.0, dtype=np.float32).reshape(3, 4)),
}


def test_tensors_come_back_bit_for_bit(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    write_refit(paths, "a", ARRAYS, frozen_hash="random", data_version="rows")
    found = read_refit(paths, "a")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    assert [path.name for path in paths.refit("a").parent.iterdir()] == ["refit.safetensors"]


def test_the_file_names_its_trial_and_its_frozen_part(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    write_refit(paths, "a", ARRAYS, frozen_hash="f" * 64, data_version="rows")
    with safe_open(paths.refit("a"), framework="np") as file:
        told = file.metadata()
    assert told.items() >= {"trial_id": "a", "frozen": "f" * 64, "data_version": "rows"}.items()


def test_a_member_fitted_again_replaces_the_file(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    write_refit(paths, "a", ARRAYS, frozen_hash="random", data_version="rows")
    write_refit(paths, "a", {"head.bias": np.ones(3, np.float32)}, frozen_hash="random", data_version="rows")
    assert list(read_refit(paths, "a")) == ["head.bias"]


def test_a_member_is_fitted_only_on_the_rows_it_was_fitted_on(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    assert not is_fitted(paths, "a", "rows")
    write_refit(paths, "a", ARRAYS, frozen_hash="random", data_version="rows")
    assert is_fitted(paths, "a", "rows")
    assert not is_fitted(paths, "a", "more rows")


@pytest.mark.parametrize("kept", [0, 4, -6])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, kept: int) -> None:
    paths = StudyPaths(tmp_path)
    write_refit(paths, "a", ARRAYS, frozen_hash="random", data_version="rows")
    paths.refit("a").write_bytes(paths.refit("a").read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"the weights in .*refit\.safetensors cannot be read") as caught:
        read_refit(paths, "a")
    assert "\n" not in str(caught.value)
    assert not is_fitted(paths, "a", "rows")


def test_a_changed_byte_is_found_by_the_checksum(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    write_refit(paths, "a", ARRAYS, frozen_hash="random", data_version="rows")
    check_refit(paths.refit("a"))
    content = bytearray(paths.refit("a").read_bytes())
    content[-3] ^= 1
    paths.refit("a").write_bytes(content)
    with pytest.raises(ValueError, match="not what their checksum says"):
        check_refit(paths.refit("a"))
    assert not is_fitted(paths, "a", "rows")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the weights in .*b.refit\.safetensors cannot be read"):
        read_refit(StudyPaths(tmp_path), "b")


HEADS = {
    fold: (
        np.random.default_rng(fold).normal(size=(3, 4)).astype(np.float32),
        np.full(3, fold, np.float32),
    )
    for fold in range(11)
}


def test_the_heads_of_a_probe_come_back_bit_for_bit_by_fold(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    write_heads(paths, "p", HEADS, frozen_hash="f" * 64, data_version="rows")
    assert paths.probe_heads("p") == tmp_path / "probes" / "p.safetensors"
    found = read_heads(paths, "p", frozen_hash="f" * 64, data_version="rows")
    assert list(found) == list(HEADS)
    for fold, head in HEADS.items():
        for kept, written in zip(found[fold], head, strict=True):
            assert kept.dtype == np.float32
            np.testing.assert_array_equal(kept, written)


def test_heads_of_other_rows_or_another_backbone_or_none_are_none(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    assert read_heads(paths, "p", frozen_hash="f", data_version="rows") == {}
    write_heads(paths, "p", HEADS, frozen_hash="f", data_version="rows")
    assert read_heads(paths, "p", frozen_hash="f", data_version="more rows") == {}
    assert read_heads(paths, "p", frozen_hash="g", data_version="rows") == {}
    assert len(read_heads(paths, "p", frozen_hash="f", data_version="rows")) == len(HEADS)


@pytest.mark.parametrize("kept", [0, 4, -6])
def test_damaged_heads_are_none_and_are_written_anew(tmp_path: Path, kept: int) -> None:
    paths = StudyPaths(tmp_path)
    write_heads(paths, "p", HEADS, frozen_hash="f", data_version="rows")
    whole = paths.probe_heads("p").read_bytes()
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    for content in (whole[:kept], bytes(flipped)):
        paths.probe_heads("p").write_bytes(content)
        assert read_heads(paths, "p", frozen_hash="f", data_version="rows") == {}
    write_heads(paths, "p", HEADS, frozen_hash="f", data_version="rows")
    assert len(read_heads(paths, "p", frozen_hash="f", data_version="rows")) == len(HEADS)
