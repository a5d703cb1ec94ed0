"""What fewer training views than epochs cost: part-frozen training on four small sets.

    python -m benchmarks.views

Prints the loss of every run, and the mean rise of held-out log-loss over as many views as epochs.
"""

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold

from benchmarks.recipes import PER_CLASS, pictures_of
from benchmarks.results import parse_words, print_result, say
from spine_ray.core import activations
from spine_ray.core.activations import open_inputs
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import pictures_for, probe_activations
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import log_loss
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe

RATE = 2e-3
RESOLUTION = 32
WEIGHTS = Path(__file__).parents[1] / "search_spaces" / "small_weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """What is trained."""

    sets: tuple[str, ...] = ("digits", "noise", "lattice", "shape")
    backbones: tuple[str, ...] = ("test_byobnet", "test_convnext", "test_vit")
    freezes: tuple[float, ...] = (0.5, 0.75)
    views: tuple[int, ...] = (1, 2, 3, 6, 12)
    """The last is the number of epochs."""
    per_class: int = PER_CLASS


QUICK = Mix(sets=("digits", "noise"), backbones=("test_byobnet",), views=(1, 2), per_class=6)


@dataclass(frozen=True, slots=True)
class Run:
    """One backbone on one set with so many views."""

    name: str
    backbone: str
    freeze: float
    views: int
    epochs: int
    per_class: int


def runs(mix: Mix) -> Iterator[Run]:
    """Return everything that is trained."""
    for name, backbone, freeze, views in itertools.product(mix.sets, mix.backbones, mix.freezes, mix.views):
        yield Run(name, backbone, freeze, views, mix.views[-1], mix.per_class)


def measure(run: Run) -> dict[str, object]:
    """Train on two thirds of a set, three times, and score the rest."""
    torch.set_num_threads(1)
    activations.FEWEST_VIEWS = 0.0  # what is to be found out
    files, labels = pictures_of(run.name, run.per_class)
    ids = [f"{run.name}-{row}" for row in range(len(files))]
    pixels = build_pixels(files.__getitem__, ids, short_side(RESOLUTION))
    symmetry = "none" if run.name == "digits" else "mirror"
    recipe = replace(start_recipe("pretrained"), epochs=run.epochs, lr=RATE, head_lr_factor=1.0, symmetry=symmetry)
    config = TrialConfig(backbone=run.backbone, resolution=RESOLUTION, freeze=run.freeze, recipe=recipe)
    file = WEIGHTS / f"{run.backbone}.safetensors"
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=file, activation_bytes=0)
    task = Task(pixels=pixels, keys=image_keys(ids, 0), labels=labels, classes=int(labels.max()) + 1, seed=0)
    network = Network(config, task.classes, 0, setup)
    rows = np.arange(len(labels))
    shape, _ = probe_activations(pictures_for(recipe, network, task), rows)
    room = (run.views + 1) * len(rows) * int(np.prod(shape)) * 2
    network = Network(config, task.classes, 0, replace(setup, activation_bytes=room))
    inputs = open_inputs(recipe, network, task, rows)
    if inputs.views != run.views:
        raise ValueError(f"{inputs.views} views were kept, not {run.views}")
    losses = []
    for fold, (train, held_out) in enumerate(StratifiedKFold(3, shuffle=True, random_state=0).split(labels, labels)):
        fit = Fit(recipe, task, train, fold, network.learner(recipe.batch_size), inputs)
        for epoch in range(run.epochs):
            fit.train_epoch(epoch)
        logits = fit.logits(np.asarray(held_out, np.int64))
        predicted = log_probs(logits, fit_temperature(logits, labels[held_out]))
        losses.append(log_loss(predicted, labels[held_out]))
    return {**asdict(run), "log_loss": round(fmean(losses), 4)}


def main() -> None:
    """Run all, some at once, and print the mean rise by number of views."""
    parser = argparse.ArgumentParser(description="What fewer training views than epochs cost.")
    parser.add_argument("--processes", type=int, default=2, help="one thread each; default: 2")
    given = parse_words(parser, quick={"processes": 1})
    mix = QUICK if given.quick else Mix()
    losses: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    results = []
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for result in pool.map(measure, runs(mix)):
            results.append(result)
            say(json.dumps(result))
            key = (result["name"], result["backbone"], result["freeze"])
            losses[key][int(str(result["views"]))] = float(str(result["log_loss"]))
    rises = []
    for views, freeze in itertools.product(mix.views, mix.freezes):
        found = [each[views] - each[mix.views[-1]] for key, each in losses.items() if key[2] == freeze]
        error = stdev(found) / len(found) ** 0.5
        told = {"views": views, "freeze": freeze, "mean_rise": round(fmean(found), 4), "error": round(error, 4)}
        rises.append({**told, "runs": len(found)})
    print_result({"runs": results, "rises": rises})


if __name__ == "__main__":
    main()
