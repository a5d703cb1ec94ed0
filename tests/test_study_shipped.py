from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from spine_ray.study.paths import StudyPaths
from spine_ray.study.shipped import check_refit, is_fitted, read_refit, write_refit

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
