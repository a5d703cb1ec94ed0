"""A study made without ray: the worker that a search would start, called in this process."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from spine_ray.climb.choice import Judge, Limits, Wishes, make_choice, write_choice
from spine_ray.core.backbone import facts, family_of
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.data.digits import digits_source
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.sources import open_source
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.selection import pooled_log_probs
from spine_ray.ladder.evidence import gather
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import TrialEnded, TrialStarted
from spine_ray.study.hold import held
from spine_ray.study.ledger import append_event, read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, write_record
from spine_ray.study.tables import Cost, read_samples, write_costs, write_samples
from spine_ray.study.trials import trials_from_events
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import TrialRequest
from spine_ray.workers.worker import TrainWorker

ROWS = 240
FOLDS = 2


def make_study(folder: Path, configs: list[TrialConfig]) -> dict[str, Any]:
    """Train, choose with every configuration a member, fit, score the test split; return what the fixture holds."""
    source = _write_pictures(folder / "all")
    paths = StudyPaths(folder / "study")
    paths.root.mkdir()
    samples = build_samples(inspect_source(source), folds=FOLDS, test_share=0.3, seed=0)
    write_samples(paths.samples, samples)
    samples = read_samples(paths.samples)
    record = StudyRecord(
        seed=0, data="all", data_fingerprint=samples.data_fingerprint, fold_fingerprint=samples.fold_fingerprint,
        classes=samples.classes, versions={"torch": "x"}, device="cpu",
        weights=WeightsRecord(kind="random", source="random", hashes={}),
        choices=Choices(activation_bytes=0, arithmetic={each.backbone: "float32 contiguous" for each in configs}),
    )  # fmt: skip
    write_record(paths, record)
    side = short_side(max(each.resolution for each in configs))
    places = source.locate(samples.paths)
    pixels = build_pixels(lambda row: source.read(int(places[row])), samples.sample_ids, side)
    worker = TrainWorker()
    with held(paths) as hold:
        spec = WorkerSpec(
            study=paths.root, holder=hold.token, pixels=pixels.folder, seed=0, weights=(), device="cpu", threads=1
        )
        for config in configs:
            _train(worker, spec, config, paths, samples.version)
            worker.refit(spec, config)
    write_costs(paths, [_cost(config, number) for number, config in enumerate(configs)])
    trials = trials_from_events(read_ledger(paths.ledger))
    evidence = gather(paths, samples, trials)
    costs = {cost.key: cost for cost in (_cost(config, number) for number, config in enumerate(configs))}
    pinned = Wishes(pinned=tuple(config.trial_id for config in configs))
    choice = make_choice(evidence, costs, pinned, Limits(max_members=len(configs)), Judge(), 0)
    rows = samples.test
    logits = np.stack([worker.score(spec, trial.config, rows) for trial in choice.members])
    log_probs, truth = pooled_log_probs(choice.ensemble, logits), samples.labels[rows]
    test = {"artefact": "ensemble", "rows": len(rows)}
    test |= {"log_loss": log_loss(log_probs, truth), "accuracy": accuracy(log_probs, truth)}
    write_choice(paths, choice, [test], 1, side)
    names = tuple(samples.paths[row] for row in rows)
    labels = _lay_out(folder, names, [samples.classes[label] for label in truth])
    return {
        "root": paths.root, "pictures": folder / "test", "labels": labels, "names": names, "truth": truth,
        "log_probs": log_probs,
    }  # fmt: skip


def _write_pictures(folder: Path) -> Any:
    """Write scans as PNG files in class folders and open them."""
    digits = digits_source()
    for index in range(ROWS):
        path = folder / f"digit {digits.rows[index].class_name}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(digits.read(index))
    return open_source(str(folder))


def _train(worker: TrainWorker, spec: WorkerSpec, config: TrialConfig, paths: StudyPaths, version: str) -> None:
    known = facts(config.backbone, config.resolution, 10)
    started = TrialStarted(
        trial_id=config.trial_id, tier="light", config=config, family=family_of(config.backbone),
        is_start=not config.is_probe, total_steps=1 if config.is_probe else FOLDS * config.training.epochs,
        params=known.params, macs=known.macs, weights_source="random", licence="unknown", data_version=version,
        time=0.0,
    )  # fmt: skip
    append_event(paths.ledger, started)
    request = TrialRequest(started=started, is_control=False, report_from=1, hang_timeout=60.0)
    worker.begin(spec, request)
    while not (report := worker.next_epoch(spec, request)).is_last:
        pass
    append_event(
        paths.ledger,
        TrialEnded(
            trial_id=config.trial_id, status="completed", reason="", step=report.epoch.step,
            log_loss=report.epoch.log_loss, accuracy=report.epoch.accuracy, seconds=1.0, time=1.0,
        ),
    )  # fmt: skip


def _cost(config: TrialConfig, number: int) -> Cost:
    """Return a made-up cost; members of one prefix have the same."""
    known, is_frozen = facts(config.backbone, config.resolution, 10), config.freeze > 0
    return Cost(
        backbone=config.backbone, resolution=config.resolution, freeze=config.freeze, device="cpu",
        arithmetic="float32 contiguous", train_images_s=100.0, infer_images_s=100.0 / (1 + known.macs / 1e6),
        score_images_s=500.0, prefix_images_s=125.0 if is_frozen else None,
        activation_mb=0.1 if is_frozen else None, peak_mb=100.0, macs=known.macs,
        prefix_macs=known.macs // 2 if is_frozen else 0, prefix_params=1000 if is_frozen else 0,
    )  # fmt: skip


def _lay_out(folder: Path, names: tuple[str, ...], labels: list[str]) -> Path:
    """Copy the test split's pictures into a folder of their own, and write their labels beside it."""
    for name in names:
        path = folder / "test" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((folder / "all" / name).read_bytes())
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows(zip(names, labels, strict=True))
    return folder / "labels.csv"
