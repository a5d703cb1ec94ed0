"""Before anything trains: the data looked at, the study opened or begun, the pictures decoded."""

import importlib.metadata
from dataclasses import dataclass

from spine_ray.climb.request import SearchRequest, StoppedByGate
from spine_ray.core.cache import cache_budget
from spine_ray.core.pixels import PixelFile, build_pixels, short_side
from spine_ray.data.audit import Audit, audit
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import Inspection, inspect_source
from spine_ray.data.rows import Source
from spine_ray.data.samples import Samples
from spine_ray.show.live import Progress
from spine_ray.study.paths import StudyPaths, replace_json, replace_text
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, read_record, write_record
from spine_ray.study.tables import read_samples, write_samples

_ENTRIES = 4
"""One frozen prefix's activations may take this part of the cache: several are in use at a time."""
_PACKAGES = ("spine-ray", "torch", "torchvision", "timm", "ray", "optuna", "mlflow", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Rows:
    """The study's rows and where their pictures come from."""

    source: Source
    samples: Samples
    audit: Audit


def look_at_data(request: SearchRequest, source: Source) -> Rows:
    """Read every picture once and deal the rows, or take the rows of the study that exists.

    Raises:
        ValueError: If the data cannot be used, or is not the data of the study.
    """
    space = request.spaces[0]
    inspection = inspect_source(source)
    paths = StudyPaths(request.study)
    dealt = build_samples(inspection, folds=space.folds, test_share=space.test_share, seed=request.seed)
    if not paths.record.exists():
        return Rows(source, dealt, audit(inspection, dealt))
    return _rows_of_study(request, inspection, dealt)


def _rows_of_study(request: SearchRequest, inspection: Inspection, dealt: Samples) -> Rows:
    paths = StudyPaths(request.study)
    record = read_record(request.study)
    if record.data_fingerprint != dealt.data_fingerprint:
        raise ValueError(
            f"the study {request.study} was made from other data ({record.data}: {len(record.classes)} classes); "
            "name another --study"
        )
    if record.seed != request.seed:
        raise ValueError(f"the study {request.study} has seed {record.seed}, not {request.seed}; leave --seed away")
    samples = read_samples(paths)
    if samples.fold_fingerprint != record.fold_fingerprint:
        raise ValueError(f"{paths.samples} is not the table that {paths.record.name} describes")
    return Rows(inspection.source, samples, audit(inspection, samples))


def report_audit(request: SearchRequest, rows: Rows, progress: Progress) -> None:
    """Keep and print what was found.

    Raises:
        StoppedByGate: If something was found that makes every number worthless.
    """
    replace_json(StudyPaths(request.study).audit, rows.audit.to_dict())
    for finding in rows.audit.findings:
        progress.say(f"{finding.level}: {finding.message}")
    errors = rows.audit.of("error")
    if errors:
        raise StoppedByGate(f"preflight: {errors[0].message}")


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
        return record
    write_samples(paths, rows.samples)
    record = StudyRecord(
        seed=request.seed,
        data=request.data or "digits",
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


def decode_pictures(rows: Rows, resolution: int, progress: Progress) -> PixelFile:
    """Decode every picture once at a size that serves a resolution."""
    places = rows.source.locate(rows.samples.paths)
    progress.say(f"{len(places)} pictures, decoded once with a short side of {short_side(resolution)} px")
    return build_pixels(
        lambda row: rows.source.read(int(places[row])),
        rows.samples.sample_ids,
        short_side(resolution),
        progress=progress.rows_done,
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a checkout that is not installed
            found[package] = "not installed"
    return found
