"""Data that has changed since the study began: old rows keep their folds, new ones are dealt among them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spine_ray.data.counted import counted
from spine_ray.data.findings import Finding
from spine_ray.data.rows import Row
from spine_ray.data.samples import Samples

MIN_KEPT_SHARE = 0.5
"""With fewer of the study's rows still there, it is other data and not the same data grown."""
_TEST = -1
"""The test split, among the folds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Growth:
    """By which rows the data differs from what the study began with, as sample ids."""

    added: tuple[str, ...] = ()
    relabelled: tuple[str, ...] = ()
    """Same picture, another class."""
    removed: tuple[str, ...] = ()


def growth_findings(growth: Growth) -> tuple[Finding, ...]:
    """Return what the audit says of a change: new rows are a fact, other labels and missing rows a warning."""
    told = "old rows keep their folds, trials on the old rows stay on the board, marked"
    added, relabelled, removed = (
        counted(len(rows), one, many)
        for rows, one, many in (
            (growth.added, "picture is", "pictures are"),
            (growth.relabelled, "picture has", "pictures have"),
            (growth.removed, "picture of the study is", "pictures of the study are"),
        )
    )
    findings = [
        Finding(level="fact", kind="added", message=f"{added} new; {told}", rows=growth.added),
        Finding(
            level="warning",
            kind="relabelled",
            message=f"{relabelled} another class than the study knew",
            rows=growth.relabelled,
        ),
        Finding(
            level="warning",
            kind="removed",
            message=f"{removed} no longer there",
            rows=growth.removed,
        ),
    ]
    return tuple(finding for finding in findings if finding.rows)


def is_grown(stored: Samples, fresh: Samples) -> bool:
    """Say whether so many of the stored rows are still there that this is the same data, grown."""
    kept = len(set(stored.sample_ids) & set(fresh.sample_ids))
    return kept >= MIN_KEPT_SHARE * len(stored.sample_ids)


def grow(stored: Samples, fresh: Samples, rows: Sequence[Row], *, seed: int) -> tuple[Samples, Growth]:
    """Return the fresh rows with the folds of those that were there, and what is new.

    A new row that belongs to a group goes where the group's first old row is. Other new groups go, one after the
    other, to the fold (or the test split) that lacks their class most; rows whose split or fold the source says go
    there.

    Args:
        stored: The study's rows.
        fresh: The rows as `build_samples` makes them now; their folds are not used.
        rows: Of the source, in the order of `fresh`.
        seed: Decides the order in which new groups are dealt.
    """
    before = {sample_id: place for place, sample_id in enumerate(stored.sample_ids)}
    old = np.array([before.get(sample_id, -1) for sample_id in fresh.sample_ids], np.int64)
    folds = np.where(old >= 0, stored.folds[old], _TEST).astype(np.int64)
    is_placed = _follow_groups(fresh.groups, old, folds)
    _deal_rest(stored, fresh, _allowed(stored, rows), folds, is_placed, seed)
    grown = Samples(
        sample_ids=fresh.sample_ids,
        paths=fresh.paths,
        labels=fresh.labels,
        classes=fresh.classes,
        groups=fresh.groups,
        splits=tuple("test" if fold == _TEST else "dev" for fold in folds),
        folds=folds.astype(np.int8),
    )
    return grown, _difference(stored, fresh, old)


def _follow_groups(
    groups: npt.NDArray[np.int64], old: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]
) -> "npt.NDArray[np.bool_]":
    """Place new rows where their group's first old row is; return which rows are placed."""
    is_placed: npt.NDArray[np.bool_] = old >= 0
    known, first = np.unique(groups[is_placed], return_index=True)
    fold_of = dict(zip(known.tolist(), folds[is_placed][first].tolist(), strict=True))
    for row in np.flatnonzero(~is_placed):
        fold = fold_of.get(int(groups[row]))
        if fold is not None:
            folds[row], is_placed[row] = fold, True
    return is_placed


def _allowed(stored: Samples, rows: Sequence[Row]) -> list[tuple[int, ...]]:
    """Return where each row may go: where the source says, else to any fold, and to the test split if it is ours."""
    folds = tuple(range(stored.num_folds))
    test_is_given = any(row.split == "test" for row in rows)
    free = folds if test_is_given or not len(stored.test) else (_TEST, *folds)
    places: list[tuple[int, ...]] = []
    for row in rows:
        if row.split == "test":
            places.append((_TEST,))
        elif row.fold is not None and row.fold in folds:
            places.append((row.fold,))
        else:
            places.append(free)
    return places


def _deal_rest(
    stored: Samples,
    fresh: Samples,
    allowed: Sequence[tuple[int, ...]],
    folds: npt.NDArray[np.int64],
    is_placed: npt.NDArray[np.bool_],
    seed: int,
) -> None:
    """Deal the rows that no old row's group holds, a group at a time, to where their class is scarcest."""
    sizes = {fold: int((stored.folds == fold).sum()) for fold in (_TEST, *range(stored.num_folds))}
    share = {fold: size / len(stored.folds) for fold, size in sizes.items()}
    counts = {
        fold: np.bincount(fresh.labels[is_placed & (folds == fold)], minlength=len(fresh.classes)) for fold in sizes
    }
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(~is_placed):
        members.setdefault(int(fresh.groups[row]), []).append(int(row))
    groups = sorted(members)
    for place in np.random.default_rng(seed).permutation(len(groups)):
        rows = members[groups[place]]
        label = int(fresh.labels[rows[0]])
        fold = min(allowed[rows[0]], key=lambda fold: (counts[fold][label] / share[fold], sum(counts[fold]), fold))
        folds[rows] = fold
        counts[fold] += np.bincount(fresh.labels[rows], minlength=len(fresh.classes))


def _difference(stored: Samples, fresh: Samples, old: npt.NDArray[np.int64]) -> Growth:
    now = set(fresh.sample_ids)
    relabelled = [
        sample_id
        for sample_id, place, label in zip(fresh.sample_ids, old, fresh.labels, strict=True)
        if place >= 0 and stored.classes[stored.labels[place]] != fresh.classes[label]
    ]
    return Growth(
        added=tuple(sample_id for sample_id, place in zip(fresh.sample_ids, old, strict=True) if place < 0),
        relabelled=tuple(relabelled),
        removed=tuple(sample_id for sample_id in stored.sample_ids if sample_id not in now),
    )
