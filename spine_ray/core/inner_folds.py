"""Folds inside the training rows, on which a setting of the fit is chosen: stratified, groups whole."""

import numpy as np
import numpy.typing as npt

FOLDS = 5
ALWAYS_FITTED = -1
"""The fold of rows that are never held out."""

Integers = npt.NDArray[np.int64]
"""(rows,)."""


def deal_inner_folds(labels: Integers, groups: Integers, seed: int) -> Integers:
    """Deal rows into five folds, of each class about a fifth into each, as far as whole groups allow.

    The largest groups come first, equal ones in random order; each goes where fewest rows of its classes are, of such
    folds to the smallest. A class in one fold only is never held out: without it, no class would be left to fit.

    Args:
        labels: (rows,), class indices.
        groups: (rows,), any integers; rows of one group are in one fold.
        seed: Decides the order of equal groups.

    Returns:
        (rows,), the fold of each row, 0 to 4; -1 for a row that is never held out.
    """
    label = np.unique(labels, return_inverse=True)[1]
    group = np.unique(groups, return_inverse=True)[1]
    folds = _deal_groups(label, group, np.random.default_rng(seed))[group]
    num_folds_of_class = np.zeros(int(label.max()) + 1, np.int64)
    np.add.at(num_folds_of_class, np.unique(label * FOLDS + folds) // FOLDS, 1)
    is_alone = np.zeros(int(group.max()) + 1, np.bool_)
    is_alone[group[num_folds_of_class[label] < 2]] = True
    return np.where(is_alone[group], ALWAYS_FITTED, folds)


def _deal_groups(label: Integers, group: Integers, generator: np.random.Generator) -> Integers:
    """Return the fold of each group, (groups,); labels and groups are numbered from 0."""
    class_sizes = np.bincount(label)
    # A cell is a pair of a group and a class that have rows in common; cells ascend by group.
    cells, counts = np.unique(group * len(class_sizes) + label, return_counts=True)
    cell_class, cell_rows = (cells % len(class_sizes)).tolist(), counts.tolist()
    ends = np.cumsum(np.bincount(cells // len(class_sizes))).tolist()
    sizes = np.bincount(group)
    shuffled = generator.permutation(len(sizes))
    fold_of_group = np.empty(len(sizes), np.int64)
    share = (1.0 / class_sizes).tolist()
    held = np.zeros((len(class_sizes), FOLDS)).tolist()
    fold_sizes = [0] * FOLDS
    for index in shuffled[np.argsort(-sizes[shuffled], kind="stable")].tolist():
        mine = range(ends[index - 1] if index else 0, ends[index])
        crowd = [sum(cell_rows[c] * held[cell_class[c]][fold] for c in mine) for fold in range(FOLDS)]
        fold = min(range(FOLDS), key=lambda fold: (crowd[fold], fold_sizes[fold], fold))
        fold_of_group[index] = fold
        for cell in mine:
            held[cell_class[cell]][fold] += share[cell_class[cell]] * cell_rows[cell]
            fold_sizes[fold] += cell_rows[cell]
    return fold_of_group
