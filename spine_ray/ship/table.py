"""The table of predictions, written as it comes: a row an image, under a temporary name until it is whole."""

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from spine_ray.ship.stream import Predictions

ROW_GROUP = 4096
"""Rows of a Parquet table that are held before they are written."""
_DIGITS = 9
"""Of a number in a CSV: what float32 holds."""


def columns_of(predictions: Predictions, classes: Sequence[str]) -> dict[str, list[Any]]:
    """Return predictions by column; None where a picture has none.

    `sample`, `class` (the likeliest), `confidence` (its probability), `disagreement` (nats: weighted mean over the
    members of KL(pool || member)), `members` (how many saw it), one `p_CLASS` a class, `error` (why there is none).
    """
    known = predictions.is_known
    probs = np.exp(predictions.log_probs).astype(np.float32)
    best = np.where(known[:, None], probs, 0.0).argmax(axis=1)
    columns: dict[str, list[Any]] = {
        "sample": list(predictions.names),
        "class": [classes[place] if fine else None for place, fine in zip(best, known, strict=True)],
        "confidence": _numbers(probs[np.arange(len(known)), best], known),
        "disagreement": _numbers(predictions.disagreement.astype(np.float32), known),
        "members": predictions.seen.tolist(),
    }
    for place, name in enumerate(classes):
        columns[f"p_{name}"] = _numbers(probs[:, place], known)
    columns["error"] = [problem or None for problem in predictions.problems]
    return columns


def _numbers(values: np.ndarray, known: np.ndarray) -> list[float | None]:
    return [value if fine else None for value, fine in zip(values.tolist(), known.tolist(), strict=True)]


class Table(Protocol):
    """A table of predictions that is being written; it has its name once it was left without an error.

    All of it raises a ValueError where the disk is full or refuses.
    """

    def write(self, predictions: Predictions) -> None:
        """Add rows."""

    def __enter__(self) -> "Table":
        """Begin under a temporary name."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or remove it where an error ended the writing."""


def open_table(path: Path, classes: Sequence[str]) -> Table:
    """Return a table to be written, Parquet or CSV by the name of its file.

    Raises:
        ValueError: If the name ends otherwise or is a folder's, the folder it lies in is missing, or Parquet is asked
            for where there is no pyarrow.
    """
    if not path.absolute().parent.is_dir():
        raise ValueError(f"--out {path}: there is no folder {path.absolute().parent}")
    if path.is_dir():
        raise ValueError(f"--out {path} is a folder: name a file")
    if path.suffix.lower() == ".csv":
        return CsvTable(path, classes)
    if path.suffix.lower() == ".parquet":
        try:
            return ParquetTable(path, classes)
        except ImportError as error:
            raise ValueError(f"--out {path}: Parquet needs pyarrow, which is not installed; name a .csv") from error
    raise ValueError(f"--out must end in .parquet or .csv, not {path.suffix or path.name!r}")


class CsvTable:
    """A CSV in UTF-8, numbers with nine digits, empty cells where there is no prediction."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        """Name the file; nothing is written yet."""
        self._path, self._part, self._classes = path, _temporary_name(path), classes

    def write(self, predictions: Predictions) -> None:
        """Add rows."""
        columns = columns_of(predictions, self._classes)
        with _told_of(self._path):
            for row in zip(*columns.values(), strict=True):
                self._rows.writerow([f"{cell:.{_DIGITS}g}" if isinstance(cell, float) else cell for cell in row])

    def __enter__(self) -> "CsvTable":
        """Write the header."""
        with _told_of(self._path):
            self._file = self._part.open("w", encoding="utf-8", newline="")
            self._rows = csv.writer(self._file, lineterminator="\n")
            self._rows.writerow(columns_of(_nothing(self._classes), self._classes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or remove it."""
        with _settled(self._part, self._path, error):
            self._file.close()


class ParquetTable:
    """A Parquet table in row groups."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        """Name the file; nothing is written yet."""
        import pyarrow as pa  # here: a machine that predicts may not have it
        import pyarrow.parquet as pq

        self._path, self._part, self._classes = path, _temporary_name(path), classes
        kinds = {"members": pa.int32(), "sample": pa.string(), "class": pa.string(), "error": pa.string()}
        names = columns_of(_nothing(classes), classes)
        self._schema = pa.schema([(name, kinds.get(name, pa.float32())) for name in names])
        self._waiting: list[Any] = []
        self._pa, self._pq = pa, pq

    def write(self, predictions: Predictions) -> None:
        """Add rows; they are written in groups."""
        columns = columns_of(predictions, self._classes)
        self._waiting.append(self._pa.record_batch(list(columns.values()), schema=self._schema))
        if sum(batch.num_rows for batch in self._waiting) >= ROW_GROUP:
            self._flush()

    def __enter__(self) -> "ParquetTable":
        """Open the file."""
        with _told_of(self._path):
            self._writer = self._pq.ParquetWriter(self._part, self._schema, compression="zstd")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits and give the file its name, or remove it."""
        with _settled(self._part, self._path, error), self._writer:
            if error is None:
                self._flush()

    def _flush(self) -> None:
        if self._waiting:
            with _told_of(self._path):
                self._writer.write_table(self._pa.Table.from_batches(self._waiting, self._schema))
            self._waiting = []


def _nothing(classes: Sequence[str]) -> Predictions:
    return Predictions((), (), np.zeros((0, len(classes))), np.zeros(0), np.zeros(0, np.int64))


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Say which table cannot be written: the error of a full disk names no file."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"--out {path} cannot be written: {error}") from error


@contextmanager
def _settled(part: Path, path: Path, error: BaseException | None) -> Iterator[None]:
    """Give the file its name once the block has closed it, or remove it where an error came before or comes now."""
    try:
        with _told_of(path):
            yield
            if error is None:
                part.replace(path)
    finally:
        part.unlink(missing_ok=True)
