import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.study.paths import (
    StudyPaths,
    read_json,
    read_table,
    replace_json,
    replace_table,
    replace_text,
    temporary_name,
)


def test_every_name_of_the_contract_has_its_place(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    places = {
        paths.record: "study.json",
        paths.space("light"): "spaces/light.yaml",
        paths.samples: "samples.parquet",
        paths.audit: "audit.json",
        paths.ledger: "ledger.jsonl",
        paths.trials: "trials.parquet",
        paths.oof("a"): "oof/a.parquet",
        paths.refit("a"): "weights/a/refit.safetensors",
        paths.costs: "costs.parquet",
        paths.gates: "gates.json",
        paths.ensemble: "ensemble.json",
        paths.report: "report.html",
        paths.tracking: "mlflow.db",
        paths.ray: "ray",
    }
    assert {path.relative_to(tmp_path).as_posix() for path in places} == set(places.values())
    assert all(path.relative_to(tmp_path).as_posix() == name for path, name in places.items())


def test_replacing_makes_folders_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.json"
    replace_json(path, {"first": 1})
    replace_json(path, {"second": [2, None]})
    assert read_json(path) == {"second": [2, None]}
    assert list(path.parent.iterdir()) == [path]


def test_text_keeps_what_ascii_lacks(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()


def test_json_refuses_what_it_has_no_word_for_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_json(path, {"loss": 0.5})
    with pytest.raises(ValueError):
        replace_json(path, {"loss": math.nan})
    assert read_json(path) == {"loss": 0.5}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b'{"a": 1', b"", b"\xff\xfe\x00"])
def test_damaged_json_is_one_line_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is damaged: ") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_a_table_comes_back_with_the_columns_asked_for_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.parquet"
    replace_table(path, pa.table({"a": [1, 2], "b": ["x", "y"], "c": [0.5, None]}))
    assert read_table(path, ("c", "a")).to_pydict() == {"c": [0.5, None], "a": [1, 2]}
    assert list(path.parent.iterdir()) == [path]


def test_a_table_that_is_missing_damaged_or_lacks_a_column_is_one_line(tmp_path: Path) -> None:
    whole, cut, empty = tmp_path / "whole.parquet", tmp_path / "cut.parquet", tmp_path / "empty.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), whole)
    cut.write_bytes(whole.read_bytes()[:-20])
    empty.touch()
    for path, column in ((tmp_path / "none.parquet", "a"), (cut, "a"), (empty, "a"), (whole, "logits")):
        with pytest.raises(ValueError, match=rf"{path.name} cannot be read: ") as caught:
            read_table(path, (column,))
        assert "\n" not in str(caught.value)


def test_temporary_names_lie_beside_the_file_hidden_and_never_twice(tmp_path: Path) -> None:
    names = {temporary_name(tmp_path / "a.json") for _ in range(50)}
    assert len(names) == 50
    assert all(name.parent == tmp_path and name.name.startswith(".a.json.") for name in names)
