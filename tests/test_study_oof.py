from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.data.samples import Samples
from spine_ray.study.oof import read_oof, write_oof
from spine_ray.study.paths import StudyPaths

ROWS, CLASSES = 12, ("ant", "bee", "cow")


@pytest.fixture
def samples() -> Samples:
    folds = np.array([0, 1, -1] * 4)
    return Samples(
        sample_ids=tuple(f"id{row:02d}" for row in range(ROWS)),
        paths=tuple(f"{row}.png" for row in range(ROWS)),
        labels=np.arange(ROWS) // 4,
        classes=CLASSES,
        groups=np.arange(ROWS),
        splits=tuple("test" if fold < 0 else "dev" for fold in folds),
        folds=folds,
    )


@pytest.fixture
def logits(samples: Samples) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(ROWS, len(CLASSES))).astype(np.float32)
    values[samples.test] = np.nan  # no fold model says anything of the test split
    return values


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    return StudyPaths(tmp_path)


def test_logits_come_back_bit_for_bit_in_the_order_of_the_dev_rows(
    paths: StudyPaths, samples: Samples, logits: np.ndarray
) -> None:
    write_oof(paths, "a", samples, logits)
    found = read_oof(paths, "a", samples)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, logits[samples.dev])


def test_the_file_holds_what_the_contract_says(paths: StudyPaths, samples: Samples, logits: np.ndarray) -> None:
    path = write_oof(paths, "a", samples, logits)
    assert path == paths.oof("a")
    table = pq.read_table(path)
    assert table.column_names == ["sample_id", "fold", "label", "logits"]
    assert table.schema.field("logits").type == pa.list_(pa.float32(), len(CLASSES))
    assert table.column("sample_id").to_pylist() == [samples.sample_ids[row] for row in samples.dev]
    assert table.column("fold").to_pylist() == samples.folds[samples.dev].tolist()
    assert table.column("label").to_pylist() == samples.labels[samples.dev].tolist()


def test_logits_in_another_memory_order_or_precision_are_stored_the_same(
    paths: StudyPaths, samples: Samples, logits: np.ndarray
) -> None:
    write_oof(paths, "a", samples, np.asfortranarray(logits.astype(np.float64)))
    np.testing.assert_array_equal(read_oof(paths, "a", samples), logits[samples.dev])


def test_rows_in_another_order_in_the_file_are_put_back(
    paths: StudyPaths, samples: Samples, logits: np.ndarray
) -> None:
    path = write_oof(paths, "a", samples, logits)
    table = pq.read_table(path)
    pq.write_table(table.take(np.random.default_rng(1).permutation(len(table))), path, row_group_size=3)
    np.testing.assert_array_equal(read_oof(paths, "a", samples), logits[samples.dev])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_dev_row_that_is_missing_or_not_finite_is_refused(
    paths: StudyPaths, samples: Samples, logits: np.ndarray, value: float
) -> None:
    logits[samples.dev[[2, 5]], 1] = value
    with pytest.raises(ValueError, match="not finite in 2 dev rows"):
        write_oof(paths, "a", samples, logits)
    assert not paths.oof("a").exists()


def test_logits_of_the_wrong_shape_are_refused(paths: StudyPaths, samples: Samples, logits: np.ndarray) -> None:
    for wrong in (logits[samples.dev], logits[:, :2], logits[:, 0]):
        with pytest.raises(ValueError, match=r"not \(12, 3\)"):
            write_oof(paths, "a", samples, wrong)


def test_a_file_of_other_rows_is_refused(paths: StudyPaths, samples: Samples, logits: np.ndarray) -> None:
    path = write_oof(paths, "a", samples, logits)
    table = pq.read_table(path)
    strangers = table.set_column(0, "sample_id", pa.array([f"other{row}" for row in range(len(table))]))
    for wrong in (table.slice(1), pa.concat_tables([table, table.slice(0, 1)]), table.take([0] * 8), strangers):
        pq.write_table(wrong, path)
        with pytest.raises(ValueError, match="not the study's 8 dev rows"):
            read_oof(paths, "a", samples)


def test_a_file_of_another_number_of_classes_is_refused(
    paths: StudyPaths, samples: Samples, logits: np.ndarray
) -> None:
    path = write_oof(paths, "a", samples, logits)
    narrow = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(8 * 2, np.float32)), 2)
    pq.write_table(pq.read_table(path).set_column(3, "logits", narrow), path)
    with pytest.raises(ValueError, match="2 classes, the study 3"):
        read_oof(paths, "a", samples)


def test_a_file_with_logits_that_are_not_finite_is_refused(
    paths: StudyPaths, samples: Samples, logits: np.ndarray
) -> None:
    path = write_oof(paths, "a", samples, logits)
    wrong = pa.FixedSizeListArray.from_arrays(pa.array(np.full(8 * 3, np.nan, np.float32)), 3)
    pq.write_table(pq.read_table(path).set_column(3, "logits", wrong), path)
    with pytest.raises(ValueError, match="not finite"):
        read_oof(paths, "a", samples)


def test_a_missing_or_damaged_file_is_refused_in_one_line(
    paths: StudyPaths, samples: Samples, logits: np.ndarray
) -> None:
    whole = write_oof(paths, "a", samples, logits).read_bytes()
    paths.oof("cut").write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"sample_id": ["id00"]}), paths.oof("bare"))
    for name in ("none", "cut", "bare"):
        with pytest.raises(ValueError, match=rf"{name}\.parquet") as caught:
            read_oof(paths, name, samples)
        assert "\n" not in str(caught.value)
