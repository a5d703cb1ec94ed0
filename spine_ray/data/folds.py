"""Deals the readable pictures into test split and folds: stratified, groups whole, the same on every machine."""

import warnings
from collections.abc import Hashable, Sequence

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, StratifiedShuffleSplit

from spine_ray.data.counted import counted
from spine_ray.data.inspection import Inspection
from spine_ray.data.rows import Row
from spine_ray.data.samples import Samples

MAX_FOLDS = 100
LIGHT_SHARE = 0.05
"""Up to this share of rows in groups of several, groups are dealt as if each were one row."""


def build_samples(
    inspection: Inspection,
    *,
    folds: int = 5,
    test_share: float = 0.2,
    seed: int = 0,
    near: Sequence[tuple[int, int]] = (),
) -> Samples:
    """Build the table of readable pictures, with the source's split and folds where it has them.

    Rows of identical bytes share a group, near copies too, and so do the groups that they join. The answer depends on
    the pictures, their classes, groups, split and folds, and the seed; not on the kind of source nor on the order of
    its rows.

    Args:
        inspection: The source, with every row looked at.
        folds: How many folds to deal, at least 2; a `fold` column overrides it.
        test_share: Share of rows for the test split, above 0, at most 0.5; a test split in the source overrides it.
        seed: 0 to 2**32 - 1.
        near: Rows of the source that are near copies of each other, in pairs.

    Raises:
        ValueError: If a setting is outside its range or a class has too few pictures or groups for the folds.
    """
    _check_settings(folds, test_share, seed)
    source = inspection.source
    if not inspection.readable:
        raise ValueError(f"{source.name}: none of its {len(source.rows)} pictures can be decoded")
    order, sample_ids = _canonical_order(inspection)
    rows = [source.rows[index] for index in order]
    classes = source.classes
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of[row.class_name] for row in rows], dtype=np.int64)
    place = {index: sample for sample, index in enumerate(order)}
    links = [(place[one], place[other]) for one, other in near]
    groups = join_rows(rows, [inspection.looks[index].digest for index in order], links)
    given_folds = any(row.fold is not None for row in rows)
    is_test = np.array([row.split == "test" for row in rows])
    if not is_test.any():
        num_parts = 2 if given_folds else folds
        _check_enough(classes, labels, groups, num_parts + 1, f"{num_parts} folds and a test split")
        is_test = _test_mask(labels, groups, test_share, seed)
    dev = ~is_test
    column = np.full(len(rows), -1, dtype=np.int8)
    if given_folds:
        column[dev] = _given_folds([rows[index].fold for index in np.flatnonzero(dev)])
    else:
        _check_enough(classes, labels[dev], groups[dev], folds, f"{folds} folds")
        column[dev] = _deal(labels[dev], groups[dev], folds, seed)
    _check_spread(classes, labels, column)
    return Samples(
        sample_ids=sample_ids,
        paths=tuple(row.path for row in rows),
        labels=labels,
        classes=classes,
        groups=groups,
        splits=tuple("test" if held else "dev" for held in is_test),
        folds=column,
    )


def _check_settings(folds: int, test_share: float, seed: int) -> None:
    if not 2 <= folds <= MAX_FOLDS:
        raise ValueError(f"folds must be 2 to {MAX_FOLDS}, not {folds}")
    if not 0.0 < test_share <= 0.5:
        raise ValueError(f"test_share must be above 0 and at most 0.5, not {test_share}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be 0 to 2**32 - 1, not {seed}")


def _canonical_order(inspection: Inspection) -> tuple[list[int], tuple[str, ...]]:
    """Return the readable rows sorted by (class name, sample id), and their sample ids."""
    rows, looks = inspection.source.rows, inspection.looks
    copies: dict[str, int] = {}
    named: list[tuple[str, str, int]] = []
    # Copies are numbered by what they say before where they lie, so that another source numbers them the same.
    for index in sorted(inspection.readable, key=lambda index: (looks[index].digest, _row_key(rows[index]))):
        digest = looks[index].digest
        copy = copies[digest] = copies.get(digest, -1) + 1
        named.append((rows[index].class_name, f"{digest}-{copy}" if copy else digest, index))
    named.sort()
    return [index for _, _, index in named], tuple(sample_id for _, sample_id, _ in named)


def _row_key(row: Row) -> tuple[str, str, str, int, str]:
    return row.class_name, row.split or "", row.group or "", -1 if row.fold is None else row.fold, row.path


def sample_rows(inspection: Inspection) -> tuple[int, ...]:
    """Return the row of the source that each sample of `build_samples` is."""
    return tuple(_canonical_order(inspection)[0])


