"""A hold-out inside the training rows, on which a setting of the fit is chosen: stratified, groups whole."""

import numpy as np
import numpy.typing as npt

HELD_OUT_SHARE = 0.2
LEAST_HELD_OUT = 10
"""Rows: of fewer, the log-loss says nothing."""

Labels = npt.NDArray[np.int64]


def inner_holdout(labels: Labels, groups: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.bool_] | None:
    """Choose about a fifth of the rows to hold out, of each class its share as far as whole groups allow.

    Groups come in random order; one is held out where that brings the held-out rows of its classes nearer to their
    shares, and where each of its classes has another group that stays. So no class is missing in the rest.

    Args:
        labels: (rows,), class indices.
        groups: (rows,), any integers; rows of one group stay on one side.
        seed: Decides which.

    Returns:
        (rows,), whether a row is held out; None where groups or rows are too few for at least 10 of them.
    """
    generator = np.random.default_rng(seed)
    label = np.unique(labels, return_inverse=True)[1]
    group = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(label)
    # A cell is a pair of a group and a class that have rows in common; cells ascend by group.
    cells, sizes = np.unique(group * len(counts) + label, return_counts=True)
    spare_groups = np.bincount(cells % len(counts)) - 1
    wanted = _shares(np.where(spare_groups > 0, counts, 0), generator)
    ends = np.cumsum(np.bincount(cells // len(counts)))
    missing, spare = wanted.tolist(), spare_groups.tolist()
    cell_label, cell_size, cell_end = (cells % len(counts)).tolist(), sizes.tolist(), ends.tolist()
    is_held = np.zeros(len(ends), np.bool_)
    for index in generator.permutation(len(ends)).tolist():
        span = range(cell_end[index - 1] if index else 0, cell_end[index])
        gain = sum(abs(missing[cell_label[cell]]) - abs(missing[cell_label[cell]] - cell_size[cell]) for cell in span)
        if gain > 0 and all(spare[cell_label[cell]] > 0 for cell in span):
            is_held[index] = True
            for cell in span:
                missing[cell_label[cell]] -= cell_size[cell]
                spare[cell_label[cell]] -= 1
    held_out = is_held[group]
    return held_out if int(held_out.sum()) >= LEAST_HELD_OUT else None


def _shares(counts: npt.NDArray[np.int64], generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how many rows of each class to hold out: whole numbers that add up to the share of them all.

    The classes are rounded along a running sum in random order: many classes of two rows are held out in turn, where
    rounding each by itself would hold out none.
    """
    order = generator.permutation(len(counts))
    sums = np.floor(np.cumsum(counts[order]) * HELD_OUT_SHARE + 0.5).astype(np.int64)
    shares = np.empty_like(sums)
    shares[order] = np.diff(sums, prepend=0)
    return shares
