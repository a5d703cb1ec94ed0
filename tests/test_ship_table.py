import csv
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from spine_ray.ship.stream import Predictions
from spine_ray.ship.table import ROW_GROUP, columns_of, open_table

CLASSES = ("ant", "class")


def block(start: int, rows: int, broken: int | None = None) -> Predictions:
    problems = tuple("truncated" if row == broken else "" for row in range(rows))
    log_probs = np.log(np.tile([0.25, 0.75], (rows, 1)))
    apart, seen = np.full(rows, 0.125), np.full(rows, 3)
    if broken is not None:
        log_probs[broken], apart[broken], seen[broken] = np.nan, np.nan, 0
    return Predictions(tuple(f"{start + row}.png" for row in range(rows)), problems, log_probs, apart, seen)


def write(path: Path, *blocks: Predictions) -> None:
    with open_table(path, CLASSES) as table:
        for each in blocks:
            table.write(each)


def test_a_row_says_class_confidence_disagreement_members_and_every_probability() -> None:
    found = {name: values[0] for name, values in columns_of(block(0, 1), CLASSES).items()}
    assert found == {
        "sample": "0.png", "class": "class", "confidence": 0.75, "disagreement": 0.125, "members": 3, "p_ant": 0.25,
        "p_class": 0.75, "error": None,
    }  # fmt: skip


def test_both_formats_hold_the_same(tmp_path: Path) -> None:
    blocks = [block(0, 3, broken=1), block(3, 2)]
    for name in ("x.csv", "x.parquet"):
        write(tmp_path / name, *blocks)
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    with (tmp_path / "x.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [row["sample"] for row in rows] == [f"{row}.png" for row in range(5)]
    for row, line in zip(rows, lines, strict=True):
        assert {name: "" if value is None else str(value) for name, value in row.items()} == line
    assert (rows[1]["class"], rows[1]["p_ant"], rows[1]["error"], rows[1]["members"]) == (None, None, "truncated", 0)


def test_a_parquet_is_written_in_row_groups_while_rows_come(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", *(block(512 * part, 512) for part in range(17)))
    metadata = pq.ParquetFile(tmp_path / "x.parquet").metadata
    assert (metadata.num_rows, metadata.num_row_groups) == (17 * 512, 3)
    assert metadata.row_group(0).num_rows == ROW_GROUP


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_an_interrupted_table_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("old")
    with pytest.raises(KeyboardInterrupt), open_table(tmp_path / name, CLASSES) as table:
        table.write(block(0, 1))
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"


@pytest.mark.parametrize(("name", "told"), [("x.json", "must end in"), ("x", "must end in"), ("no/x.csv", "no folder")])
def test_other_files_are_refused(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=told):
        open_table(tmp_path / name, CLASSES)


def test_the_name_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(ValueError, match=r"x\.csv is a folder: name a file"):
        open_table(tmp_path / "x.csv", CLASSES)


@contextmanager
def hardly_any_room() -> Iterator[None]:
    """Let this process write no file beyond 500 bytes: the same error at the same places as a full disk.

    Only around what is tried: whoever reports the tests may write to a file too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("rows", [60, 50_000], ids=["in the end", "on the way"])
def test_a_table_for_which_there_is_no_room_is_told_by_its_name_and_leaves_nothing(
    name: str, rows: int, tmp_path: Path
) -> None:
    told = rf"--out .*/{name} cannot be written: .*File too large"
    with pytest.raises(ValueError, match=told), hardly_any_room():
        write(tmp_path / name, block(0, rows))
    assert not list(tmp_path.iterdir())
