"""The table that every trial shares: which pictures, which labels, which folds. Knows no bytes and no pixels."""

import functools
import hashlib
import json
from dataclasses import dataclass

import numpy as np

from spine_ray.data.rows import Split


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Readable pictures with their labels and folds, sorted by (class name, sample id).

    The arrays are read-only copies. Whether groups stay whole is not judged here: a split or folds that the user gave
    may cut them, and the audit says so.
    """

    sample_ids: tuple[str, ...]
    """First 16 hex digits of the SHA-256 of the bytes; copies of the same bytes get `-1`, `-2`, ..."""
    paths: tuple[str, ...]
    """Where the source has it: a relative path, or a name like `row 17` for bytes inside a table."""
    labels: np.ndarray
    """(samples,) int64, index into `classes`."""
    classes: tuple[str, ...]
    """Class names, sorted as text."""
    groups: np.ndarray
    """(samples,) int64, group index; a row that belongs with no other has its own."""
    splits: tuple[Split, ...]
    """(samples,) `dev` or `test`."""
    folds: np.ndarray
    """(samples,) int8, 0 to `num_folds` - 1; -1 in the test split."""

    def __post_init__(self) -> None:
        """Copy the arrays and refuse a table that contradicts itself."""
        for name, dtype in (("labels", np.int64), ("groups", np.int64), ("folds", np.int8)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        self._check_shapes()
        self._check_labels()
        self._check_folds()

    @property
    def dev(self) -> np.ndarray:
        """Rows outside the test split, (dev,) int64, ascending."""
        return np.flatnonzero(self.folds >= 0)

    @property
    def test(self) -> np.ndarray:
        """Rows of the test split, (test,) int64, ascending."""
        return np.flatnonzero(self.folds < 0)

    @property
    def num_folds(self) -> int:
        """How many folds the dev rows are dealt into."""
        return int(self.folds.max()) + 1

    @property
    def data_fingerprint(self) -> str:
        """SHA-256 of ids, labels and classes: equal for the same pictures, wherever they come from."""
        return _digest([self.sample_ids, self.labels.tolist(), self.classes])

    @property
    def fold_fingerprint(self) -> str:
        """SHA-256 of ids, splits and folds: equal exactly when OOF logits may be compared row by row."""
        return _digest([self.sample_ids, self.splits, self.folds.tolist()])

    @functools.cached_property
    def version(self) -> str:
        """A short name for these rows with these labels and folds: trials of one version can be compared."""
        return _digest([self.data_fingerprint, self.fold_fingerprint])[:16]

    def held_out(self, fold: int) -> np.ndarray:
        """Return the dev rows of one fold, ascending: those its model never sees."""
        return np.flatnonzero(self.folds == fold)

    def training(self, fold: int) -> np.ndarray:
        """Return the dev rows of all other folds, ascending."""
        return np.flatnonzero((self.folds >= 0) & (self.folds != fold))

    def _check_shapes(self) -> None:
        num_rows = len(self.sample_ids)
        if num_rows == 0:
            raise ValueError("samples must hold at least one row")
        for name in ("paths", "labels", "groups", "splits", "folds"):
            column = getattr(self, name)
            shape = column.shape if isinstance(column, np.ndarray) else (len(column),)
            if shape != (num_rows,):
                raise ValueError(f"samples.{name} must have shape ({num_rows},) like sample_ids, not {shape}")
        if len(set(self.sample_ids)) < num_rows:
            raise ValueError("samples.sample_ids must not repeat")

    def _check_labels(self) -> None:
        if list(self.classes) != sorted(set(self.classes)):
            raise ValueError(f"samples.classes must be sorted and not repeat, not {self.classes}")
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise ValueError(
                f"samples.labels must be 0 to {len(self.classes) - 1}, not {self.labels.min()} to {self.labels.max()}"
            )

    def _check_folds(self) -> None:
        strange = sorted(set(self.splits) - {"dev", "test"})
        if strange:
            raise ValueError(f"samples.splits must be dev or test, not {strange[0]!r}")
        is_test = np.array([split == "test" for split in self.splits])
        if not np.array_equal(is_test, self.folds == -1):
            raise ValueError("samples.folds must be -1 in the test split and nowhere else")
        present = np.unique(self.folds[~is_test])
        if not np.array_equal(present, np.arange(len(present))) or len(present) < 2:
            raise ValueError(f"samples.folds must be 0, 1, ... without a gap, at least two, not {present.tolist()}")


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