def join_rows(rows: Sequence[Row], digests: Sequence[str], links: Sequence[tuple[int, int]] = ()) -> np.ndarray:
    """Join rows of one group, of the same bytes or linked (union-find); number the groups by their first row.

    Returns:
        (rows,) int64.
    """
    parent = list(range(len(rows)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    def join(one: int, other: int) -> None:
        here, there = root(one), root(other)
        parent[max(here, there)] = min(here, there)

    first_with: dict[Hashable, int] = {}
    for index, (row, digest) in enumerate(zip(rows, digests, strict=True)):
        keys: list[tuple[str, str]] = [("bytes", digest)]
        if row.group is not None:
            keys.append(("group", row.group))
        for key in keys:
            join(index, first_with.setdefault(key, index))
    for one, other in links:
        join(one, other)
    # The root of a group is its first row, so that numbers follow the order of the rows.
    return np.unique([root(index) for index in range(len(rows))], return_inverse=True)[1].astype(np.int64)


def _given_folds(folds: Sequence[int | None]) -> np.ndarray:
    """Number the source's folds from 0."""
    names, column = np.unique(np.array(folds, dtype=np.int64), return_inverse=True)
    if not 2 <= len(names) <= MAX_FOLDS:
        raise ValueError(f"the column `fold` must name 2 to {MAX_FOLDS} folds, not {len(names)}")
    return column.astype(np.int8)


def _check_enough(classes: Sequence[str], labels: np.ndarray, groups: np.ndarray, needed: int, what: str) -> None:
    for label, name in enumerate(classes):
        mine = groups[labels == label]
        num_groups = len(np.unique(mine))
        if num_groups < needed:
            apart = f" in {counted(num_groups, 'group', 'groups')}" if num_groups < len(mine) else ""
            raise ValueError(
                f"class {name!r} has {counted(len(mine), 'dev picture', 'dev pictures')}{apart}, too few for {what}: "
                f"at least {needed} pictures that belong to no common group are needed"
            )


def _check_spread(classes: Sequence[str], labels: np.ndarray, folds: np.ndarray) -> None:
    for label, name in enumerate(classes):
        present = np.unique(folds[(labels == label) & (folds >= 0)])
        if len(present) < 2:
            where = f"all in fold {present[0]}" if len(present) else "none outside the test split"
            raise ValueError(f"class {name!r} has its dev pictures {where}: every class must lie in 2 folds or more")


def _test_mask(labels: np.ndarray, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Choose about `share` of the rows for the test split, (rows,) bool."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    if _is_light(labels, first, member, 2):
        num_test = round(share * len(first))
        num_classes = len(np.unique(labels))
        if num_test < num_classes:
            raise ValueError(
                f"test_share {share:g} of {len(labels)} pictures is {num_test}, fewer than the {num_classes} classes: "
                "raise it or give a test split"
            )
        splitter = StratifiedShuffleSplit(n_splits=1, test_size=num_test, random_state=seed)
        chosen = next(splitter.split(first, labels[first]))[1]
        return np.isin(member, chosen)
    # A part holds about one share; no more parts than can be dealt.
    num_parts = min(round(1 / share), MAX_FOLDS, len(first), int(np.bincount(labels).max()))
    parts = _deal(labels, groups, num_parts, seed)
    sizes = np.bincount(parts)
    return np.asarray(parts == np.abs(sizes - share * len(labels)).argmin())


def _deal(labels: np.ndarray, groups: np.ndarray, num_parts: int, seed: int) -> np.ndarray:
    """Deal rows into stratified parts with groups whole, (rows,) int8."""
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    parts = np.full(len(labels), -1, dtype=np.int8)
    if _is_light(labels, first, member, num_parts):
        of_group = np.full(len(first), -1, dtype=np.int8)
        rows = StratifiedKFold(num_parts, shuffle=True, random_state=seed)
        for part, (_, chosen) in enumerate(rows.split(first, labels[first])):
            of_group[chosen] = part
        return of_group[member]
    whole = StratifiedGroupKFold(num_parts, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer rows than parts is judged by the checks above, in the user's words.
        warnings.filterwarnings("ignore", message="The least populated class")
        for part, (_, chosen) in enumerate(whole.split(labels, labels, groups)):
            parts[chosen] = part
    return parts


def _is_light(labels: np.ndarray, first: np.ndarray, member: np.ndarray, num_parts: int) -> bool:
    """Whether groups can be dealt as single rows of their first row's class, and the parts stay balanced.

    StratifiedGroupKFold takes 0.1 ms a group: minutes for a few copies among a million pictures.
    """
    crowded = np.bincount(member)[member] > 1
    can_deal = int(np.bincount(labels[first], minlength=int(labels.max()) + 1).min()) >= num_parts
    return can_deal and float(crowded.mean()) <= LIGHT_SHARE
