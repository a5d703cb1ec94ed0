"""New pictures, without labels: a folder, a table or one file, gone through one after the other and never all held."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from spine_ray.data.places import Place

PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
)
_ALLOWED = "a folder of pictures, a .csv or a .parquet, or one picture"
_BATCH = 64
"""Rows of a Parquet table that are in memory at once, beside its present row group."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, not read yet."""

    name: str
    """What its source calls it: a path, or a name like `row 17` for bytes inside a table."""
    read: Callable[[], bytes]
    """Returns its encoded bytes; may be called from any thread."""


@dataclass(frozen=True, slots=True)
class Album:
    """Pictures in a stable order."""

    name: str
    """What the user gave, for messages."""
    count: int | None
    """How many there are; None where counting would take long."""
    pictures: Callable[[], Iterator[Picture]]
    """Goes through them from the beginning."""


def is_picture(path: str) -> bool:
    """Whether the file's name says that it is a picture."""
    return PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES


def open_album(given: str) -> Album:
    """Open what the user named; no picture is read yet.

    Args:
        given: A folder (pictures may lie in folders inside it), a CSV with `path` or `image`, a Parquet with `image`
            (bytes or `{bytes, path}`) or `path`, or one picture; any of these at a URI that fsspec opens. Other
            columns are passed over.

    Raises:
        ValueError: If there is nothing at that place, or it is not one of the allowed kinds.
    """
    place = Place.of(given)
    fs, path = place.open()
    if not fs.isfile(path):
        if fs.isdir(path or "/"):
            return _folder(given, place)
        raise ValueError(f"there is nothing at {given!r}: pictures must be {_ALLOWED}")
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".csv":
        return _csv(given, place)
    if suffix == ".parquet":
        return _parquet(given, place)
    if is_picture(path):
        return listed_album([given])
    raise ValueError(f"cannot read {given!r}: pictures must be {_ALLOWED}, not a file of type {suffix or 'unknown'!r}")


def listed_album(given: Sequence[str | Path | bytes]) -> Album:
    """Return pictures that are named by their paths, or given as their encoded bytes."""

    def pictures() -> Iterator[Picture]:
        for number, each in enumerate(given):
            if isinstance(each, bytes):
                yield Picture(f"row {number}", _returning(each))
            else:
                place = Place.of(str(each))
                yield Picture(str(each), _reading(place.parent, PurePosixPath(place.uri).name))

    return Album("the pictures", len(given), pictures)


def _folder(given: str, place: Place) -> Album:
    fs, root = place.open()
    is_local = Path(place.uri).is_dir()
    paths: Callable[[], Iterator[str]] = (
        (lambda: _local_paths(Path(place.uri))) if is_local else (lambda: _remote_paths(fs, root))
    )
    if next(paths(), None) is None:
        raise ValueError(f"{given} holds no pictures; they end in {' '.join(PICTURE_SUFFIXES)}")

    def pictures() -> Iterator[Picture]:
        return (Picture(path, _reading(place, path)) for path in paths())

    return Album(given, sum(1 for _ in paths()) if is_local else None, pictures)


def _local_paths(root: Path) -> Iterator[str]:
    """Return the relative paths of all pictures but hidden ones, folder after folder, sorted."""
    for folder, inside, files in os.walk(root):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        link = next((name for name in inside if Path(folder, name).is_symlink()), None)
        if link is not None:
            raise ValueError(f"{root}: {link} is a link to a folder, which is not followed; name real folders")
        yield from _of_folder(Path(folder).relative_to(root).as_posix(), files)


def _remote_paths(fs: Any, root: str) -> Iterator[str]:
    for folder, inside, files in fs.walk(root, detail=False):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        yield from _of_folder(str(folder)[len(root) :].strip("/") or ".", files)


def _of_folder(folder: str, files: Iterable[str]) -> Iterator[str]:
    within = "" if folder == "." else f"{folder}/"
    return (f"{within}{name}" for name in sorted(files) if not name.startswith(".") and is_picture(name))


def _csv(given: str, place: Place) -> Album:
    fs, path = place.open()
    folder = place.parent

    def lines() -> Iterator[list[str]]:
        try:
            with fs.open(path, "rt", encoding="utf-8-sig", newline="") as file:
                yield from (line for line in csv.reader(file, strict=True) if line)
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{given} is not a CSV in UTF-8: {error}") from error

    header = next(lines(), [])
    place_of = header.index(_picture_column(given, header, ("path", "image")))

    def pictures() -> Iterator[Picture]:
        body = lines()
        next(body)
        for number, line in enumerate(body):
            if len(line) != len(header):
                raise ValueError(f"{given}, row {number}: {len(line)} values for {len(header)} columns")
            yield Picture(line[place_of], _reading(folder, line[place_of]))

    return Album(given, None, pictures)


def _parquet(given: str, place: Place) -> Album:
    import pyarrow as pa  # here: most pictures lie in folders, and a machine that predicts may not have it
    import pyarrow.parquet as pq

    fs, path = place.open()
    try:
        with fs.open(path, "rb") as file, pq.ParquetFile(file) as table:
            column = _picture_column(given, table.schema_arrow.names, ("image", "path"))
            count = table.metadata.num_rows
    except pa.ArrowException as error:
        raise ValueError(f"{given} is not a Parquet table that can be read: {error}") from error
    folder = place.parent

    def pictures() -> Iterator[Picture]:
        number = 0
        with fs.open(path, "rb") as file, pq.ParquetFile(file, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=_BATCH, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield _cell(value, number, folder)
                    number += 1

    return Album(given, count, pictures)


def _cell(value: object, number: int, folder: Place) -> Picture:
    """Return what one cell of a table of pictures holds: a path, bytes, or both."""
    name = f"row {number}"
    if isinstance(value, dict):
        name, value = value.get("path") or name, value.get("bytes")
    if isinstance(value, str):
        return Picture(value, _reading(folder, value))
    return Picture(name, _returning(value if isinstance(value, bytes) else b""))


def _picture_column(given: str, present: Sequence[str], allowed: tuple[str, str]) -> str:
    found = next((column for column in allowed if column in present), None)
    if found is None:
        raise ValueError(f"{given} has no column `path` or `image` (its columns: {', '.join(present) or 'none'})")
    return found


def _returning(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _reading(folder: Place, path: str) -> Callable[[], bytes]:
    """Return what reads a path, relative to a folder or absolute, only when it is called."""

    def read() -> bytes:
        if Path(path).is_absolute() and Path(folder.uri).is_absolute():
            return Path(path).read_bytes()
        return folder.read(folder.relative(path))

    return read
