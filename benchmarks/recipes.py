"""Choose the start recipe for random weights: a few recipes, a few backbones, digits and generated sets, one fold.

    python -m benchmarks.recipes > recipes.json

Of every run the held-out log-loss after temperature and the accuracy, and the means over the sets by backbone.
"""

import argparse
import io
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from benchmarks.results import parse_words, print_result, say
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

RESOLUTION, CLASSES, PER_CLASS = 32, 10, 96
VARIANTS: tuple[dict[str, Any], ...] = ({"symmetry": "mirror"}, {"crop_area_min": 0.35}, {"clip_norm": 1e6})


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """What is trained."""

    sets: tuple[str, ...] = ("digits", "lattice", "noise")
    backbones: tuple[str, ...] = ("mobilenetv3_large_100", "resnet18", "vit_tiny_patch16_224")
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    epochs: int = 6
    per_class: int = PER_CLASS


QUICK = Mix(sets=("digits",), backbones=("test_resnet",), rates=(2e-3,), epochs=1, per_class=6)


@dataclass(frozen=True, slots=True)
class Run:
    """One recipe for one backbone on one set."""

    name: str
    backbone: str
    recipe: Recipe
    change: str
    per_class: int


def runs(mix: Mix) -> Iterator[Run]:
    """All rates for every backbone, then single changes for the cheapest."""
    start = replace(start_recipe("random"), epochs=mix.epochs)
    for name, backbone, rate in itertools.product(mix.sets, mix.backbones, mix.rates):
        yield Run(name, backbone, replace(start, lr=rate), f"lr {rate:g}", mix.per_class)
    for name, change in itertools.product(mix.sets, VARIANTS):
        told = ", ".join(f"{key} {value}" for key, value in change.items())
        yield Run(name, mix.backbones[0], replace(start, **change), told, mix.per_class)


def pictures_of(name: str, per_class: int) -> tuple[list[bytes], np.ndarray]:
    """Return PNGs and labels of a set, half as many again a class as are trained on."""
    if name == "digits":
        scans = load_digits()
        arrays = np.rint(scans.images * 255 / 16).astype(np.uint8)[: CLASSES * per_class * 3 // 2]
        return [png(array) for array in arrays], scans.target[: len(arrays)].astype(np.int64)
    kinds = [draw for title, draw in drawings().items() if title.startswith(name)][:CLASSES]
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(len(kinds)), per_class * 3 // 2)
    return [png(picture(kinds[label], rng, 48)) for label in labels], labels


def png(array: np.ndarray) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def measure(run: Run) -> dict[str, object]:
    """Train on two thirds of a set and score the rest."""
    torch.set_num_threads(1)
    files, labels = pictures_of(run.name, run.per_class)
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
    """Run all, some at once."""
    parser = argparse.ArgumentParser(description="Choose the start recipe for random weights.")
    parser.add_argument("--processes", type=int, default=2, help="one thread each; default: 2")
    given = parse_words(parser, quick={"processes": 1})
    mix = QUICK if given.quick else Mix()
    results = []
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for result in pool.map(measure, runs(mix)):
            say(json.dumps(result))
            results.append(result)
    losses: dict[tuple[object, object], list[float]] = defaultdict(list)
    for result in results:
        losses[result["backbone"], result["change"]].append(float(str(result["log_loss"])))
    means = [
        {"backbone": backbone, "change": change, "mean_log_loss": round(float(np.mean(each)), 4)}
        for (backbone, change), each in losses.items()
    ]
    print_result({"runs": results, "means": means})


if __name__ == "__main__":
    main()
