"""Recipes on real pictures: a fine-tune beside the probe from which it starts, and beside other people's recipes.

    python -m benchmarks.fine_tunes FOLDER --half odd --seeds 0 1 2 --recipes start automm old --out runs.jsonl
    python -m benchmarks.fine_tunes FOLDER --half even --rows 300 1000 --recipes start augment=strong lr=0.001

FOLDER holds one table of pictures and FOLDER/weights/BACKBONE.safetensors (see `benchmarks.real_pictures`). What is
tuned on and what is reported on are groups of different halves of the table. Each run learns from four fifths of the
drawn rows, as a fold of a search does, takes its temperature from the fifth that is left, and is judged on rows of
other groups.

Recipes are `start`, that of the package; `automm`, AutoGluon Multimodal's defaults on a head drawn at random, for as
many passes over the rows; `old`, the package's before fine-tunes began with the head of a probe; and `SETTING=VALUE`,
several joined by commas: the start recipe with something changed. Runs are appended to `--out` as they end, and those
that are there are not run again.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import yaml

from benchmarks.frozen_features import LITES
from benchmarks.frozen_models import deal_folds, decode
from benchmarks.generated_pictures import BACKBONES, WEIGHTS, write_pictures
from benchmarks.picture_table import PictureTable, draw_rows, read_table
from benchmarks.real_pictures import find_table
from benchmarks.results import parse_words, print_result, say
from spine_ray.core.backbone import family_of
from spine_ray.core.features import scoring_features
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import pictures_for
from spine_ray.core.linear_head import LinearHead, fit_linear_head
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import short_side
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.space.arithmetic import FLOAT32, Arithmetic
from spine_ray.space.config import AUGMENTATIONS, Recipe, TrialConfig, probe_config
from spine_ray.space.recipes import start_epochs, start_recipe

AUTOMM: Mapping[str, Any] = {
    **AUGMENTATIONS["none"],
    **{"augment": "none", "trivial_augment": True, "symmetry": "none", "batch_size": 128, "lr": 1e-4},
    **{"layer_decay": 0.9, "weight_decay": 1e-3, "batch_norm": "trained"},
}
"""AutoGluon Multimodal 1.6, configs/optim/default.yaml and configs/model/default.yaml, as settings of ours."""
OLD: Mapping[str, Any] = {
    "epochs": 10, "lr": 1e-4, "head_lr_factor": 10.0, "label_smoothing": 0.1, "batch_norm": "trained"
}  # fmt: skip
"""The package's start recipe until 2026-11-27."""
QUICK: Mapping[str, object] = {
    "rows": [80], "judge_rows": 40, "seeds": [0], "backbones": list(BACKBONES[:1]), "px": 32,
    "recipes": ["start", "automm", "epochs=2,lr=0.001"], "processes": 1, "half": "all",
}  # fmt: skip
QUICK_PICTURES = 160


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One recipe for one backbone on one draw."""

    table: str
    weights: str
    half: str
    rows: int
    judge_rows: int
    seed: int
    backbone: str
    px: int
    freeze: float
    recipe: str

    @property
    def name(self) -> str:
        """All that decides the outcome, in words."""
        size = f"{self.rows} rows, seed {self.seed}, {self.half}"
        return f"{size}: {self.backbone} {self.px} px, freeze {self.freeze:g}, {self.recipe}"


def main(words: Sequence[str] | None = None) -> None:
    """Run what was not run before and sum all of it up."""
    given = parse_words(_parser(), words, quick=QUICK, needed=("folder",))
    if given.folder is None:
        with tempfile.TemporaryDirectory() as folder:
            file = write_pictures(Path(folder), QUICK_PICTURES, 0)
            print_result(run_all(given, file, WEIGHTS))
        return
    print_result(run_all(given, find_table(given.folder), given.folder / "weights"))


def run_all(given: argparse.Namespace, table: Path, weights: Path) -> dict[str, Any]:
    """Run what is not in the file of results yet, and return all that were asked for."""
    recipes = list(dict.fromkeys(["probe", *given.recipes]))
    runs = [
        Run(
            table=str(table), weights=str(weights), half=given.half, rows=rows, judge_rows=given.judge_rows, seed=seed,
            backbone=backbone, px=given.px, freeze=given.freeze, recipe=recipe,
        )
        for rows, seed, backbone, recipe in product(given.rows, given.seeds, given.backbones, recipes)
    ]  # fmt: skip
    done: dict[str, dict[str, Any]] = {}
    if given.out is not None and given.out.exists():
        done = {each["name"]: each for each in map(json.loads, given.out.read_text().splitlines())}
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(measure, run) for run in runs if run.name not in done]):
            found = future.result()
            done[found["name"]] = found
            say(json.dumps(found))
            if given.out is not None:
                with given.out.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(found) + "\n")
    return {"runs": [done[run.name] for run in runs], "summary": summary([done[run.name] for run in runs])}


def measure(run: Run) -> dict[str, Any]:
    """Train, take the temperature on the rows left out, and judge on those of other groups."""
    torch.set_num_threads(1)
    table = _half(read_table(Path(run.table)), run.half)
    draw = draw_rows(table, study=run.rows, test=0, judge=run.judge_rows, seed=run.seed)
    rows = table.take([*draw.study, *draw.judge])
    folds = deal_folds(table.take(draw.study))
    train, held_out = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    judge = np.arange(len(folds), len(rows.paths))
    task = Task(
        pixels=decode(rows, short_side(run.px)),
        keys=image_keys([str(path) for path in rows.paths], run.seed),
        labels=rows.label_indices(table.classes),
        classes=len(table.classes),
        seed=run.seed,
    )
    weights = Path(run.weights) / f"{run.backbone}.safetensors"
    head = solve_head(run, task, train, rows.groups, weights)
    began, looked = time.perf_counter(), np.concatenate([held_out, judge])
    if run.recipe == "probe":
        logits = head.logits(_features(run, task, weights)[looked])
    else:
        logits = fine_tune(run, task, train, weights, head, looked)
    seconds = time.perf_counter() - began
    labels = task.labels
    temperature = fit_temperature(logits[: len(held_out)], labels[held_out])
    predicted = log_probs(logits[len(held_out) :], temperature)
    found = {"log_loss": log_loss(predicted, labels[judge]), "accuracy": accuracy(predicted, labels[judge])}
    rounded = {name: round(value, 4) for name, value in {**found, "temperature": temperature}.items()}
    return {"name": run.name, **asdict(run), **rounded, "seconds": round(seconds, 1)}


def solve_head(run: Run, task: Task, train: npt.NDArray[np.int64], groups: Sequence[str], weights: Path) -> LinearHead:
    """Return the head that a probe solves on the training rows."""
    numbers = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    features = _features(run, task, weights)[train]
    return fit_linear_head(features, task.labels[train], task.classes, numbers[train], seed=run.seed)


def fine_tune(
    run: Run, task: Task, train: npt.NDArray[np.int64], weights: Path, head: LinearHead, scored: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Train by the run's recipe and return the logits of other rows."""
    recipe = recipe_of(run, len(train))
    config = TrialConfig(backbone=run.backbone, resolution=run.px, freeze=run.freeze, recipe=recipe)
    network = Network(config, task.classes, task.seed, _setup(weights, Arithmetic("float32", "channels_last")))
    learner = network.learner(recipe.batch_size)
    if run.recipe not in ("automm", "old"):
        network.put_head(head)
    fit = Fit(recipe, task, train, 0, learner, pictures_for(recipe, network, task))
    for epoch in range(recipe.epochs):
        fit.train_epoch(epoch)
    return fit.logits(scored)


