"""How long `select` takes on a stored study of many trials: the whole command, and the dropping of a member.

    python -m benchmarks.stored_study FOLDER > stored_study.json

Writes a study of made-up trials to FOLDER if there is none, then runs the command on it as a person would, one thread,
and deletes the answer before each repetition. Any other study at FOLDER is refused. Seconds are wall; those of the CPU
beside them show what other work on the machine added. JSON goes to stdout.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import parse_words, print_result
from benchmarks.selector import ROOT, THREADS, Cohort, Seconds, cohort
from spine_ray.data.samples import Samples
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted, event_to_dict
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths, copy_of, read_json, replace_text
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, read_record, write_record
from spine_ray.study.tables import Cost, cost_key, write_costs, write_samples, write_trials
from spine_ray.study.trials import trials_from_events

DATA = "made up by benchmarks.stored_study"
TRIALS, DEV_ROWS, TEST_ROWS, FOLDS = 200, 10_000, 2_000, 5
CLASSES = tuple(f"class_{letter}" for letter in "abcdefghij")
REPEATS = 3
SEED = 0


@dataclass(frozen=True, slots=True)
class Backbone:
    """A made-up price, at 224 px."""

    family: str
    tier: str
    images_s: float
    macs: int
    params: int


BACKBONES = {
    "mobilenetv3_large_100": Backbone("efficientnet", "light", 90.0, 215_000_000, 4_200_000),
    "efficientnet_b0": Backbone("efficientnet", "light", 50.0, 390_000_000, 4_000_000),
    "resnet50": Backbone("resnet", "mid", 25.0, 4_110_000_000, 23_500_000),
    "regnety_032": Backbone("regnet", "mid", 30.0, 3_200_000_000, 18_000_000),
    "convnext_tiny": Backbone("convnext", "mid", 20.0, 4_470_000_000, 27_800_000),
    "densenet121": Backbone("densenet", "mid", 24.0, 2_870_000_000, 7_000_000),
    "swin_tiny_patch4_window7_224": Backbone("swin", "heavy", 16.0, 4_510_000_000, 27_500_000),
    "vit_small_patch16_224": Backbone("vit", "heavy", 18.0, 4_600_000_000, 21_700_000),
}
RESOLUTIONS = (224, 160, 128)
FREEZES = (0.0, 0.5, 0.75)


def main() -> None:
    """Write the study if there is none, and time the command on it."""
    parser = argparse.ArgumentParser(description="Time the selection from a stored study of made-up trials.")
    parser.add_argument("study", nargs="?", type=Path)
    parser.add_argument("--trials", type=int, default=TRIALS)
    parser.add_argument("--rows", type=int, default=DEV_ROWS, help=f"dev rows; default: {DEV_ROWS}")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parse_words(parser, quick={"trials": 8, "rows": 400, "repeats": 1}, needed=["study"])
    with tempfile.TemporaryDirectory() as folder:
        paths, written = StudyPaths((given.study or Path(folder)).resolve()), {}
        if not paths.record.exists():
            began = time.perf_counter()
            write_study(paths, given.trials, given.rows)
            seconds = time.perf_counter() - began
            written = {"trials": given.trials, "dev_rows": given.rows, "classes": len(CLASSES), "seconds": seconds}
        elif read_record(paths.root).data != DATA:
            parser.error(f"{given.study} holds a study that is not of this benchmark")
        runs = [timed_edits(paths) for _ in range(given.repeats)]
    best = {words: min((run[words] for run in runs), key=lambda run: run["wall"]) for words in ("select", "drop")}
    print_result({"written": written, "best_seconds": best, "runs": runs})


def timed_edits(paths: StudyPaths) -> dict[str, Any]:
    """Choose an ensemble where there is none, drop its first member, and return the seconds of both processes."""
    for answer in (paths.ensemble, copy_of(paths.ensemble)):
        answer.unlink(missing_ok=True)
    choosing = seconds_of([str(paths.root)])
    members = [member["trial_id"] for member in read_json(paths.ensemble)["members"]]
    dropping = seconds_of([str(paths.root), "--drop", members[0]])
    return {"select": asdict(choosing), "drop": asdict(dropping), "members": members}


def seconds_of(words: Sequence[str]) -> Seconds:
    """Return how long one run of the command takes, start of Python included."""
    variables = os.environ | dict.fromkeys(THREADS, "1")
    command = [sys.executable, "-m", "spine_ray.select", *words]
    began, before = time.perf_counter(), os.times()
    subprocess.run(command, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Seconds(wall, cpu)


def write_study(paths: StudyPaths, trials: int, dev_rows: int) -> None:
    """Write a study whose search is over: every trial completed, one that a search could have left."""
    samples, made = make_samples(dev_rows)
    configs = make_configs(trials)
    events = [
        event for place, config in enumerate(configs) for event in write_trial(paths, samples, made, place, config)
    ]
    # What `append_event` would write, without handing every line to the disk on its own.
    replace_text(paths.ledger, "".join(json.dumps(event_to_dict(event)) + "\n" for event in events))
    costs = {cost_key(config): cost_of(config) for config in configs}
    write_costs(paths, costs.values())
    write_trials(paths, trials_from_events(events).values(), costs)
    write_samples(paths.samples, samples)
    record = StudyRecord(
        seed=SEED,
        data=DATA,
        data_fingerprint=samples.data_fingerprint,
        fold_fingerprint=samples.fold_fingerprint,
        classes=samples.classes,
        versions={},
        device="cpu",
        weights=WeightsRecord(kind="random", source="random", hashes={}),
        choices=Choices(activation_bytes=0, arithmetic={}),
    )
    write_record(paths, record)  # last: a folder with it is whole


def make_samples(dev_rows: int) -> tuple[Samples, Cohort]:
    """Return rows as a study has them, sorted by class, and what made-up models have in common on them."""
    rows = dev_rows + TEST_ROWS
    drawn = cohort(rows, len(CLASSES))
    order = np.argsort(drawn.labels, kind="stable")
    made = Cohort(labels=drawn.labels[order], margin=drawn.margin[order], common=drawn.common[:, order])
    rng = np.random.default_rng(SEED)
    is_test = np.zeros(rows, np.bool_)
    is_test[rng.choice(rows, TEST_ROWS, replace=False)] = True
    samples = Samples(
        sample_ids=tuple(f"{row:016x}" for row in range(rows)),
        paths=tuple(f"{CLASSES[label]}/{row}.jpg" for row, label in enumerate(made.labels)),
        labels=made.labels,
        classes=CLASSES,
        groups=np.arange(rows),
        splits=tuple("test" if each else "dev" for each in is_test),
        folds=np.where(is_test, -1, rng.integers(0, FOLDS, rows)),
    )
    return samples, made


def make_configs(trials: int) -> list[TrialConfig]:
    """Return different configurations; all backbones, resolutions and freeze depths by turns, then other rates."""
    configs = []
    for place in range(trials):
        rest, backbone = divmod(place, len(BACKBONES))
        rest, resolution = divmod(rest, len(RESOLUTIONS))
        again, freeze = divmod(rest, len(FREEZES))
        depth = FREEZES[freeze]
        recipe = start_recipe("pretrained")
        configs.append(
            TrialConfig(
                backbone=list(BACKBONES)[backbone],
                resolution=RESOLUTIONS[resolution],
                freeze=depth,
                recipe=replace(recipe, lr=recipe.lr * 1.5**again),
            )
        )
    return configs


def write_trial(paths: StudyPaths, samples: Samples, made: Cohort, place: int, config: TrialConfig) -> list[Event]:
    """Write a trial's OOF logits and return its events."""
    logits = made.logits(place)
    write_oof(paths, config.trial_id, samples, logits)
    labels = samples.labels[samples.dev]
    values = log_probs(logits[samples.dev], fit_temperature(logits[samples.dev], labels))
    backbone, started = BACKBONES[config.backbone], 1_700_000_000.0 + 600.0 * place
    steps, loss, share = FOLDS * config.training.epochs, log_loss(values, labels), accuracy(values, labels)
    start = TrialStarted(
        trial_id=config.trial_id, tier=backbone.tier, config=config, family=backbone.family,
        is_start=place < len(BACKBONES), total_steps=steps, params=backbone.params, macs=macs_of(config),
        weights_source="random", licence="unknown", data_version=samples.version, time=started,
    )  # fmt: skip
    end = TrialEnded(
        trial_id=config.trial_id, status="completed", reason="", step=steps, log_loss=loss, accuracy=share,
        seconds=10.0 * steps, time=started + 10.0 * steps,
    )  # fmt: skip
    return [start, *(epoch_of(config, step, steps, loss, share) for step in range(1, steps + 1)), end]


