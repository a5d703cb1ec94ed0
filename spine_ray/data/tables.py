"""Reads the user's tables of pictures, CSV and Parquet, into rows."""

import csv
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from spine_ray.data.places import ADVICE, LEAVES, Place
from spine_ray.data.rows import FileReader, Row, Source, Split

SPLIT_VALUES: dict[str, Split] = {"train": "dev", "dev": "dev", "test": "test"}
OPTIONAL_COLUMNS = ("group", "split", "fold")
_FOLD_DIGITS = 9
"""A longer number names no fold, and fits no table."""
KNOWN = frozenset({"label", *OPTIONAL_COLUMNS})
Columns = Mapping[str, Sequence[object]]


class ParquetReader:
    """Rows whose bytes lie in a Parquet column.

    The column stays in memory, undecoded, once it was read; a pickled reader leaves it behind and reads it again.
    """

    def __init__(self, place: Place, column: str) -> None:
        """Name the table and its column of bytes or `{bytes, path}` structs."""
        self.place = place
        self.column = column
        self._values: pa.ChunkedArray | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["ParquetReader"], tuple[Place, str]]:
        """Leave the column and the lock behind."""
        return ParquetReader, (self.place, self.column)

    def read(self, index: int, path: str) -> bytes:
        """Return the bytes of row `index`; none where the table has none.

        Raises:
            ValueError: If the column is damaged.
        """
        value = self._load()[index].as_py()
        if isinstance(value, dict):
            value = value["bytes"]
        return value or b""

    def _load(self) -> pa.ChunkedArray:
        with self._lock:
            if self._values is None:
                fs, path = self.place.open()
                with told_of_parquet(self.place.uri), fs.open(path, "rb") as file:
                    self._values = pq.read_table(file, columns=[self.column]).column(self.column)
            return self._values


