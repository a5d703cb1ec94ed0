"""What the audit says of copies, exact and near: which there are, which disagree, and which leak across a cut."""

from collections.abc import Iterator, Sequence

import numpy as np

from spine_ray.data.counted import counted
from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Finding
from spine_ray.data.folds import join_rows

Groups = Sequence[np.ndarray]


def copy_findings(evidence: Evidence) -> Iterator[Finding]:
    """Say which pictures are copies, whether their labels agree, and which lie on both sides of a cut."""
    exact, near = _exact_groups(evidence), evidence.near_groups()
    if exact:
        yield Finding(
            level="warning",
            kind="duplicates",
            message=f"{counted(_extra(exact), 'picture is an exact copy', 'pictures are exact copies')} of "
            f"{counted(len(exact), 'other', 'others')}; copies share a group",
            rows=evidence.ids(np.concatenate(exact)),
        )
    if near:
        yield Finding(
            level="warning",
            kind="near_duplicates",
            message=f"{counted(_extra(near), 'picture is a near copy', 'pictures are near copies')} (encoded again, "
            f"resized, cropped by a hair) of {counted(len(near), 'other', 'others')}; they share a group "
            f"({_first(evidence, near)})",
            rows=evidence.ids(np.concatenate(near)),
        )
    yield from _crowds(evidence)
    yield from _conflicts(evidence, "conflicting_labels", "copies", exact)
    yield from _conflicts(evidence, "near_conflicting_labels", "near copies", _differing(evidence, near))
    # Without the near copies, so that what they leak is said for itself.
    rows = evidence.rows
    given = _as_groups(join_rows(rows, [look.digest for look in evidence.looks]))
    yield from _leaks(evidence, "", ("group (or exact copies) lies", "groups (or exact copies) lie"), given)
    yield from _leaks(evidence, "near_", ("group of near copies lies", "groups of near copies lie"), near)


def _crowds(evidence: Evidence) -> Iterator[Finding]:
    crowds = evidence.near_crowds()
    if crowds:
        rows = np.concatenate(crowds)
        yield Finding(
            level="warning",
            kind="near_crowd",
            message=f"{len(rows)} pictures look so alike, one after the other, that they would be "
            f"{counted(len(crowds), 'group', 'groups')} of more than {evidence.limits.crowd:.0%} of the rows; "
            f"only the closest of them share a group ({_first(evidence, crowds)})",
            rows=evidence.ids(rows),
        )


def _conflicts(evidence: Evidence, kind: str, what: str, groups: Groups) -> Iterator[Finding]:
    samples = evidence.samples
    torn = [group for group in groups if len(np.unique(samples.labels[group])) > 1]
    if torn:
        names = ", ".join(samples.classes[label] for label in np.unique(samples.labels[torn[0]]))
        yield Finding(
            level="warning",
            kind=kind,
            message=f"{counted(len(torn), 'picture has', 'pictures have')} {what} of another class "
            f"(first: {names}; {_first(evidence, torn)})",
            rows=evidence.ids(np.concatenate(torn)),
        )


def _leaks(evidence: Evidence, prefix: str, what: tuple[str, str], groups: Groups) -> Iterator[Finding]:
    """Find groups on both sides of a cut; only a split or folds that were given, or rows that came later, do that."""
    folds = evidence.samples.folds
    leaking = [group for group in groups if (folds[group] < 0).any() and (folds[group] >= 0).any()]
    if leaking:
        yield Finding(
            level="warning",
            kind=f"{prefix}test_leak",
            message=f"{counted(len(leaking), *what)} in the given test split and outside it: test numbers will flatter "
            f"({_first(evidence, leaking)})",
            rows=evidence.ids(np.concatenate(leaking)),
        )
    dev = [group[folds[group] >= 0] for group in groups]
    cut = [group for group in dev if len(np.unique(folds[group])) > 1]
    if cut:
        yield Finding(
            level="warning",
            kind=f"{prefix}fold_leak",
            message=f"{counted(len(cut), *what)} in several of the given folds: OOF numbers will flatter "
            f"({_first(evidence, cut)})",
            rows=evidence.ids(np.concatenate(cut)),
        )


def _exact_groups(evidence: Evidence) -> list[np.ndarray]:
    digests = np.array([look.digest for look in evidence.looks])
    return _as_groups(np.unique(digests, return_inverse=True)[1])


def _as_groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Return the samples of every number that several have."""
    several = np.flatnonzero(np.bincount(numbers)[numbers] > 1)
    order = several[np.argsort(numbers[several], kind="stable")]
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    return [group for group in np.split(order, starts[1:]) if len(group) > 1]


def _differing(evidence: Evidence, groups: Groups) -> list[np.ndarray]:
    """Return the groups in which one picture's bytes disagree with other bytes, not with its own exact copies alone."""
    looks, labels = evidence.looks, evidence.samples.labels
    found = []
    for group in groups:
        of_digest: dict[str, set[int]] = {}
        for sample in group:
            of_digest.setdefault(looks[sample].digest, set()).add(int(labels[sample]))
        if len({frozenset(known) for known in of_digest.values()}) > 1:
            found.append(group)
    return found


def _extra(groups: Groups) -> int:
    return sum(len(group) - 1 for group in groups)


def _first(evidence: Evidence, groups: Groups) -> str:
    paths = evidence.samples.paths
    return f"first: {paths[groups[0][0]]}, {paths[groups[0][1]]}"