def epoch_of(config: TrialConfig, step: int, steps: int, loss: float, share: float) -> EpochDone:
    """Return one epoch of a trial that comes down to its log-loss in a straight line."""
    fold, epoch = divmod(step - 1, config.training.epochs)
    return EpochDone(
        trial_id=config.trial_id, step=step, fold=fold, epoch=epoch + 1, train_loss=loss, accuracy=share,
        log_loss=loss + (steps - step) / steps, seconds=10.0, train_images=8_000, train_images_s=800.0,
        score_images_s=2_000.0, peak_mb=900.0, views=config.training.epochs, micro_batch=config.training.batch_size,
        note="",
    )  # fmt: skip


def cost_of(config: TrialConfig) -> Cost:
    """Return what a model costs: its frozen depth's share of the time and arithmetic is the prefix's."""
    backbone, is_frozen = BACKBONES[config.backbone], config.freeze > 0.0
    whole = backbone.images_s * (RESOLUTIONS[0] / config.resolution) ** 2
    return Cost(
        backbone=config.backbone, resolution=config.resolution, freeze=config.freeze, device="cpu",
        arithmetic="float32 contiguous", train_images_s=whole / (3.0 * (1.0 - config.freeze)), infer_images_s=whole,
        score_images_s=whole / (1.0 - config.freeze), prefix_images_s=whole / config.freeze if is_frozen else None,
        activation_mb=0.1 if is_frozen else None, peak_mb=900.0, macs=macs_of(config),
        prefix_macs=round(config.freeze * macs_of(config)), prefix_params=round(config.freeze * backbone.params),
    )  # fmt: skip


def macs_of(config: TrialConfig) -> int:
    """Return a model's multiply-accumulates of one image, which grow with the area."""
    return round(BACKBONES[config.backbone].macs * (config.resolution / RESOLUTIONS[0]) ** 2)


if __name__ == "__main__":
    main()
