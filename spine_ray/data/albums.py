"""New pictures, without labels: a folder, a table or one file, gone through one after the other and never all held."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from spine_ray.data.pictures import MAX_BYTES
from spine_ray.data.places import FileTooLargeError, Place

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
    is_local = isinstance(fs, LocalFileSystem)
    listed = partial(_listed_here, root) if is_local else partial(_listed_there, fs, root)
    if next(_paths(given, listed), None) is None:
        raise ValueError(f"{given} holds no pictures; they end in {' '.join(PICTURE_SUFFIXES)}")

    def pictures() -> Iterator[Picture]:
        return (Picture(path, _reading(place, path)) for path in _paths(given, listed))

    return Album(given, sum(1 for _ in _paths(given, listed)) if is_local else None, pictures)


def _paths(given: str, listed: Callable[[str], tuple[list[str], list[str]]]) -> Iterator[str]:
    """Return the relative paths of all pictures but hidden ones, folder after folder, sorted.

    Args:
        given: What the user named, for messages.
        listed: Returns the names of the folders and of the files in one of its folders.

    Raises:
        ValueError: If a folder cannot be listed: its pictures would be left out and nobody would know.
    """
    waiting = [""]
    while waiting:
        within = waiting.pop()
        try:
            folders, files = listed(within)
        except OSError as error:
            raise ValueError(f"{given}: the folder {within or '.'!r} cannot be listed: {error}") from error
        yield from (f"{within}{name}" for name in sorted(files) if not name.startswith(".") and is_picture(name))
        waiting += (f"{within}{name}/" for name in sorted(folders, reverse=True) if not name.startswith("."))


def _listed_here(root: str, within: str) -> tuple[list[str], list[str]]:
    """List a local folder without what is neither folder, file nor link: a pipe would be read for ever."""
    folder = Path(root or "/", within)
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    links = {entry.name for entry in found if entry.is_symlink()}
    for name in links:
        # What a link leads to may be out of reach: then it is a row with its error.
        if not name.startswith(".") and os.path.isdir(folder / name):  # noqa: PTH112
            raise ValueError(f"{folder}: {name} is a link to a folder, which is not followed; name real folders")
    files = [entry.name for entry in found if entry.name in links or entry.is_file(follow_symlinks=False)]
    return [entry.name for entry in found if entry.is_dir(follow_symlinks=False)], files


def _listed_there(fs: Any, root: str, within: str) -> tuple[list[str], list[str]]:
    # One level a call: what is to be done about errors, fsspec does not hand on to the levels below.
    folder = f"{root}/{within}" if root else within
    _, folders, files = next(fs.walk(folder.rstrip("/"), maxdepth=1, on_error="raise", detail=False))
    return folders, files


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
    # Here: most pictures lie in folders, and a machine that predicts may not have what reads such a table.
    try:
        import pyarrow.parquet as pq

        from spine_ray.data.tables import told_of_parquet
    except ImportError as error:
        raise ValueError(f"{given}: reading Parquet needs pyarrow, which is not installed") from error
    fs, path = place.open()
    with told_of_parquet(given), fs.open(path, "rb") as file, pq.ParquetFile(file) as table:
        present, count = table.schema_arrow.names, table.metadata.num_rows
    column = _picture_column(given, present, ("image", "path"))
    folder = place.parent

    def pictures() -> Iterator[Picture]:
        number = 0
        with told_of_parquet(given), fs.open(path, "rb") as file, pq.ParquetFile(file, pre_buffer=False) as table:
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
    """Return what reads a path, relative to a folder or on this machine anywhere, only when it is called."""

    def read() -> bytes:
        fs, own = folder.open()
        if not isinstance(fs, LocalFileSystem):
            return folder.read(folder.relative(path))
        return _content(Path(own or "/", folder.relative(path) if "://" in path else path))

    return read


def _content(path: Path) -> bytes:
    """Return the bytes of a local file; pipes and devices, which have no end, are no files.

    Raises:
        FileNotFoundError: If there is no file.
        FileTooLargeError: If it is larger than pictures are; no more than that is read.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise FileTooLargeError(f"{path} has more than {MAX_BYTES} bytes")
    return content
