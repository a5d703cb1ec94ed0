"""The spine side of the throughput benchmark: the same trials through spine_ray."""

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.fold_table import NAME, FoldTable, read_table
from benchmarks.sides import WORKERS, SideResult, logits_file
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.samples import Samples
from spine_ray.data.sources import open_source
from spine_ray.sampling.queue import SearchDomain
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import EpochDone, Event, TrialStarted
from spine_ray.study.hold import held
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import write_samples
from spine_ray.tune.ray_pool import ray_pool
from spine_ray.workers.pool import WorkerPool
from spine_ray.workers.request import WorkerRequest
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.tasks import choose_arithmetic

ROOM = 20 * 10**9


def run_spine(
    trials: Sequence[TrialConfig], folder: Path, out: Path, arithmetic: Arithmetic | None = None
) -> SideResult:
    """Train all trials to their last epoch with `WORKERS` one-thread workers, nothing stopped early.

    Args:
        trials: In this order; random initial weights.
        folder: Holds the pictures and their fold table.
        out: Receives the study and each trial's OOF logits at `logits_file(out, trial)`, float32 (pictures, classes):
            rows in the order of the fold table, columns in the order of the class names sorted as text.
        arithmetic: For all backbones; None = what spine_ray chooses.

    Returns:
        By trial id the seconds that a worker spent on it, with work shared by several trials counted once, and by
        backbone the arithmetic it was computed in.
    """
    paths = StudyPaths(out / "study")
    with held(paths) as hold, ray_pool(None, WorkerRequest(WORKERS)) as pool:  # first: the workers import meanwhile
        source = open_source(str(folder / NAME))
        samples = _all_dev(build_samples(inspect_source(source), seed=0), read_table(folder))
        write_samples(paths.samples, samples)
        places = source.locate(samples.paths)
        side = short_side(max(trial.resolution for trial in trials))
        pixels = build_pixels(lambda row: source.read(int(places[row])), samples.sample_ids, side)
        chosen = _arithmetic(trials, _spec(paths, pixels.folder, {}, hold.token), pool, arithmetic)
        epochs: list[EpochDone] = []

        def keep(event: Event) -> None:
            if isinstance(event, EpochDone):
                epochs.append(event)

        plan = _plan(trials, samples.num_folds)
        pool.run_tier(plan, _spec(paths, pixels.folder, chosen, hold.token), keep)
    rows = _rows_of(read_table(folder), samples)
    for trial in trials:
        np.save(logits_file(out, trial), read_oof(paths, trial.trial_id, samples)[rows])
    return _result(trials, epochs, chosen)


def _result(
    trials: Sequence[TrialConfig], epochs: Sequence[EpochDone], arithmetic: dict[str, Arithmetic]
) -> SideResult:
    seconds, images_s = {}, {}
    for name in (trial.trial_id for trial in trials):
        mine = [epoch for epoch in epochs if epoch.trial_id == name]
        seconds[name] = sum(epoch.seconds for epoch in mine)
        training = sum(epoch.train_images / epoch.train_images_s for epoch in mine)
        images_s[name] = sum(epoch.train_images for epoch in mine) / training
    return SideResult(seconds, arithmetic, images_s)


def _all_dev(samples: Samples, table: FoldTable) -> Samples:
    """Return the samples without a test split, in the folds of the table."""
    folds = np.empty(len(samples.paths), np.int8)
    folds[_rows_of(table, samples)] = table.folds
    return replace(samples, splits=tuple(repeat("dev", len(folds))), folds=folds)


def _rows_of(table: FoldTable, samples: Samples) -> npt.NDArray[np.int64]:
    """Return where each picture of the table stands among the samples."""
    place = {Path(path).name: row for row, path in enumerate(samples.paths)}
    return np.array([place[Path(path).name] for path in table.paths])


def _spec(paths: StudyPaths, pixels: Path, arithmetic: dict[str, Arithmetic], holder: str) -> WorkerSpec:
    return WorkerSpec(
        study=paths.root,
        holder=holder,
        pixels=pixels,
        seed=0,
        weights=(),
        device="cpu",
        threads=1,
        arithmetic=tuple(arithmetic.items()),
        activation_bytes=ROOM,
    )


def _arithmetic(
    trials: Sequence[TrialConfig], spec: WorkerSpec, pool: WorkerPool, fixed: Arithmetic | None
) -> dict[str, Arithmetic]:
    first = {trial.backbone: trial for trial in reversed(trials)}
    if fixed is not None:
        return dict.fromkeys(first, fixed)
    found = dict(zip(first, choose_arithmetic(list(first.values()), spec, pool), strict=True))
    return {backbone: each for backbone, each in found.items() if isinstance(each, Arithmetic)}


def _plan(trials: Sequence[TrialConfig], folds: int) -> TierPlan:
    backbones = tuple(dict.fromkeys(trial.backbone for trial in trials))
    sides = tuple(dict.fromkeys(trial.resolution for trial in trials))
    tier = TierSpace(name="bench", backbones=backbones, resolutions=sides, trials=len(trials))
    buildable = frozenset((trial.backbone, trial.resolution) for trial in trials)
    return TierPlan(
        domain=SearchDomain(tier=tier, weights="random", buildable=buildable, seed=0),
        starts=tuple(trials),
        first=(),
        known=(),
        most_trials=len(trials),
        folds=folds,
        reduction=1,
        control=None,
        deadline=None,
        admit=lambda _, now: None,
        effort=lambda _: 1.0,
        hang_timeout=lambda _: 3600.0,
        describe=lambda trial, is_start: TrialStarted(
            trial_id=trial.trial_id,
            tier=tier.name,
            config=trial,
            family=trial.backbone,
            is_start=is_start,
            total_steps=trial.training.epochs * folds,
            params=0,
            macs=0,
            weights_source="random",
            licence="",
            data_version="rows",
            time=time.time(),
        ),
    )
