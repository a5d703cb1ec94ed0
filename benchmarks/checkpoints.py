"""What keeping a trial on disk costs: its share of the trial's seconds, and of what a crash would lose.

python -m benchmarks.checkpoints --backbone resnet50.a1_in1k --epochs 3
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.results import parse_words, print_result
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.task import Task
from spine_ray.core.trial import TrialRun
from spine_ray.core.views import image_keys
from spine_ray.data.digits import digits_source
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import TrialStarted
from spine_ray.study.hold import held
from spine_ray.study.paths import StudyPaths
from spine_ray.workers.checkpointer import Checkpointer
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import TrialRequest

SIDE, FOLDS = 32, 3


def main() -> None:
    """Train one trial on the sample, keep it as a worker does, and print what that took as JSON."""
    parser = argparse.ArgumentParser(description="Measure the cost of checkpoints.")
    parser.add_argument("--backbone")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--freeze", type=float, default=0.0)
    given = parse_words(parser, quick={"backbone": "test_resnet", "epochs": 1}, needed=["backbone"])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        print_result(_measure(given, StudyPaths(Path(folder))))


def _measure(given: argparse.Namespace, paths: StudyPaths) -> dict[str, object]:
    source = digits_source()
    samples = build_samples(inspect_source(source), folds=FOLDS, seed=0)
    places = source.locate(samples.paths)
    pixels = build_pixels(lambda row: source.read(int(places[row])), samples.sample_ids, short_side(SIDE))
    task = Task(pixels=pixels, keys=image_keys(samples.sample_ids, 0), labels=samples.labels, classes=10, seed=0)
    recipe = replace(start_recipe("random"), epochs=given.epochs)
    config = TrialConfig(backbone=given.backbone, resolution=SIDE, freeze=given.freeze, recipe=recipe)
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=None, activation_bytes=0)
    with held(paths) as hold:
        spec = WorkerSpec(
            study=paths.root, holder=hold.token, pixels=pixels.folder, seed=0, weights=(), device="cpu", threads=1
        )
        checkpointer, records, saves, kept = Checkpointer(spec, _request(config), samples), [], [], []
        run = TrialRun(config, task, samples.folds, Network(config, 10, 0, setup), FOLDS)
        began = time.perf_counter()
        while not run.is_done:
            records.append(run.next_epoch())
            before = _written(paths, config)
            start = time.perf_counter()
            checkpointer.write(run, records)
            saves.append(time.perf_counter() - start)
            kept.append(_written(paths, config) != before)
        whole = time.perf_counter() - began
    return {
        "trial": config.trial_id,
        "seconds": round(whole, 2),
        "epochs": len(records),
        "epoch_s": round(float(np.median([record.seconds for record in records])), 3),
        "kept_epochs": sum(kept),
        "a_save_ms": round(1000 * float(np.median([each for each, was in zip(saves, kept, strict=True) if was])), 1),
        "share_of_seconds": round(sum(saves) / whole, 4),
    }


def _request(config: TrialConfig) -> TrialRequest:
    started = TrialStarted(
        trial_id=config.trial_id, tier="bench", config=config, family=config.backbone, is_start=True,
        total_steps=config.training.epochs * FOLDS, params=0, macs=0, weights_source="random", licence="unknown",
        data_version="rows", time=0.0,
    )  # fmt: skip
    return TrialRequest(started=started, is_control=False, report_from=1, hang_timeout=3600.0)


def _written(paths: StudyPaths, config: TrialConfig) -> int:
    path = paths.checkpoint(config.trial_id)
    return path.stat().st_mtime_ns if path.exists() else 0


if __name__ == "__main__":
    main()
