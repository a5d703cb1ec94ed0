"""Choose the start recipe for random weights: a few recipes, a few backbones, digits and generated sets, one fold.

    python -m benchmarks.recipes > recipes.jsonl

Prints a JSON line a run (held-out log-loss after temperature, accuracy) and, last, the mean over sets by backbone.
"""

import io
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from benchmarks.textures import drawings, picture
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import pictures_for
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import Recipe, TrialConfig
from spine_ray.space.recipes import start_recipe

RESOLUTION, EPOCHS, CLASSES, PER_CLASS = 32, 6, 10, 96
SETS = ("digits", "lattice", "noise")
BACKBONES = ("mobilenetv3_large_100", "resnet18", "vit_tiny_patch16_224")
RATES = (1e-3, 2e-3, 4e-3)
VARIANTS: tuple[dict[str, object], ...] = ({"flip": True}, {"crop_area_min": 0.35}, {"clip_norm": 1e6})


@dataclass(frozen=True, slots=True)
class Run:
    """One recipe for one backbone on one set."""

    name: str
    backbone: str
    recipe: Recipe
    change: str


def runs() -> Iterator[Run]:
    """All rates for every backbone, then single changes for the cheapest."""
    start = replace(start_recipe("random", "full"), epochs=EPOCHS)
    for name, backbone, rate in itertools.product(SETS, BACKBONES, RATES):
        yield Run(name, backbone, replace(start, lr=rate), f"lr {rate:g}")
    for name, change in itertools.product(SETS, VARIANTS):
        told = ", ".join(f"{key} {value}" for key, value in change.items())
        yield Run(name, BACKBONES[0], replace(start, **change), told)


def pictures_of(name: str) -> tuple[list[bytes], np.ndarray]:
    """Return PNGs and labels of a set."""
    if name == "digits":
        scans = load_digits()
        arrays = np.rint(scans.images * 255 / 16).astype(np.uint8)[: CLASSES * PER_CLASS * 3 // 2]
        return [png(array) for array in arrays], scans.target[: len(arrays)].astype(np.int64)
    kinds = [draw for title, draw in drawings().items() if title.startswith(name)][:CLASSES]
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(len(kinds)), PER_CLASS * 3 // 2)
    return [png(picture(kinds[label], rng, 48)) for label in labels], labels


def png(array: np.ndarray) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def measure(run: Run) -> dict[str, object]:
    """Train on two thirds of a set and score the rest."""
    torch.set_num_threads(1)
    files, labels = pictures_of(run.name)
    ids = [f"{run.name}-{row}" for row in range(len(files))]
    pixels = build_pixels(files.__getitem__, ids, short_side(RESOLUTION))
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(labels, labels)
    train, held_out = (np.asarray(rows, np.int64) for rows in next(folds))
    task = Task(pixels=pixels, keys=image_keys(ids, 0), labels=labels, classes=int(labels.max()) + 1, seed=0)
    config = TrialConfig(backbone=run.backbone, resolution=RESOLUTION, freeze=0.0, recipe=run.recipe)
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=None, activation_bytes=0)
    network = Network(config, task.classes, task.seed, setup)
    learner = network.learner(run.recipe.batch_size)
    fit = Fit(run.recipe, task, train, 0, learner, pictures_for(run.recipe, network, task))
    for epoch in range(run.recipe.epochs):
        fit.train_epoch(epoch)
    logits = fit.logits(held_out)
    predicted = log_probs(logits, fit_temperature(logits, labels[held_out]))
    return {
        "set": run.name,
        "backbone": run.backbone,
        "change": run.change,
        "log_loss": round(log_loss(predicted, labels[held_out]), 4),
        "accuracy": round(accuracy(predicted, labels[held_out]), 4),
    }


def main() -> None:
    """Run all on every core, a process each."""
    results = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for result in pool.map(measure, runs()):
            print(json.dumps(result), flush=True)
            results.append(result)
    means: dict[tuple[object, object], list[float]] = defaultdict(list)
    for result in results:
        means[result["backbone"], result["change"]].append(float(str(result["log_loss"])))
    for (backbone, change), losses in means.items():
        print(json.dumps({"backbone": backbone, "change": change, "mean_log_loss": round(float(np.mean(losses)), 4)}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
