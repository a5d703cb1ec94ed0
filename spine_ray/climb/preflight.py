"""Before anything trains: the data looked at, the study opened or begun, the pictures decoded."""

import importlib.metadata
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from spine_ray.climb.request import SearchRequest, StoppedByGate
from spine_ray.core.cache import cache_budget
from spine_ray.core.pixels import PixelFile, short_side
from spine_ray.data.audit import audit
from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Audit
from spine_ray.data.folds import build_samples
from spine_ray.data.growth import MIN_KEPT_SHARE, Growth, grow, growth_findings, is_grown
from spine_ray.data.inspection import inspect_source
from spine_ray.data.limits import AuditLimits
from spine_ray.data.near import find_near_copies
from spine_ray.data.places import Place
from spine_ray.data.rows import Source
from spine_ray.data.samples import Samples
from spine_ray.show.live import Progress
from spine_ray.study.paths import StudyPaths, replace_json, replace_text, write_twice
from spine_ray.study.record import Choices, DataChange, StudyRecord, WeightsRecord, read_record, write_record
from spine_ray.study.tables import read_samples, write_samples
from spine_ray.workers.worker_data import DecodeRequest

_ENTRIES = 4
"""One frozen prefix's activations may take this part of the cache: several are in use at a time."""
_PACKAGES = ("spine-ray", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Rows:
    """The study's rows and where their pictures come from."""

    source: Source
    samples: Samples
    audit: Audit
    before: Samples | None = None
    """The study's rows until now, where the data has changed since."""
    growth: Growth | None = None
    """What has changed."""


def look_at_data(request: SearchRequest, source: Source) -> Rows:
    """Read every picture once and deal the rows, or take the rows of the study that exists.

    Raises:
        ValueError: If the data cannot be used, or is not the data of the study.
    """
    space = request.spaces[0]
    limits = AuditLimits.of(space.audit)
    inspection = inspect_source(source)
    near = find_near_copies(inspection, limits)
    dealt = build_samples(
        inspection, folds=space.folds, test_share=space.test_share, seed=request.seed, near=near.links
    )
    evidence = Evidence(
        inspection=inspection,
        samples=dealt,
        near=near,
        limits=limits,
        resolutions=tuple(
            side
            for space in request.spaces
            for tier in space.tiers
            for backbone in tier.backbones
            for side in tier.resolutions_of(backbone)
        ),
    )
    if not StudyPaths(request.study).record.exists():
        return Rows(source, dealt, audit(evidence))
    return _rows_of_study(request, evidence)


def _rows_of_study(request: SearchRequest, evidence: Evidence) -> Rows:
    source, dealt = evidence.inspection.source, evidence.samples
    paths = StudyPaths(request.study)
    record = read_record(request.study)
    if record.seed != request.seed:
        raise ValueError(f"the study {request.study} has seed {record.seed}, not {request.seed}; leave --seed away")
    samples = _stored_samples(paths, record, dealt)
    if samples.data_fingerprint == dealt.data_fingerprint:
        return Rows(source, samples, audit(replace(evidence, samples=samples)))
    if not is_grown(samples, dealt):
        raise ValueError(
            f"the study {request.study} was made from other data ({record.data}: {len(record.classes)} classes): fewer "
            f"than {MIN_KEPT_SHARE:.0%} of its pictures are there; name another --study"
        )
    rows = [source.rows[place] for place in source.locate(dealt.paths)]
    grown, growth = grow(samples, dealt, rows, seed=request.seed)
    found = (*growth_findings(growth), *audit(replace(evidence, samples=grown)).findings)
    return Rows(source, grown, Audit.ordered(found), before=samples, growth=growth)


def _stored_samples(paths: StudyPaths, record: StudyRecord, dealt: Samples) -> Samples:
    """Return the rows that the record describes.

    After a death between two writes those are the rows from before a change; where the table is lost they are what the
    data is dealt into, if that is the same.

    Raises:
        ValueError: If they are lost.
    """
    known = (record.data_fingerprint, record.fold_fingerprint)
    for path in (paths.samples, *sorted(paths.earlier.glob("*.parquet"))):
        if path.exists():
            samples = read_samples(path)
            if (samples.data_fingerprint, samples.fold_fingerprint) == known:
                return samples
    if (dealt.data_fingerprint, dealt.fold_fingerprint) == known:
        write_twice(paths.samples, lambda place: write_samples(place, dealt))
        return dealt
    raise ValueError(
        f"there is no table of the rows that {paths.record} describes: put back a {paths.samples.name} from before, or "
        "name another --study"
    )


def report_audit(request: SearchRequest, rows: Rows, progress: Progress) -> None:
    """Keep and print what was found.

    Raises:
        StoppedByGate: If something was found that makes every number worthless.
    """
    replace_json(StudyPaths(request.study).audit, rows.audit.to_dict())
    for finding in rows.audit.findings:
        progress.say(f"{finding.level}: {finding.message}")
    errors = rows.audit.of("error")
    if not errors:
        return
    if not request.force:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise StoppedByGate(f"preflight: {errors[0].message}{more}; --force goes on all the same")
    progress.say(f"WARNING: {len(errors)} of these are errors, and the search goes on because of --force")


def begin_study(request: SearchRequest, rows: Rows, weights: WeightsRecord, device: str) -> StudyRecord:
    """Write what holds for the whole study, or check it against a study that exists.

    Raises:
        ValueError: If the study's weights are of another source.
    """
    paths = StudyPaths(request.study)
    for space in request.spaces:
        replace_text(paths.space(space.name), space.text)
    if paths.record.exists():
        record = read_record(request.study)
        if (record.weights.kind, record.weights.source) != (weights.kind, weights.source):
            raise ValueError(
                f"the study {request.study} began with weights from {record.weights.source}, not {weights.source}: "
                "a study never mixes them; name another --study or the same --weights"
            )
        return _grown(paths, take_weights(paths, record, weights), rows)
    write_twice(paths.samples, lambda place: write_samples(place, rows.samples))
    record = StudyRecord(
        seed=request.seed,
        data="digits" if rows.source.is_sample else Place.of(str(request.data)).uri,
        data_root=None if request.data_root is None else str(request.data_root.absolute()),
        data_fingerprint=rows.samples.data_fingerprint,
        fold_fingerprint=rows.samples.fold_fingerprint,
        classes=rows.samples.classes,
        versions=_versions(),
        device=device,
        weights=weights,
        choices=Choices(activation_bytes=cache_budget() // _ENTRIES, arithmetic={}),
    )
    write_record(paths, record)
    return record


def take_weights(paths: StudyPaths, record: StudyRecord, weights: WeightsRecord) -> StudyRecord:
    """Take over the weights of backbones that are new to the study.

    Raises:
        ValueError: If a file is not what the study began with.
    """
    for backbone, digest in weights.hashes.items():
        known = record.weights.hashes.get(backbone, digest)
        if known != digest:
            raise ValueError(
                f"the weights of {backbone} are not those that the study {paths.root} has used: their file's sha256 is "
                f"{digest[:12]}..., not {known[:12]}...; it is damaged or another one: put the old file back, have it "
                "fetched again, or name another --study"
            )
    if weights.hashes.keys() <= record.weights.hashes.keys():
        return record
    record = record.with_weights(weights.hashes)
    write_record(paths, record)
    return record


def _grown(paths: StudyPaths, record: StudyRecord, rows: Rows) -> StudyRecord:
    """Take over rows that have changed; the table as it was stays beside the new one."""
    if rows.before is None or rows.growth is None:
        return record
    change = DataChange(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        version=rows.before.version,
        rows=len(rows.before.sample_ids),
        added=len(rows.growth.added),
        relabelled=len(rows.growth.relabelled),
        removed=len(rows.growth.removed),
    )
    write_samples(paths.earlier_samples(rows.before.version), rows.before)
    write_twice(paths.samples, lambda place: write_samples(place, rows.samples))
    paths.control.unlink(missing_ok=True)  # it says something of the rows as they were
    record = record.with_rows(rows.samples, change)
    write_record(paths, record)
    return record


def decode_pictures(rows: Rows, resolution: int, progress: Progress) -> tuple[DecodeRequest, PixelFile]:
    """Decode every picture once at a size that serves a resolution; return how other nodes do it, and the file."""
    request = DecodeRequest(
        source=rows.source,
        rows=rows.source.locate(rows.samples.paths),
        content=rows.samples.sample_ids,
        side=short_side(resolution),
    )
    progress.say(f"{len(request.rows)} pictures, decoded once with a short side of {request.side} px")
    return request, request.decode(progress.rows_done)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found