def csv_source(name: str, place: Place, root: Place | None = None) -> Source:
    """Open a CSV with `path` (or `image`, then a path as well), `label`, and maybe `group`, `split`, `fold`.

    Raises:
        ValueError: If a needed column, a value or a listed file is missing or not allowed.
    """
    fs, path = place.open()
    try:
        with fs.open(path, "rt", encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{name} is not a CSV in UTF-8: {error}") from error
    lines = [line for line in lines if line]
    header, body = (lines[0], lines[1:]) if lines else ([], [])
    picture = _needed_columns(name, header, ("path", "image"))
    for index, line in enumerate(body):
        if len(line) != len(header):
            raise ValueError(f"{name}, row {index}: {len(line)} values for {len(header)} columns")
    columns = {column: [line[index] for line in body] for index, column in enumerate(header)}
    rows = _rows(name, columns, _file_paths(name, place.parent, columns[picture], root))
    return Source(name=name, kind="csv", rows=rows, reader=FileReader(folder=place.parent))


def parquet_source(name: str, place: Place, root: Place | None = None) -> Source:
    """Open a Parquet with `image` (bytes or `{bytes, path}`) or `path`, `label`, and maybe `group`, `split`, `fold`.

    Whole-number labels get the names that a Hugging Face export keeps in the schema, where it has them.

    Raises:
        ValueError: If a needed column, a value or a listed file is missing or not allowed.
    """
    fs, path = place.open()
    with told_of_parquet(name), fs.open(path, "rb") as file:
        schema = pq.ParquetFile(file).schema_arrow
    picture = _needed_columns(name, schema.names, ("image", "path"))
    holds_bytes = _holds_bytes(name, schema.field(picture))
    wanted = ["label", *(column for column in OPTIONAL_COLUMNS if column in schema.names)]
    with told_of_parquet(name):
        with fs.open(path, "rb") as file:
            table = pq.ParquetFile(file).read(columns=wanted if holds_bytes else [picture, *wanted])
        columns = {column: table.column(column).to_pylist() for column in table.column_names}
    columns["label"] = _named_labels(name, schema, columns["label"])
    if holds_bytes:
        names = [f"row {index}" for index in range(table.num_rows)]
        reader = ParquetReader(place, picture)
        return Source(name=name, kind="parquet", rows=_rows(name, columns, names), reader=reader)
    rows = _rows(name, columns, _file_paths(name, place.parent, columns[picture], root))
    return Source(name=name, kind="parquet", rows=rows, reader=FileReader(folder=place.parent))


@contextmanager
def told_of_parquet(name: str) -> Iterator[None]:
    """Say what pyarrow says of broken bytes, for which it has several kinds of errors.

    Raises:
        ValueError: If that happens while the block runs.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage failed, and not the file
            raise
        raise ValueError(f"{name} is not a Parquet table that can be read: {' '.join(str(error).split())}") from error


def _needed_columns(name: str, present: Sequence[str], pictures: tuple[str, str]) -> str:
    """Return the column of pictures, the first of `pictures` that is there."""
    there = f"(its columns: {', '.join(present) or 'none'})"
    if len(set(present)) < len(present):
        raise ValueError(f"{name} has two columns of one name {there}")
    if "label" not in present:
        raise ValueError(f"{name} has no column `label` {there}")
    column = next((column for column in pictures if column in present), None)
    if column is None:
        raise ValueError(f"{name} has no column `path` or `image` {there}")
    return column


def _holds_bytes(name: str, field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return True
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return False
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    raise ValueError(f"{name}: `{field.name}` must hold bytes, {{bytes, path}} or paths, not {field.type}")


def _named_labels(name: str, schema: pa.Schema, labels: Sequence[object]) -> Sequence[object]:
    """Replace whole-number labels by the class names of a Hugging Face export, if it carries them."""
    names = _exported_names(schema)
    if not names or not all(isinstance(label, int) for label in labels):
        return labels
    strange = next((label for label in labels if isinstance(label, int) and not 0 <= label < len(names)), None)
    if strange is not None:
        raise ValueError(f"{name}: label {strange} is none of the {len(names)} classes that its schema names")
    return [names[label] for label in labels if isinstance(label, int)]


def _exported_names(schema: pa.Schema) -> list[str]:
    """Return the class names that a Hugging Face export keeps in the schema; none where it keeps none."""
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:  # what is kept there is not of the form that exports have
        return []
    for key in ("info", "features", "label", "names"):
        found = found.get(key) if isinstance(found, dict) else None
    is_names = isinstance(found, list) and all(isinstance(name, str) for name in found)
    return found if is_names else []


def _file_paths(name: str, folder: Place, values: Sequence[object], root: Place | None) -> list[str]:
    paths = []
    for index, value in enumerate(values):
        if not isinstance(value, str) or not value:
            raise ValueError(f"{name}, row {index}: it has no path")
        try:
            paths.append(folder.relative(value, root))
        except ValueError as error:
            raise ValueError(f"{name}, row {index}: {error} ({ADVICE})") from error
    missing = folder.first_missing(paths)
    if missing is not None:
        raise ValueError(f"{name}, row {paths.index(missing)}: there is no file {missing!r} in {folder.uri}")
    leaving = folder.first_leaving(paths, root)
    if leaving is not None:
        raise ValueError(f"{name}, row {paths.index(leaving)}: {leaving!r} {LEAVES}")
    return paths


def _rows(name: str, columns: Columns, paths: Sequence[str]) -> tuple[Row, ...]:
    if not paths:
        raise ValueError(f"{name} holds no rows")
    rows = []
    for index, path in enumerate(paths):
        where = f"{name}, row {index}"
        cells = {column: _text(where, values[index]) for column, values in columns.items() if column in KNOWN}
        if not cells["label"]:
            raise ValueError(f"{where}: it has no label")
        split = _split(where, cells["split"]) if "split" in cells else None
        fold = _fold(where, cells["fold"], split) if "fold" in cells else None
        group = cells.get("group") or None
        rows.append(Row(path=path, class_name=cells["label"], group=group, split=split, fold=fold))
    return tuple(rows)


def _text(where: str, value: object) -> str:
    """Spell a cell the same whether it came from text, whole numbers or whole numbers kept as floats."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, (bytes, list, dict)):
        shown = repr(value)[:40]
        raise ValueError(f"{where}: label, group, split and fold must be text or whole numbers, not {shown}")
    return str(value)


def _split(where: str, text: str) -> Split:
    if text not in SPLIT_VALUES:
        raise ValueError(f"{where}: split must be one of {', '.join(SPLIT_VALUES)}, not {text!r}")
    return SPLIT_VALUES[text]


def _fold(where: str, text: str, split: Split | None) -> int | None:
    is_blank = text in ("", "-1")
    if not is_blank and not (text.isascii() and text.isdigit() and len(text) <= _FOLD_DIGITS):
        raise ValueError(f"{where}: fold must be a whole number of at least 0, not {text[:40]!r}")
    if split == "test" and not is_blank:
        raise ValueError(f"{where}: it is in the test split and has fold {text}; leave it blank or -1 there")
    if split != "test" and is_blank:
        raise ValueError(f"{where}: it has no fold; give one to every row outside the test split, or to none")
    return None if is_blank else int(text)
