"""The table that every side of the throughput benchmark reads: pictures, classes, folds. A CSV beside the pictures."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

NAME = "folds.csv"
COLUMNS = ["path", "label", "fold"]


@dataclass(frozen=True, slots=True, eq=False)
class FoldTable:
    """One row a picture; all of them are dev rows."""

    paths: tuple[str, ...]
    """Relative to the folder that holds the table."""
    names: tuple[str, ...]
    """(pictures,) class names."""
    folds: npt.NDArray[np.int64]
    """(pictures,) the fold that holds a picture out, from 0 without a gap."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted as text."""
        return tuple(sorted(set(self.names)))

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Class indices, (pictures,)."""
        index = {name: label for label, name in enumerate(self.classes)}
        return np.array([index[name] for name in self.names], np.int64)

    @property
    def num_folds(self) -> int:
        """How many folds there are."""
        return int(self.folds.max()) + 1

    def held_out(self, fold: int) -> npt.NDArray[np.int64]:
        """Return the rows of one fold, ascending."""
        return np.flatnonzero(self.folds == fold)

    def training(self, fold: int) -> npt.NDArray[np.int64]:
        """Return the rows of all other folds, ascending."""
        return np.flatnonzero(self.folds != fold)


def write_table(table: FoldTable, folder: Path) -> None:
    """Write the table beside its pictures."""
    with (folder / NAME).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(table.paths, table.names, table.folds.tolist(), strict=True))


def read_table(folder: Path) -> FoldTable:
    """Read what `write_table` wrote."""
    with (folder / NAME).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return FoldTable(
        paths=tuple(row["path"] for row in rows),
        names=tuple(row["label"] for row in rows),
        folds=np.array([int(row["fold"]) for row in rows], np.int64),
    )
