"""What every source comes down to: rows with a class name, and a way to the bytes of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from spine_ray.data.places import Place

Split = Literal["dev", "test"]
SourceKind = Literal["folder", "csv", "parquet", "digits"]
MAX_TEXT = 4096
"""Characters of a path, a class name or a group; what is longer is another column."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One picture as its source describes it."""

    path: str
    """Path relative to the data's folder, or a name like `row 17` for bytes inside a table."""
    class_name: str
    group: str | None = None
    """Rows of one group never lie on both sides of a cut that is made here; None: alone."""
    split: Split | None = None
    """None where the source does not say."""
    fold: int | None = None
    """None where the source does not say, and in the test split."""


class ByteReader(Protocol):
    """A picklable way to the bytes of a source's rows, safe to use from several threads."""

    def read(self, index: int, path: str) -> bytes:
        """Return the bytes of row `index`, which the source calls `path`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class FileReader:
    """Rows that are files under one folder."""

    folder: Place

    def read(self, index: int, path: str) -> bytes:
        """Return the bytes of the file at `path`."""
        return self.folder.read(path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Labelled pictures, undecoded; picklable, so that a worker elsewhere can read the same bytes."""

    name: str
    """What the user gave, for messages."""
    kind: SourceKind
    rows: tuple[Row, ...]
    reader: ByteReader
    skipped: tuple[str, ...] = ()
    """Files that were passed over because they are no pictures or lie outside the class folders."""

    def __post_init__(self) -> None:
        """Refuse a source in which there is nothing to tell apart."""
        if not self.rows:
            raise ValueError(f"{self.name} holds no pictures")
        for row in self.rows:
            _check_text(self.name, "path", row.path)
            _check_text(self.name, "class name", row.class_name)
            _check_text(self.name, "group", row.group or "")
        if len(self.classes) < 2:
            raise ValueError(f"{self.name} has only one class, {self.classes[0]!r}: at least 2 are needed")

    @property
    def is_sample(self) -> bool:
        """Whether this is the built-in sample and not the user's own data."""
        return self.kind == "digits"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, sorted as text."""
        return tuple(sorted({row.class_name for row in self.rows}))

    def read(self, index: int) -> bytes:
        """Return the undecoded bytes of one row.

        Raises:
            OSError: If the file is gone or cannot be read.
        """
        return self.reader.read(index, self.rows[index].path)

    def locate(self, paths: Sequence[str]) -> np.ndarray:
        """Return the row index of each path, (len(paths),) int64: the way from stored samples to their bytes.

        Raises:
            ValueError: If the source has no row of that path.
        """
        index_of = {row.path: index for index, row in enumerate(self.rows)}
        missing = next((path for path in paths if path not in index_of), None)
        if missing is not None:
            raise ValueError(f"{self.name} has no picture {missing!r} any more")
        return np.array([index_of[path] for path in paths], dtype=np.int64)


def _check_text(name: str, what: str, text: str) -> None:
    """Refuse what no table can hold or nobody meant."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"{name}: a {what} of {len(text)} characters (at most {MAX_TEXT}): {text[:40]!r}...")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{name}: the {what} {text!r} is not valid Unicode; rename it to UTF-8")
