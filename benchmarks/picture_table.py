"""A table of labelled pictures in groups, and draws from it that never cut a group: to learn from and to judge on."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
COLUMNS = ("path", "label", "group")


@dataclass(frozen=True, slots=True)
class PictureTable:
    """One row a picture."""

    paths: tuple[Path, ...]
    """Absolute."""
    labels: tuple[str, ...]
    """Class names."""
    groups: tuple[str, ...]
    """Rows of one group belong together; a row that belongs with no other has its own."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted as text."""
        return tuple(sorted(set(self.labels)))

    def label_indices(self, classes: Sequence[str]) -> Rows:
        """Return the index in `classes` of each row's label, (rows,).

        Raises:
            ValueError: If a label is none of them.
        """
        strange = sorted(set(self.labels) - set(classes))
        if strange:
            raise ValueError(f"the label {strange[0]!r} is none of the classes {', '.join(classes)}")
        index_of = {name: index for index, name in enumerate(classes)}
        return np.array([index_of[label] for label in self.labels], np.int64)

    def take(self, rows: Iterable[int]) -> "PictureTable":
        """Return some rows, in the order in which they are named."""
        chosen = [int(row) for row in rows]
        return PictureTable(
            paths=tuple(self.paths[row] for row in chosen),
            labels=tuple(self.labels[row] for row in chosen),
            groups=tuple(self.groups[row] for row in chosen),
        )


@dataclass(frozen=True, slots=True)
class Draw:
    """Rows of a table; no group is in two of these sets."""

    study: Rows
    """What is learnt from."""
    test: Rows
    """A test split beside them, for who wants one."""
    judge: Rows
    """What nobody who learns ever sees."""


def read_table(file: Path) -> PictureTable:
    """Read a CSV with `path` (relative to its folder, or absolute), `label` and `group`; an empty group is of one row.

    Raises:
        ValueError: If a column is missing or there are no rows.
    """
    with file.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        rows = list(reader)
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{file} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    if not rows:
        raise ValueError(f"{file} holds no rows")
    folder = file.absolute().parent
    return PictureTable(
        paths=tuple(folder / row["path"] for row in rows),
        labels=tuple(row["label"] for row in rows),
        groups=tuple(row["group"] or f"row {number}" for number, row in enumerate(rows)),
    )


def write_table(table: PictureTable, file: Path, splits: Sequence[str] | None = None) -> None:
    """Write what `read_table` reads, with absolute paths, and a column `split` where there are splits."""
    extra = [] if splits is None else ["split"]
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow([*COLUMNS, *extra])
        for number, row in enumerate(zip(table.paths, table.labels, table.groups, strict=True)):
            writer.writerow([*row, *([] if splits is None else [splits[number]])])


def draw_rows(table: PictureTable, *, study: int, test: int, judge: int, seed: int) -> Draw:
    """Draw whole groups at random, with about the shares of the classes that the table has.

    For one seed, a smaller study lies inside a larger one and the judge rows are the same, as far as the table has
    enough of them.

    Args:
        table: What is drawn from.
        study: Rows to learn from; with groups of several rows a few less, where the last ones do not fit.
        test: Rows of a test split beside them, of other groups; 0 for none.
        judge: Rows to judge on, at most: what the table has beside the others where that is less.
        seed: Of the draw.

    Raises:
        ValueError: If a number of rows is out of range, a class has no row in the study, or nothing is left to judge
            on.
    """
    if study < 1 or test < 0 or judge < 1:
        raise ValueError(f"rows to draw must be at least 1 (test: 0), not {study}, {test} and {judge}")
    order = _shuffled_groups(table, np.random.default_rng(seed))
    learnt, others = _fill(order, study)
    tested, others = _fill(others, test)
    judged, _ = _fill(others[::-1], judge)
    draw = Draw(study=_rows_of(learnt), test=_rows_of(tested), judge=_rows_of(judged))
    lost = sorted(set(table.labels) - {table.labels[row] for row in draw.study})
    if lost:
        raise ValueError(f"draw {seed} of {study} rows has none of the class {lost[0]!r}: draw more rows")
    if not len(draw.judge):
        raise ValueError(f"the table has {len(table.paths)} rows, too few for {study + test} and others to judge on")
    return draw


def _shuffled_groups(table: PictureTable, rng: np.random.Generator) -> list[list[int]]:
    """Return the rows of each group in an order of which every beginning and every end is stratified.

    The groups of a class are shuffled and spread evenly over the whole length; a group's class is that of its first
    row.
    """
    members: dict[str, list[int]] = {}
    for row, group in enumerate(table.groups):
        members.setdefault(group, []).append(row)
    by_class: dict[str, list[list[int]]] = {}
    for rows in members.values():
        by_class.setdefault(table.labels[rows[0]], []).append(rows)
    positions: list[tuple[float, list[int]]] = []
    for groups in by_class.values():
        first = rng.random()
        shuffled = rng.permutation(len(groups))
        positions += [((first + rank) / len(groups), groups[index]) for rank, index in enumerate(shuffled)]
    return [rows for _, rows in sorted(positions)]


def _fill(groups: Sequence[list[int]], rows: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return the groups, in their order, that fit in so many rows, and the others."""
    taken, others, room = [], [], rows
    for group in groups:
        if len(group) <= room:
            taken.append(group)
            room -= len(group)
        else:
            others.append(group)
    return taken, others


def _rows_of(groups: Iterable[list[int]]) -> Rows:
    return np.array(sorted(row for group in groups for row in group), np.int64)
