"""A study of files alone to choose from: four backbones that know something, and one that does not."""

from pathlib import Path

import numpy as np

from spine_ray.data.samples import Samples
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import TrialEnded, TrialStarted
from spine_ray.study.ledger import append_event
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths, write_twice
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, write_record
from spine_ray.study.tables import Cost, write_costs, write_samples

ROWS, FOLDS, CLASSES = 300, 3, ("ant", "bee", "cow")
BACKBONES = {"resnet18": "resnet", "resnet34": "resnet", "vit_tiny": "vit", "swin": "swin", "lenet": "lenet"}
"""With their families; the last knows nothing."""


def samples() -> Samples:
    rng = np.random.default_rng(0)
    return Samples(
        sample_ids=tuple(f"id{row:03d}" for row in range(ROWS)),
        paths=tuple(f"{row}.png" for row in range(ROWS)),
        labels=rng.integers(0, 3, ROWS),
        classes=CLASSES,
        groups=np.arange(ROWS),
        splits=("dev",) * ROWS,
        folds=(np.arange(ROWS) % FOLDS).astype(np.int8),
    )


def config(backbone: str, freeze: float = 0.5) -> TrialConfig:
    return TrialConfig(backbone=backbone, resolution=64, freeze=freeze, recipe=start_recipe("random"))


def cost(each: TrialConfig) -> Cost:
    return Cost(
        backbone=each.backbone, resolution=64, freeze=each.freeze, device="cpu", arithmetic="float32 contiguous",
        train_images_s=10.0, infer_images_s=100.0, score_images_s=500.0, prefix_images_s=125.0, activation_mb=0.1,
        peak_mb=100.0, macs=1_000_000, prefix_macs=800_000, prefix_params=1_000,
    )  # fmt: skip


def started(each: TrialConfig) -> TrialStarted:
    return TrialStarted(
        trial_id=each.trial_id, tier="light", config=each, family=BACKBONES[each.backbone], is_start=True,
        total_steps=3, params=5_000, macs=1_000_000, weights_source="random", licence="unknown",
        data_version=samples().version, time=0.0,
    )  # fmt: skip


def ended(each: TrialConfig) -> TrialEnded:
    return TrialEnded(
        trial_id=each.trial_id, status="completed", reason="", step=3, log_loss=0.5, accuracy=0.8, seconds=3.0, time=1.0
    )


def write_study(root: Path) -> StudyPaths:
    """Write a study of four backbones that each know something of their own, and one that knows nothing."""
    paths, known = StudyPaths(root), samples()
    record = StudyRecord(
        seed=0, data="x", data_fingerprint="d", fold_fingerprint="f", classes=CLASSES, versions={}, device="cpu",
        weights=WeightsRecord(kind="random", source="random", hashes={}),
        choices=Choices(activation_bytes=0, arithmetic={}),
    )  # fmt: skip
    paths.root.mkdir()
    write_record(paths, record)
    write_twice(paths.samples, lambda place: write_samples(place, known))
    rng = np.random.default_rng(1)
    for backbone in BACKBONES:
        each = config(backbone)
        signal = 0.0 if backbone == "lenet" else 2.0
        noise = rng.normal(size=(ROWS, 3))
        write_oof(paths, each.trial_id, known, (signal * np.eye(3)[known.labels] + noise).astype(np.float32))
        append_event(paths.ledger, started(each))
        append_event(paths.ledger, ended(each))
    write_costs(paths, [cost(config(backbone)) for backbone in BACKBONES])
    return paths
