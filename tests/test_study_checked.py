from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from spine_ray.study.checked import check_fields, checked_logits, checked_table


@dataclass
class Record:
    name: str = "a"
    count: int = 1
    share: float = 0.5
    loss: float | None = None
    is_start: bool = True
    status: Literal["completed", "failed"] = "failed"
    hashes: dict[str, str] = field(default_factory=dict)
    classes: tuple[str, ...] = ("a",)


@pytest.mark.parametrize(
    "values",
    [{}, {"share": 1}, {"share": float("nan")}, {"loss": 0.1}, {"loss": 1}, {"hashes": {"a": "b"}}, {"classes": ()}],
)
def test_values_of_their_kinds_pass(values):
    check_fields(Record(**values))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", None), ("name", 1), ("name", ["a"]), ("count", 1.0), ("count", True), ("count", "1"), ("share", "0.5"),
        ("share", True), ("loss", "x"), ("loss", []), ("is_start", 1), ("status", "stopped"), ("status", []),
        ("hashes", []), ("hashes", {"a": 1}), ("classes", (1,)), ("classes", "a"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} cannot be "):
        check_fields(Record(**{name: value}))


KINDS = {"id": pa.string(), "label": pa.int64(), "cost": pa.float64()}
FILE = Path("table.parquet")


def table(**columns):
    return pa.table({"id": ["a", "b"], "label": pa.array([0, 1], pa.int32()), "cost": [None, 0.5], **columns})


def test_columns_are_brought_to_their_kinds_and_their_order():
    found = checked_table(table(more=[1, 2]), KINDS, ("cost",), FILE)
    assert found.schema == pa.schema(list(KINDS.items()))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"label": ["x", "y"]}, "table.parquet is damaged: Failed to parse"),
        ({"label": [0.5, 1.0]}, "table.parquet is damaged: Float value 0.5"),
        ({"label": [None, 1]}, "table.parquet is damaged: values of its column 'label' are missing"),
        ({"id": [{"a": 1}, {"a": 2}]}, "table.parquet is damaged: "),
    ],
)
def test_columns_that_cannot_be_or_lack_values_are_named(columns, told):
    with pytest.raises(ValueError, match=told):
        checked_table(table(**columns), KINDS, ("cost",), FILE)


@pytest.mark.parametrize(
    "logits",
    [
        pa.array([[0.1, 0.2], [0.3]]),
        pa.array([1.0, 2.0]),
        pa.array([["a"], ["b"]], pa.list_(pa.string(), 1)),
        pa.array([[0.1], None], pa.list_(pa.float32(), 1)),
        pa.array([[0.1], [None]], pa.list_(pa.float32(), 1)),
    ],
)
def test_logits_are_lists_of_numbers_of_one_length(logits):
    with pytest.raises(ValueError, match=r"table\.parquet is damaged: "):
        checked_logits(pa.table({"logits": logits}), FILE)


def test_sound_logits_stay_as_they_are():
    sound = pa.table({"logits": pa.array([[0.1], [0.2]], pa.list_(pa.float32(), 1))})
    assert checked_logits(sound, FILE) is sound
