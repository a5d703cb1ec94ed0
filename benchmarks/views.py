"""What fewer training views than epochs cost: part-frozen and head-only training on four small sets.

    python -m benchmarks.views

Prints one line of JSON a run, then the mean rise of held-out log-loss over as many views as epochs.
"""

import itertools
import json
import sys
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

from benchmarks.recipes import pictures_of
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

SETS = ("digits", "noise", "lattice", "shape")
BACKBONES = ("test_byobnet", "test_convnext", "test_vit")
FREEZES = (0.75, 1.0)
EPOCHS = 12
VIEWS = (1, 2, 3, 6, EPOCHS)
RATE = 2e-3
RESOLUTION = 32
WEIGHTS = Path(__file__).parents[1] / "search_spaces" / "small_weights"


@dataclass(frozen=True, slots=True)
class Run:
    """One backbone on one set with so many views."""

    name: str
    backbone: str
    freeze: float
    views: int


def runs() -> Iterator[Run]:
    """Return everything that is trained."""
    for name, backbone, freeze, views in itertools.product(SETS, BACKBONES, FREEZES, VIEWS):
        yield Run(name, backbone, freeze, views)


def measure(run: Run) -> dict[str, object]:
    """Train on two thirds of a set, three times, and score the rest."""
    torch.set_num_threads(1)
    activations.PART_VIEWS = activations.HEAD_VIEWS = 0.0  # what is to be found out
    files, labels = pictures_of(run.name)
    ids = [f"{run.name}-{row}" for row in range(len(files))]
    pixels = build_pixels(files.__getitem__, ids, short_side(RESOLUTION))
    flip = run.name != "digits"
    recipe = replace(start_recipe("pretrained", "part"), epochs=EPOCHS, lr=RATE, head_lr_factor=1.0, flip=flip)
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
        for epoch in range(EPOCHS):
            fit.train_epoch(epoch)
        logits = fit.logits(np.asarray(held_out, np.int64))
        predicted = log_probs(logits, fit_temperature(logits, labels[held_out]))
        losses.append(log_loss(predicted, labels[held_out]))
    return {**asdict(run), "log_loss": round(fmean(losses), 4)}


def main() -> None:
    """Run all on every core, a process each, and print the mean rise by number of views."""
    losses: dict[tuple[object, ...], dict[int, float]] = defaultdict(dict)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for result in pool.map(measure, runs()):
            print(json.dumps(result), flush=True)
            key = (result["name"], result["backbone"], result["freeze"])
            losses[key][int(str(result["views"]))] = float(str(result["log_loss"]))
    for views, freeze in itertools.product(VIEWS, FREEZES):
        rises = [each[views] - each[EPOCHS] for key, each in losses.items() if key[2] == freeze]
        error = stdev(rises) / len(rises) ** 0.5
        told = {"views": views, "freeze": freeze, "mean_rise": round(fmean(rises), 4), "error": round(error, 4)}
        print(json.dumps({**told, "runs": len(rises)}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