def recipe_of(run: Run, rows: int) -> Recipe:
    """Return the recipe of a run that trains on so many rows.

    Raises:
        ValueError: If its word is no recipe.
    """
    start = start_recipe("pretrained", family_of(run.backbone))
    start = replace(start, epochs=start_epochs(rows, start.batch_size))
    if run.recipe == "start":
        return start
    if run.recipe in ("automm", "old"):
        return replace(start, **(AUTOMM if run.recipe == "automm" else OLD))
    changes = dict(each.split("=", 1) for each in run.recipe.split(","))
    strange = changes.keys() - {field.name for field in fields(Recipe)} - {"steps"}
    if strange:
        raise ValueError(f"{run.recipe!r} is no recipe: there is no setting {sorted(strange)[0]!r}")
    values = {name: yaml.safe_load(text) for name, text in changes.items()}
    if "steps" in values:
        values["epochs"] = max(1, round(values.pop("steps") / (rows // start.batch_size)))
    return replace(start, **{**AUGMENTATIONS.get(str(values.get("augment")), {}), **values})


def summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return, by recipe and rows, the log-losses as shares of the probe's and of the start recipe's, run by run."""
    losses = {(each["rows"], each["seed"], each["backbone"], each["recipe"]): each["log_loss"] for each in runs}
    found: dict[str, Any] = {}
    for recipe in dict.fromkeys(each["recipe"] for each in runs):
        for against in ("probe", "start"):
            if recipe == against:
                continue
            shares = [
                round(loss / losses[rows, seed, backbone, against], 3)
                for (rows, seed, backbone, mine), loss in losses.items()
                if mine == recipe and (rows, seed, backbone, against) in losses
            ]
            if shares:
                better = sum(share < 1.0 for share in shares)
                found[f"{recipe} / {against}"] = {"shares": shares, "median": median(shares), "better": better}
    return found


def _half(table: PictureTable, half: str) -> PictureTable:
    """Return the rows whose groups, counted in the order of their names, are even or odd; or all."""
    if half == "all":
        return table
    number = {group: index for index, group in enumerate(sorted(set(table.groups)))}
    odd = half == "odd"
    return table.take([row for row, group in enumerate(table.groups) if (number[group] % 2 == 1) == odd])


def _features(run: Run, task: Task, weights: Path) -> npt.NDArray[np.float32]:
    frozen = Network(probe_config(run.backbone, run.px), task.classes, task.seed, _setup(weights, FLOAT32))
    return scoring_features(frozen, task, np.arange(len(task.labels))).values


def _setup(weights: Path, arithmetic: Arithmetic) -> Setup:
    return Setup(device=torch.device("cpu"), arithmetic=arithmetic, weights=weights, activation_bytes=0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="pictures and weights")
    parser.add_argument(
        "--half", choices=("even", "odd", "all"), default="odd", help="of the groups: tune on even ones"
    )
    parser.add_argument("--rows", nargs="+", type=int, default=[1000], help="to learn from, a fifth left out")
    parser.add_argument("--judge-rows", type=int, default=900, help="rows to judge on, at most")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of draw and training")
    parser.add_argument("--backbones", nargs="+", default=list(LITES[:1]), metavar="NAME")
    parser.add_argument("--px", type=int, default=64, help="side of the square input")
    parser.add_argument("--freeze", type=float, default=0.0, help="share of the depth that is frozen")
    parser.add_argument("--recipes", nargs="+", default=["start"], metavar="RECIPE")
    parser.add_argument("--out", type=Path, help="file of runs, a line each, to go on with")
    parser.add_argument("--processes", type=int, default=2, help="one thread each")
    return parser


if __name__ == "__main__":
    main()
