"""What can be said about the data before any training: unreadable pictures, copies, leaks, balance, sizes."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from spine_ray.data.inspection import Inspection, short_sides
from spine_ray.data.samples import Samples
from spine_ray.data.sources import is_picture

Level = Literal["error", "warning", "fact"]
LEVELS: tuple[Level, ...] = ("error", "warning", "fact")
MAX_UNREADABLE_SHARE = 0.05
"""Above this share of pictures that cannot be read, something is wrong with the data as a whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that the audit saw."""

    level: Level
    """`error`: do not train before it is mended; `warning`: results may mislead; `fact`: good to know."""
    kind: str
    """Short stable name, for programs."""
    message: str
    """One line for people."""
    rows: tuple[str, ...] = ()
    """The sample ids it is about; for pictures that are left out, which have none, their paths."""

    def __post_init__(self) -> None:
        """Refuse an unknown level."""
        if self.level not in LEVELS:
            raise ValueError(f"finding.level must be one of {', '.join(LEVELS)}, not {self.level!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """All findings, errors first."""

    findings: tuple[Finding, ...]

    def of(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain values for JSON."""
        return {"findings": [{**asdict(finding), "rows": list(finding.rows)} for finding in self.findings]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Audit":
        """Build the audit that `to_dict` wrote."""
        findings = (Finding(**{**finding, "rows": tuple(finding["rows"])}) for finding in values["findings"])
        return cls(findings=tuple(findings))


def audit(inspection: Inspection, samples: Samples) -> Audit:
    """Judge the data from one inspection and the samples that were built from it; reads no bytes.

    Args:
        inspection: Every row of the source, looked at.
        samples: What `build_samples` made of this inspection.
    """
    findings = [
        *_unreadable(inspection),
        *_copies(samples),
        *_cut_groups(samples),
        *_small_parts(samples),
        _counts(samples),
        _balance(samples),
        _resolution(inspection),
        *_skipped(inspection),
    ]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Audit(findings=tuple(findings))


def _unreadable(inspection: Inspection) -> Iterator[Finding]:
    paths_of: dict[str, list[str]] = defaultdict(list)
    for row, look in zip(inspection.source.rows, inspection.looks, strict=True):
        if look.problem is not None:
            paths_of[look.problem].append(row.path)
    num_rows = len(inspection.looks)
    num_unreadable = sum(map(len, paths_of.values()))
    level: Level = "error" if num_unreadable > MAX_UNREADABLE_SHARE * num_rows else "warning"
    for problem, paths in sorted(paths_of.items()):
        yield Finding(
            level=level,
            kind="unreadable",
            message=f"{len(paths)} of {num_rows} pictures left out: {problem} (first: {paths[0]})",
            rows=tuple(paths),
        )


def _copies(samples: Samples) -> Iterator[Finding]:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for index, sample_id in enumerate(samples.sample_ids):
        rows_of[sample_id.partition("-")[0]].append(index)
    copied = [rows for rows in rows_of.values() if len(rows) > 1]
    if copied:
        num_copies = sum(len(rows) - 1 for rows in copied)
        yield Finding(
            level="warning",
            kind="duplicates",
            message=f"{num_copies} pictures are exact copies of {len(copied)} others; copies share a group",
            rows=_ids(samples, (row for rows in copied for row in rows)),
        )
    torn = [rows for rows in copied if len(set(samples.labels[rows].tolist())) > 1]
    if torn:
        names = ", ".join(samples.classes[label] for label in sorted(set(samples.labels[torn[0]].tolist())))
        yield Finding(
            level="warning",
            kind="conflicting_labels",
            message=f"{len(torn)} pictures have copies of another class (first: {names})",
            rows=_ids(samples, (row for rows in torn for row in rows)),
        )


def _cut_groups(samples: Samples) -> Iterator[Finding]:
    """Find groups on both sides of a cut; only a split or folds that the user gave can do that."""
    is_test = samples.folds < 0
    in_test = np.isin(samples.groups, samples.groups[is_test])
    leaking = in_test & np.isin(samples.groups, samples.groups[~is_test])
    if leaking.any():
        yield Finding(
            level="warning",
            kind="test_leak",
            message=f"{len(np.unique(samples.groups[leaking]))} groups (or copies) lie in the given test split and "
            "outside it: test numbers will flatter",
            rows=_ids(samples, np.flatnonzero(leaking)),
        )
    pairs = np.unique(np.stack([samples.groups[~is_test], samples.folds[~is_test]]), axis=1)
    names, counts = np.unique(pairs[0], return_counts=True)
    cut = names[counts > 1]
    if len(cut):
        yield Finding(
            level="warning",
            kind="fold_leak",
            message=f"{len(cut)} groups (or copies) lie in several of the given folds: OOF numbers will flatter",
            rows=_ids(samples, np.flatnonzero(np.isin(samples.groups, cut) & ~is_test)),
        )


def _small_parts(samples: Samples) -> Iterator[Finding]:
    absent = sorted(set(range(len(samples.classes))) - set(samples.labels[samples.test].tolist()))
    if absent:
        names = ", ".join(samples.classes[label] for label in absent)
        yield Finding(level="warning", kind="class_not_in_test", message=f"classes without a test picture: {names}")


def _counts(samples: Samples) -> Finding:
    message = f"{len(samples.dev)} dev pictures in {samples.num_folds} folds, {len(samples.test)} in the test split"
    return Finding(level="fact", kind="counts", message=message)


def _balance(samples: Samples) -> Finding:
    counts = np.bincount(samples.labels, minlength=len(samples.classes))
    low, high = int(counts.argmin()), int(counts.argmax())
    message = (
        f"{len(samples.classes)} classes; smallest {samples.classes[low]} with {counts[low]} pictures, "
        f"largest {samples.classes[high]} with {counts[high]}"
    )
    return Finding(level="fact", kind="balance", message=message)


def _resolution(inspection: Inspection) -> Finding:
    sides = short_sides(inspection)
    message = f"short side {sides.min()} to {sides.max()} px, median {np.median(sides):g} px"
    return Finding(level="fact", kind="resolution", message=message)


def _skipped(inspection: Inspection) -> Iterator[Finding]:
    skipped = inspection.source.skipped
    outside = tuple(path for path in skipped if is_picture(path))
    others = tuple(path for path in skipped if not is_picture(path))
    if outside:
        message = f"{len(outside)} pictures left out: they lie in no class folder (first: {outside[0]})"
        yield Finding(level="warning", kind="outside", message=message, rows=outside)
    if others:
        message = f"{len(others)} files passed over: their names are no picture's (first: {others[0]})"
        yield Finding(level="fact", kind="skipped", message=message, rows=others)


def _ids(samples: Samples, rows: Iterable[int] | np.ndarray) -> tuple[str, ...]:
    return tuple(samples.sample_ids[row] for row in rows)
