"""Members fitted once more, on all dev rows, by the same workers' resources: what ships."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import torch

from spine_ray.core.fit import Fit
from spine_ray.core.score import logits_of
from spine_ray.core.ship import REFIT, rebuild, trained_arrays
from spine_ray.space.config import TrialConfig
from spine_ray.study.paths import StudyPaths
from spine_ray.study.shipped import read_refit, write_refit
from spine_ray.tune.cluster import Workers
from spine_ray.tune.work import WorkOrder, open_work


@dataclass(frozen=True, slots=True)
class Refit:
    """A member fitted on all dev rows."""

    trial_id: str
    seconds: float


def refit_members(
    configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers, on_done: Callable[[Refit], None]
) -> None:
    """Fit every configuration on all dev rows and keep its trained parameters in the study.

    Args:
        configs: What to fit, each once.
        order: What the workers need to know.
        workers: What each fit gets.
        on_done: Called in this process as each is done.
    """
    task: Any = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(_refit)
    waiting = [task.remote(order, config) for config in configs]
    while waiting:
        done, waiting = ray.wait(waiting, num_returns=1)
        on_done(ray.get(done[0]))


def score_rows(
    configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers, rows: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    """Return the logits of refitted members on some rows, (rows, classes) each, in the order of `configs`."""
    task: Any = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(_score)
    return list(ray.get([task.remote(order, config, rows) for config in configs]))


def _refit(order: WorkOrder, config: TrialConfig) -> Refit:
    samples, task = open_work(order)
    began = time.perf_counter()
    file = order.weights_file(config.backbone)
    fit = Fit(config, task, samples.dev, REFIT, file, torch.device(order.device))
    for epoch in range(config.recipe.epochs):
        fit.train_epoch(epoch)
    frozen = order.frozen_hash(config.backbone)
    write_refit(StudyPaths(order.study), config.trial_id, trained_arrays(fit.model), frozen)
    return Refit(config.trial_id, time.perf_counter() - began)


def _score(order: WorkOrder, config: TrialConfig, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    _, task = open_work(order)
    arrays = read_refit(StudyPaths(order.study), config.trial_id)
    model = rebuild(config, task.classes, order.seed, order.weights_file(config.backbone), arrays)
    device = torch.device(order.device)
    model = model.to(device).to(memory_format=torch.channels_last)
    return logits_of(model, config, task.pixels, rows, device)
