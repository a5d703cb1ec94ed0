from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.data.samples import Samples
from spine_ray.study.control import read_control, write_control
from spine_ray.study.paths import StudyPaths

SAMPLES = Samples(
    sample_ids=tuple("abcdef"),
    paths=tuple(f"{name}.png" for name in "abcdef"),
    labels=np.array([0, 0, 0, 1, 1, 1]),
    classes=("left", "right"),
    groups=np.arange(6),
    splits=("dev", "dev", "dev", "dev", "test", "dev"),
    folds=np.array([0, 1, 0, 1, -1, 0]),
)
SHUFFLED = np.array([1, 0, 1, 0, 1, 0])


def test_only_rows_that_were_held_out_are_kept(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    logits = np.full((6, 2), np.nan, np.float32)
    logits[[0, 2, 5]] = [[0.5, -0.5], [1.5, 2.5], [-3.0, 4.0]]
    write_control(paths, SAMPLES, SHUFFLED, logits)
    found = read_control(paths)
    assert found is not None
    np.testing.assert_array_equal(found[0], [1, 1, 0])
    np.testing.assert_array_equal(found[1], logits[[0, 2, 5]])
    assert (found[0].dtype, found[1].dtype) == (np.int64, np.float32)
    assert pq.read_table(paths.control).column("sample_id").to_pylist() == ["a", "c", "f"]


def test_there_is_no_control_where_none_was_run(tmp_path: Path) -> None:
    assert read_control(StudyPaths(tmp_path)) is None


def test_a_control_that_diverged_says_nothing(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    write_control(paths, SAMPLES, SHUFFLED, np.full((6, 2), np.nan, np.float32))
    assert paths.control.exists()
    assert read_control(paths) is None


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    paths.control.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"control\.parquet cannot be read"):
        read_control(paths)
    pq.write_table(pa.table({"label": [1]}), paths.control)
    with pytest.raises(ValueError, match=r"control\.parquet cannot be read: .*logits"):
        read_control(paths)
