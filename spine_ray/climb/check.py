"""The hour-one checks alone: the data looked at, views drawn, a light backbone probed; nothing is searched."""

from dataclasses import dataclass, replace
from pathlib import Path

from spine_ray.climb.desk import worker_spec
from spine_ray.climb.preflight import decode_pictures, look_at_data
from spine_ray.climb.prepare import look_up, prepare
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.training import add_findings, training_findings, write_contact_sheet
from spine_ray.core.memory import device_here
from spine_ray.core.soundness import check_training
from spine_ray.data.findings import Audit
from spine_ray.data.rows import Source
from spine_ray.show.live import Progress
from spine_ray.space.configs import start_configs
from spine_ray.study.hold import held
from spine_ray.study.paths import StudyPaths, replace_json
from spine_ray.study.tables import write_samples
from spine_ray.workers.worker_data import open_work, setup_of


@dataclass(frozen=True, slots=True)
class Checked:
    """What the checks found and where it is kept."""

    audit: Audit
    paths: dict[str, str]
    """Of the pictures, by sample id."""
    files: tuple[Path, ...]


def run_check(request: SearchRequest, source: Source, progress: Progress) -> Checked:
    """Look at the data, then at what the cheapest backbone of the first tier makes of it.

    Raises:
        ValueError: If something asked for cannot be done, or the folder holds a study.
    """
    paths = StudyPaths(request.study)
    if paths.record.exists():
        raise ValueError(f"{request.study} is a study, which has its own audit.json; name another --out")
    first = request.spaces[0]
    request = replace(request, spaces=look_up([replace(first, tiers=first.tiers[:1])]))
    rows = look_at_data(request, source)
    prepared = prepare(request, rows.samples, source.is_sample, progress)
    starts = start_configs(prepared.spaces[0].tiers[0], prepared.weights.kind)
    config = min(starts, key=lambda each: prepared.facts[each.backbone, each.resolution].macs)
    with held(paths) as hold:
        replace_json(paths.audit, rows.audit.to_dict())
        write_samples(paths.samples, rows.samples)
        _, pixels = decode_pictures(rows, prepared.largest_resolution, progress)
        spec = worker_spec(request, prepared, {}, pixels.folder, device_here(), holder=hold.token)
        samples, task = open_work(spec)
        progress.say(f"looking at {config.backbone}, the cheapest backbone of tier {first.tiers[0].name}")
        found = check_training(config, task, samples.folds, setup_of(spec, config))
        audit = add_findings(paths, training_findings(found, config))
        write_contact_sheet(paths, task, samples, config)
    return Checked(audit, dict(zip(samples.sample_ids, samples.paths, strict=True)), (paths.audit, paths.contact_sheet))
