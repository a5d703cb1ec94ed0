"""The plain side of the throughput benchmark: Ray Tune and timm, as their documentation puts them together.

The recipe is spine_ray's, the machinery is not: a function trainable, timm's dataset, transforms and loader, a fresh
model a fold, float32 in PyTorch's own memory format.
"""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import timm
import torch
from ray import tune
from timm.data.config import resolve_model_data_config
from timm.data.dataset import ImageDataset
from timm.data.loader import create_loader
from timm.data.readers.reader import Reader
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from benchmarks.fold_table import FoldTable, read_table
from benchmarks.sides import EQUAL, WORKERS, Order, SideResult, logits_file
from spine_ray.core.freeze import classifier_names, freeze_untrained, train_mode
from spine_ray.core.schedule import learning_rate_factor, make_optimizer, set_learning_rate
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import log_loss
from spine_ray.space.config import TrialConfig

SCORE_BATCH = 128


class RowReader(Reader):
    """Some rows of the fold table, as timm's datasets read them."""

    def __init__(self, folder: Path, table: FoldTable, rows: npt.NDArray[np.int64]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        labels = table.labels
        self._samples = [(folder / table.paths[row], int(labels[row])) for row in rows]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self._samples[index]
        return path.open("rb"), label

    def __len__(self) -> int:
        return len(self._samples)

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return str(self._samples[index][0])


def run_plain(order: Order) -> SideResult:
    """Train all trials with Ray Tune, one grid, first in first out.

    Raises:
        RuntimeError: If a trial failed.
    """
    ray.init(num_cpus=WORKERS)
    try:
        results = tune.Tuner(
            tune.with_resources(train_trial, {"cpu": 1}),
            param_space={
                "trial": tune.grid_search([trial.to_dict() for trial in order.trials]),
                "folder": str(order.folder),
                "out": str(order.out),
                "loader_workers": order.loader_workers,
            },
            tune_config=tune.TuneConfig(metric="log_loss", mode="min", reuse_actors=order.reuse_actors),
            run_config=tune.RunConfig(name="plain", storage_path=str(order.out / "ray")),
        ).fit()
    finally:
        ray.shutdown()
    if results.num_errors:
        raise RuntimeError(f"{results.num_errors} of {len(order.trials)} trials failed: {results.errors[0]}")
    last = [results[number].metrics or {} for number in range(len(results))]
    seconds = {str(metrics["name"]): float(metrics["seconds"]) for metrics in last}
    return SideResult(seconds, {trial.backbone: EQUAL for trial in order.trials}, {})


def train_trial(config: dict[str, Any]) -> None:
    """Train one trial over the folds and write its OOF logits: the function that Ray Tune runs."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    trial, folder = TrialConfig.from_dict(config["trial"]), Path(config["folder"])
    table = read_table(folder)
    logits = np.full((len(table.paths), len(table.classes)), np.nan, np.float32)
    for fold in range(table.num_folds):
        rows = table.held_out(fold)
        for predicted in fit_fold(trial, folder, table, fold, config["loader_workers"]):
            logits[rows] = predicted
            loss = log_loss(log_probs(predicted), table.labels[rows])
            tune.report({"log_loss": loss, "name": trial.trial_id, "seconds": time.perf_counter() - began})
    np.save(logits_file(Path(config["out"]), trial), logits)


def fit_fold(
    trial: TrialConfig, folder: Path, table: FoldTable, fold: int, loader_workers: int
) -> Iterator[npt.NDArray[np.float32]]:
    """Train on the rows outside a fold and yield the logits of those inside it, once an epoch."""
    recipe = trial.training
    torch.manual_seed(fold)
    random.seed(fold)  # timm's crops
    model = build_model(trial, len(table.classes))
    train_rows = RowReader(folder, table, table.training(fold))
    held_out = RowReader(folder, table, table.held_out(fold))
    train_loader = training_loader(trial, model, train_rows, loader_workers)
    score_loader = scoring_loader(trial, model, held_out, loader_workers)
    optimizer = make_optimizer(model, frozenset(classifier_names(model)), recipe)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step, steps = 0, recipe.epochs * len(train_loader)
    for _ in range(recipe.epochs):
        train_mode(model)
        for images, labels in train_loader:
            set_learning_rate(optimizer, learning_rate_factor(step, steps, recipe.warmup_share))
            optimizer.zero_grad()
            loss = cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            optimizer.step()
            step += 1
        yield score(model, score_loader)


def build_model(trial: TrialConfig, classes: int) -> nn.Module:
    """Return a fresh model, frozen up to the trial's depth."""
    options: dict[str, Any] = {"drop_path_rate": trial.training.drop_path} if trial.training.drop_path else {}
    config = timm.get_pretrained_cfg(trial.backbone)
    if config is not None and config.fixed_input_size:
        options["img_size"] = trial.resolution
    model: nn.Module = timm.create_model(trial.backbone, num_classes=classes, **options)
    freeze_untrained(model, trial)
    return model


def training_loader(trial: TrialConfig, model: nn.Module, rows: RowReader, workers: int) -> DataLoader[Any]:
    """Return timm's loader of randomly cropped pictures, without the last partial batch."""
    data, recipe = resolve_model_data_config(model), trial.training  # type: ignore[no-untyped-call]
    loader: DataLoader[Any] = create_loader(
        ImageDataset("", reader=rows),  # type: ignore[no-untyped-call]
        input_size=(3, trial.resolution, trial.resolution),
        batch_size=min(recipe.batch_size, len(rows)),
        is_training=True,
        scale=(recipe.crop_area_min, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.0 if recipe.symmetry == "none" else 0.5,
        color_jitter=None,  # type: ignore[arg-type]
        interpolation="bilinear",
        mean=data["mean"],
        std=data["std"],
        num_workers=workers,
        use_prefetcher=False,
    )
    return loader


def scoring_loader(trial: TrialConfig, model: nn.Module, rows: RowReader, workers: int) -> DataLoader[Any]:
    """Return timm's loader of central squares."""
    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    loader: DataLoader[Any] = create_loader(
        ImageDataset("", reader=rows),  # type: ignore[no-untyped-call]
        input_size=(3, trial.resolution, trial.resolution),
        batch_size=SCORE_BATCH,
        interpolation="bilinear",
        crop_pct=1.0,
        mean=data["mean"],
        std=data["std"],
        num_workers=workers,
        use_prefetcher=False,
    )
    return loader


def score(model: nn.Module, loader: DataLoader[Any]) -> npt.NDArray[np.float32]:
    """Return the logits of a loader's pictures, (pictures, classes)."""
    model.eval()
    with torch.inference_mode():
        parts = [model(images) for images, _ in loader]
    return np.asarray(torch.cat(parts).numpy(), np.float32)
