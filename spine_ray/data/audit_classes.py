"""What the audit says of the classes: names that are nearly one, sizes that are small for the folds or far apart."""

import re
from collections.abc import Iterator

import numpy as np
from rapidfuzz.distance import OSA
from rapidfuzz.process import cdist

from spine_ray.data.counted import counted
from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Finding

_SURE_LETTERS = 8
"""One edit between names of so many letters is a typo whatever their counts."""
_SHORTEST = 4
"""Shorter names are words of their own: cat, car."""
_RARE = 0.5
"""Between shorter names, the rarer one must have at most this part of the other's rows."""


def class_findings(evidence: Evidence) -> Iterator[Finding]:
    """Say how large the classes are, which are too small or too far apart, and which names look like typos."""
    samples = evidence.samples
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    yield from _absent_from_test(evidence)
    yield from _small(evidence)
    yield from _imbalance(evidence, counts)
    yield from _typos(evidence, counts)
    low, high = int(counts.argmin()), int(counts.argmax())
    yield Finding(
        level="fact",
        kind="balance",
        message=f"{len(samples.classes)} classes; smallest {samples.classes[low]} with "
        f"{counted(int(counts[low]), 'picture', 'pictures')}, largest {samples.classes[high]} with {counts[high]}",
    )


def are_typos(one: str, other: str, counts: tuple[int, int]) -> bool:
    """Say whether two class names are most likely one, spelt in two ways.

    Names that differ in digits or in a token of one or two letters (`class_1` and `class_2`, `type a` and `type b`)
    are meant to differ.

    Args:
        one: A class name.
        other: Another one.
        counts: How many rows each has.
    """
    if re.findall(r"\d+", one) != re.findall(r"\d+", other):
        return False
    tokens, others = _tokens(one), _tokens(other)
    if "".join(tokens) == "".join(others):
        return True
    if len(tokens) == len(others):
        apart = [(mine, theirs) for mine, theirs in zip(tokens, others, strict=True) if mine != theirs]
        if any(min(len(mine), len(theirs)) <= 2 for mine, theirs in apart):
            return False
        if all(_is_plural(*sorted(pair, key=len)) for pair in apart):
            return True
    shorter = min(len("".join(tokens)), len("".join(others)))
    is_rare = shorter >= _SHORTEST and min(counts) <= _RARE * max(counts)
    return (shorter >= _SURE_LETTERS or is_rare) and OSA.distance("".join(tokens), "".join(others)) == 1


def _tokens(name: str) -> list[str]:
    return [token for token in re.split(r"[\s_\-.]+", name.casefold()) if token]


def _is_plural(shorter: str, longer: str) -> bool:
    return longer in (f"{shorter}s", f"{shorter}es") and len(shorter) > 2


def _typos(evidence: Evidence, counts: np.ndarray) -> Iterator[Finding]:
    samples = evidence.samples
    names = ["".join(_tokens(name)) for name in samples.classes]
    # Two edits apart at most ("-es"); what is further apart is no typo.
    near = cdist(names, names, scorer=OSA.distance, score_cutoff=2, dtype=np.uint8) <= 2
    pairs = [
        (int(one), int(other))
        for one, other in np.argwhere(np.triu(near, 1))
        if are_typos(samples.classes[one], samples.classes[other], (int(counts[one]), int(counts[other])))
    ]
    if pairs:
        told = ", ".join(
            f"{samples.classes[one]!r} ({counts[one]}) and {samples.classes[other]!r} ({counts[other]})"
            for one, other in pairs
        )
        rarer = np.unique([min(pair, key=lambda label: (counts[label], label)) for pair in pairs])
        yield Finding(
            level="warning",
            kind="label_typo",
            message=f"class names that are nearly the same, with their pictures: {told}",
            rows=evidence.ids(np.flatnonzero(np.isin(samples.labels, rarer))),
        )


def _absent_from_test(evidence: Evidence) -> Iterator[Finding]:
    samples = evidence.samples
    absent = sorted(set(range(len(samples.classes))) - set(samples.labels[samples.test].tolist()))
    if absent:
        names = ", ".join(samples.classes[label] for label in absent)
        yield Finding(level="warning", kind="class_not_in_test", message=f"classes without a test picture: {names}")


def _small(evidence: Evidence) -> Iterator[Finding]:
    samples, needed = evidence.samples, evidence.limits.rows_per_fold
    counts = np.bincount(samples.labels[samples.dev], minlength=len(samples.classes))
    small = np.flatnonzero(counts < needed * samples.num_folds)
    if len(small):
        told = ", ".join(f"{samples.classes[label]} ({counts[label]})" for label in small)
        yield Finding(
            level="warning",
            kind="small_class",
            message=f"classes with fewer than {counted(needed, 'dev picture', 'dev pictures')} a fold "
            f"({samples.num_folds} folds): {told}; "
            "what is said of them rests on a handful",
            rows=evidence.ids(np.flatnonzero(np.isin(samples.labels, small))),
        )


def _imbalance(evidence: Evidence, counts: np.ndarray) -> Iterator[Finding]:
    samples, most = evidence.samples, evidence.limits.imbalance
    few = np.flatnonzero(counts * most <= counts.max())
    if len(few):
        told = ", ".join(f"{samples.classes[label]} ({counts[label]})" for label in few)
        yield Finding(
            level="warning",
            kind="imbalance",
            message=f"classes {most:g} times smaller than the largest, {samples.classes[int(counts.argmax())]} "
            f"({counts.max()}): {told}; look at balanced accuracy, and try class weighting",
            rows=evidence.ids(np.flatnonzero(np.isin(samples.labels, few))),
        )
