"""Studies made of files alone, by the rooms' own functions: what a report is tried on. Nothing is trained."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from spine_ray.climb.choice import Judge, Limits, Wishes, make_choice, write_choice
from spine_ray.climb.files import read_files
from spine_ray.climb.rows import write_comparison
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.samples import Samples
from spine_ray.data.sources import open_source
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ladder.evidence import gather
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialStarted, event_to_dict
from spine_ray.study.ledger import read_ledger
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths, replace_text
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, write_record
from spine_ray.study.tables import Cost, cost_key, write_costs, write_samples
from spine_ray.study.trials import trials_from_events

SIDE = 12
"""Of the pictures, px."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """A trial as it is made up."""

    backbone: str
    family: str = "resnet"
    tier: str = "light"
    freeze: float = 0.0
    resolution: int = 64
    status: Status | None = "completed"
    reason: str = ""
    signal: float = 2.0
    """How much it knows."""
    shared: float = 0.5
    """How much of its noise it shares with all others, 0 to 1."""

    @property
    def config(self) -> TrialConfig:
        if self.freeze == 1.0:
            return probe_config(self.backbone, self.resolution)
        recipe = start_recipe("random")
        return TrialConfig(backbone=self.backbone, resolution=self.resolution, freeze=self.freeze, recipe=recipe)


FIVE = (
    Told(backbone="resnet18", family="resnet"),
    Told(backbone="resnet34", family="resnet", tier="mid", signal=2.2),
    Told(backbone="vit_tiny", family="vit", tier="heavy", freeze=0.5),
    Told(backbone="vit_tiny", family="vit", tier="heavy", freeze=1.0, resolution=96, signal=1.5),
    Told(backbone="lenet", family="lenet", signal=0.0),
)


def many(count: int) -> list[Told]:
    """Make up trials of up to 20 backbones, on all tiers and at three resolutions."""
    tiers = ("light", "mid", "heavy")
    return [
        Told(
            backbone=f"net{n % 20}", family=f"f{n % 7}", tier=tiers[n % 3], resolution=64 + 32 * (n // 20 % 3),
            freeze=0.25 * (n // 60), signal=3.0 + n % 5, shared=0.3,
        )
        for n in range(count)
    ]  # fmt: skip


def write_study(
    root: Path, trials: Sequence[Told] = FIVE, classes: Sequence[str] = ("ant", "bee", "cow"), per_class: int = 40
) -> StudyPaths:
    """Write a study with its pictures beside it, and choose its ensemble where a trial is completed."""
    paths, data = StudyPaths(root / "study"), root / "pictures.parquet"
    root.mkdir(parents=True, exist_ok=True)
    write_pictures(data, classes, per_class)
    samples = build_samples(inspect_source(open_source(str(data))), folds=3, test_share=0.2)
    paths.root.mkdir(parents=True)
    write_record(paths, record_of(data, samples))
    write_samples(paths.samples, samples)
    shared = np.random.default_rng(0).normal(size=(len(samples.labels), len(classes)))
    # The first fine-tune of each backbone.
    starts = {told.backbone: told for told in reversed(trials) if not told.config.is_probe}
    events = [
        event
        for number, told in enumerate(trials)
        for event in events_of(told, number, samples, paths, shared, is_start=starts.get(told.backbone) is told)
    ]
    # At once: handing thousands of events to the disk one by one takes longer than all that is tried on them.
    replace_text(paths.ledger, "".join(f"{json.dumps(event_to_dict(event))}\n" for event in events))
    write_costs(
        paths, [cost_of(told, number) for number, told in enumerate({cost_key(t.config): t for t in trials}.values())]
    )
    choose(paths)
    return paths


def choose(paths: StudyPaths) -> None:
    """Choose the ensemble and write the comparison, as a search does at its end."""
    study = read_files(paths.root)
    evidence = gather(paths, study.samples, study.present)
    if evidence.trials:
        choice = make_choice(evidence, study.costs, Wishes(), Limits(), Judge(), 0)
        write_choice(paths, choice, (), 0, None)
        write_comparison(read_files(paths.root), evidence)


def write_pictures(file: Path, classes: Sequence[str], per_class: int) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(per_class * len(classes)):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(buffer, format="PNG")
        pictures.append(buffer.getvalue())
    labels = [name for name in classes for _ in range(per_class)]
    pq.write_table(pa.table({"image": pictures, "label": labels}), file)


def record_of(data: Path, samples: Samples) -> StudyRecord:
    return StudyRecord(
        seed=0, data=str(data), data_fingerprint=samples.data_fingerprint, fold_fingerprint=samples.fold_fingerprint,
        classes=samples.classes, versions={"spine-ray": "0"}, device="cpu",
        weights=WeightsRecord(kind="random", source="random", hashes={}),
        choices=Choices(activation_bytes=0, arithmetic={}),
    )  # fmt: skip


def events_of(
    told: Told, number: int, samples: Samples, paths: StudyPaths, shared: np.ndarray, *, is_start: bool
) -> list[Event]:
    """Return what the ledger says of a trial; its OOF logits are written where it is completed."""
    trial_id, is_probe = told.config.trial_id, told.config.is_probe
    total = 1 if is_probe else 6
    steps = total if told.status == "completed" else min(2, total)
    own = np.random.default_rng(number + 1).normal(size=shared.shape)
    noise = told.shared * shared + (1.0 - told.shared) * own
    logits = (told.signal * np.eye(len(samples.classes))[samples.labels] + noise).astype(np.float32)
    dev, labels = samples.dev, samples.labels[samples.dev]
    if told.status == "completed":
        write_oof(paths, trial_id, samples, logits)
    said = log_probs(logits[dev], fit_temperature(logits[dev], labels))
    loss, share = log_loss(said, labels), accuracy(said, labels)
    started = TrialStarted(
        trial_id=trial_id, tier=told.tier, config=told.config, family=told.family, is_start=is_start,
        total_steps=total, params=5_000, macs=1_000_000, weights_source="random", licence="unknown",
        data_version=samples.version, time=float(number),
    )  # fmt: skip
    epochs: list[Event] = [
        EpochDone(
            trial_id=trial_id, step=step, fold=-1 if is_probe else (step - 1) // 2, epoch=(step - 1) % 2 + 1,
            train_loss=1.0, log_loss=loss + 0.1 * (steps - step), accuracy=share, seconds=1.0 + number % 7,
            train_images=80, train_images_s=80.0, score_images_s=200.0, peak_mb=100.0, views=1, micro_batch=16, note="",
        )
        for step in range(1, steps + 1)
    ]  # fmt: skip
    if told.status is None:
        return [started, *epochs]
    is_failed = told.status == "failed"
    ended = TrialEnded(
        trial_id=trial_id, status=told.status, reason=told.reason, step=steps, log_loss=None if is_failed else loss,
        accuracy=None if is_failed else share, seconds=6.0, time=float(number) + 0.5,
    )  # fmt: skip
    return [started, *epochs, ended]


def cost_of(told: Told, number: int) -> Cost:
    speed = 1000.0 / (1.0 + number % 11)
    return Cost(
        backbone=told.backbone, resolution=told.resolution, freeze=told.freeze, device="cpu",
        arithmetic="float32 contiguous", train_images_s=speed / 3, infer_images_s=speed, score_images_s=speed,
        prefix_images_s=None, activation_mb=None, peak_mb=100.0, macs=1_000_000, prefix_macs=0, prefix_params=0,
    )  # fmt: skip


def completed(paths: StudyPaths) -> set[str]:
    trials = trials_from_events(read_ledger(paths.ledger))
    return {name for name, trial in trials.items() if trial.is_completed}
