"""A study of 120 pictures on which a tier of tiny backbones can be trained; one backbone's weights are not there."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from spine_ray.core.backbone import facts, family_of
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.samples import Samples
from spine_ray.data.sources import open_source
from spine_ray.sampling.queue import Refusal
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.fields import Around
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import Event, TrialStarted
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import write_samples
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.workers.pool import WorkerPool
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import TrialRequest
from tests.support.tier_plans import tier_plan

CLASSES = {"one": 1, "seven": 7, "zero": 0}
FOLDS, EPOCHS, SIDE = 2, 2, 32
GOOD, BROKEN = ("test_resnet", "test_efficientnet"), "test_vit"
TIER = TierSpace(
    name="light",
    backbones=(*GOOD, BROKEN),
    resolutions=(SIDE,),
    recipe={"epochs": EPOCHS, "batch_size": 16, "lr": Around(3.0)},
    trials=5,
)
STARTS = start_configs(TIER, "random")


@dataclass(frozen=True)
class TierStudy:
    """Ready to train on."""

    paths: StudyPaths
    samples: Samples
    spec: WorkerSpec


@dataclass(frozen=True)
class TierRun:
    """What a tier's run left behind."""

    events: list[Event]
    refusals: tuple[Refusal, ...]

    @property
    def trials(self) -> dict[str, Trial]:
        return trials_from_events(self.events)


def write_tier_study(root: Path, paths: StudyPaths, token: str) -> TierStudy:
    """Write pictures and rows of a study that the caller has locked; the token is the lock's."""
    scans = load_digits()
    for name, digit in CLASSES.items():
        (root / "data" / name).mkdir(parents=True)
        for number, scan in enumerate(scans.images[scans.target == digit][:40]):
            pixels = np.rint(scan * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 24)).save(root / "data" / name / f"{number}.png")
    source = open_source(str(root / "data"))
    samples = build_samples(inspect_source(source), folds=FOLDS, test_share=0.25, seed=0)
    write_samples(paths.samples, samples)
    rows = source.locate(samples.paths)
    folder = build_pixels(lambda row: source.read(int(rows[row])), samples.sample_ids, short_side(SIDE)).folder
    spec = WorkerSpec(
        study=paths.root, holder=token, pixels=folder, seed=0,
        weights=((BROKEN, root / "nothing.safetensors", "0" * 64),), device="cpu", threads=1,
    )  # fmt: skip
    return TierStudy(paths, samples, spec)


def run_tier(study: TierStudy, pool: WorkerPool, **changes: Any) -> TierRun:
    """Run the tier; keywords are fields of its plan."""
    events: list[Event] = []
    plan = tier_plan(TIER, "random", FOLDS, describe=describe, **changes)
    return TierRun(events, pool.run_tier(plan, study.spec, events.append))


def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
    known = facts(config.backbone, config.resolution, len(CLASSES))
    return TrialStarted(
        trial_id=config.trial_id, tier=TIER.name, config=config, family=family_of(config.backbone), is_start=is_start,
        total_steps=1 if config.is_probe else EPOCHS * FOLDS, params=known.params, macs=known.macs,
        weights_source="random", licence="unknown", data_version="rows", time=time.time(),
    )  # fmt: skip


def request_of(config: TrialConfig, *, is_control: bool = False) -> TrialRequest:
    """Return what a worker is asked for at a trial's first start."""
    started = describe(config, config in STARTS)
    return TrialRequest(started=started, is_control=is_control, report_from=1, hang_timeout=120.0)
