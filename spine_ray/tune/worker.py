"""A process that trains: started once a search, warm from then on, whatever tier is running."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spine_ray.core.fit import Fit
from spine_ray.core.probe import Speed, measure_speed
from spine_ray.core.score import logits_of
from spine_ray.core.ship import REFIT, rebuild, trained_arrays
from spine_ray.core.trial import TrialRun
from spine_ray.space.config import TrialConfig
from spine_ray.study.control import write_control
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.shipped import read_refit, write_refit
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.work import open_work, shuffled_labels


@dataclass(frozen=True, slots=True)
class Refit:
    """A member fitted on all dev rows."""

    trial_id: str
    seconds: float


class TrainWorker:
    """Holds one trial's run at most; a new attempt replaces it."""

    def __init__(self) -> None:
        """Import what training needs, by being here; hold no run."""
        self._attempt = ""
        self._run: TrialRun | None = None

    def next_epoch(self, order: WorkOrder, given: dict[str, Any]) -> dict[str, Any]:
        """Train one epoch of one fold of a trial and, after the last, write its OOF logits.

        Args:
            order: The same for all trials.
            given: What the searcher handed out: the configuration, its attempt, whether it is the control.
        """
        if self._run is None or self._attempt != given["attempt"]:
            self._run = None  # frees the last trial's model before the next is built
            self._run, self._attempt = _start(order, given), given["attempt"]
        run = self._run
        record = run.next_epoch()
        if run.is_done:
            _finish(order, given, run)
            self._run = None
        return {**asdict(record), "is_last": run.is_done}

    def refit(self, order: WorkOrder, config: TrialConfig) -> Refit:
        """Fit a configuration on all dev rows and keep its trained tensors in the study."""
        samples, task = open_work(order)
        began = time.perf_counter()
        file = order.weights_file(config.backbone)
        fit = Fit(config, task, samples.dev, REFIT, file, torch.device(order.device))
        for epoch in range(config.recipe.epochs):
            fit.train_epoch(epoch)
        frozen = order.frozen_hash(config.backbone)
        write_refit(StudyPaths(order.study), config.trial_id, trained_arrays(fit.model), frozen)
        return Refit(config.trial_id, time.perf_counter() - began)

    def score(self, order: WorkOrder, config: TrialConfig, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return a refitted member's logits on some rows, (rows, classes)."""
        _, task = open_work(order)
        arrays = read_refit(StudyPaths(order.study), config.trial_id)
        model = rebuild(config, task.classes, order.seed, order.weights_file(config.backbone), arrays)
        device = torch.device(order.device)
        model = model.to(device).to(memory_format=torch.channels_last)
        return logits_of(model, config, task.pixels, rows, device)

    def measure(self, order: WorkOrder, config: TrialConfig) -> Speed:
        """Measure what a configuration costs here."""
        _, task = open_work(order)
        return measure_speed(config, task.classes, torch.device(order.device))


def _start(order: WorkOrder, given: dict[str, Any]) -> TrialRun:
    samples, task = open_work(order)
    config = TrialConfig.from_dict(given["trial"])
    folds_to_run = samples.num_folds
    if given["is_control"]:
        task = replace(task, labels=shuffled_labels(samples, order.seed))
        folds_to_run = 1
    file = order.weights_file(config.backbone)
    return TrialRun(config, task, samples.folds, file, torch.device(order.device), folds_to_run)


def _finish(order: WorkOrder, given: dict[str, Any], run: TrialRun) -> None:
    samples, _ = open_work(order)
    paths = StudyPaths(order.study)
    if given["is_control"]:
        write_control(paths, samples, shuffled_labels(samples, order.seed), run.oof_logits())
    else:
        write_oof(paths, given["trial_id"], samples, run.oof_logits())
