"""What can be said about the data before any training: every judge is heard, errors come first."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from spine_ray.data.albums import is_picture
from spine_ray.data.audit_classes import class_findings
from spine_ray.data.audit_copies import copy_findings
from spine_ray.data.audit_files import file_findings
from spine_ray.data.audit_sizes import size_findings
from spine_ray.data.counted import counted
from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Audit, Finding, Level
from spine_ray.data.shortcuts import shortcut_findings


def audit(evidence: Evidence) -> Audit:
    """Judge the data from one inspection and the samples that were built from it; reads no bytes."""
    return Audit.ordered(
        [
            *_unreadable(evidence),
            *file_findings(evidence),
            *copy_findings(evidence),
            *class_findings(evidence),
            _counts(evidence),
            *size_findings(evidence),
            *shortcut_findings(evidence),
            *_skipped(evidence),
        ]
    )


def _unreadable(evidence: Evidence) -> Iterator[Finding]:
    inspection = evidence.inspection
    paths_of: dict[str, list[str]] = defaultdict(list)
    for row, look in zip(inspection.source.rows, inspection.looks, strict=True):
        if look.problem is not None:
            paths_of[look.problem].append(row.path)
    num_rows = len(inspection.looks)
    num_unreadable = sum(map(len, paths_of.values()))
    level: Level = "error" if num_unreadable > evidence.limits.unreadable * num_rows else "warning"
    for problem, paths in sorted(paths_of.items()):
        yield Finding(
            level=level,
            kind="unreadable",
            message=f"{len(paths)} of {num_rows} pictures left out: {problem} (first: {paths[0]})",
            rows=tuple(paths),
        )


def _counts(evidence: Evidence) -> Finding:
    samples = evidence.samples
    message = f"{len(samples.dev)} dev pictures in {samples.num_folds} folds, {len(samples.test)} in the test split"
    num_groups = len(np.unique(samples.groups))
    apart = f"; {num_groups} groups that stay whole" if num_groups < len(samples.sample_ids) else ""
    return Finding(level="fact", kind="counts", message=message + apart)


def _skipped(evidence: Evidence) -> Iterator[Finding]:
    skipped = evidence.inspection.source.skipped
    outside = tuple(path for path in skipped if is_picture(path))
    others = tuple(path for path in skipped if not is_picture(path))
    if outside:
        message = f"{counted(len(outside), 'picture', 'pictures')} left out, in no class folder (first: {outside[0]})"
        yield Finding(level="warning", kind="outside", message=message, rows=outside)
    if others:
        message = f"{counted(len(others), 'file', 'files')} passed over, by name no picture (first: {others[0]})"
        yield Finding(level="fact", kind="skipped", message=message, rows=others)
