"""A process that trains: started once a search, warm from then on, whatever tier is running."""

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.core.activations import open_inputs
from spine_ray.core.fit import Fit
from spine_ray.core.network import Network
from spine_ray.core.probe import Speed, fastest_arithmetic, measure_speed
from spine_ray.core.score import logits_of
from spine_ray.core.screen import SCREENED_ROWS, Screening, clean_features, few_rows, screen
from spine_ray.core.seeds import derive_seed
from spine_ray.core.ship import REFIT, rebuild, trained_arrays
from spine_ray.core.soundness import TrainingCheck, check_training
from spine_ray.core.trial import TrialRun
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.study.control import write_control
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.shipped import read_refit, write_refit
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.work import open_work, setup_of, shuffled_labels


@dataclass(frozen=True, slots=True)
class Refit:
    """A member fitted on all dev rows."""

    trial_id: str
    seconds: float


class TrainWorker:
    """Holds one trial's run and one network at most; a new trial replaces the run, another network the network."""

    def __init__(self) -> None:
        """Hold no run."""
        self._run: TrialRun | None = None
        self._starting = 0.0
        self._network: tuple[object, Network] | None = None

    def begin(self, order: WorkOrder, given: dict[str, Any]) -> None:
        """Take up a trial.

        Args:
            order: The same for all trials.
            given: What the searcher handed out: the configuration, whether it is the control.
        """
        began = time.perf_counter()
        self._run = None  # frees the last trial's tensors before the next is built
        self._run = self._start(order, given)
        self._starting = time.perf_counter() - began

    def next_epoch(self, order: WorkOrder, given: dict[str, Any]) -> dict[str, Any]:
        """Train one epoch of the trial that was begun and, after the last, write its OOF logits."""
        if self._run is None:
            raise RuntimeError(f"{given['trial_id']} was never begun here")
        record = self._run.next_epoch()
        record = replace(record, seconds=record.seconds + self._starting)
        self._starting, is_last = 0.0, self._run.is_done
        if is_last:
            _finish(order, given, self._run)
            self._run = None
        return {**asdict(record), "is_last": is_last}

    def refit(self, order: WorkOrder, config: TrialConfig) -> Refit:
        """Fit a configuration on all dev rows and keep its trained tensors in the study."""
        samples, task = open_work(order)
        began = time.perf_counter()
        network = self._network_of(order, config, task.classes)
        inputs = open_inputs(config.recipe, network, task, samples.dev)
        fit = Fit(config.recipe, task, samples.dev, REFIT, network.learner(config.recipe.batch_size), inputs)
        for epoch in range(config.recipe.epochs):
            fit.train_epoch(epoch)
        frozen = order.frozen_hash(config.backbone)
        write_refit(
            StudyPaths(order.study),
            config.trial_id,
            trained_arrays(network.model),
            frozen_hash=frozen,
            data_version=samples.version,
        )
        return Refit(config.trial_id, time.perf_counter() - began)

    def score(self, order: WorkOrder, config: TrialConfig, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return a refitted member's logits on some rows, (rows, classes)."""
        _, task = open_work(order)
        arrays = read_refit(StudyPaths(order.study), config.trial_id)
        setup = setup_of(order, config.backbone)
        model, pictures = rebuild(config, task, setup, arrays)
        return logits_of(model, pictures, rows, setup)

    def measure(self, order: WorkOrder, config: TrialConfig) -> Speed:
        """Measure what a configuration costs here."""
        _, task = open_work(order)
        return measure_speed(config, task.classes, setup_of(order, config.backbone))

    def screen(self, order: WorkOrder, config: TrialConfig) -> Screening:
        """Look at a backbone's features with everything frozen, on at most a few thousand dev rows."""
        samples, task = open_work(order)
        rows = few_rows(task.labels, samples.dev, SCREENED_ROWS, derive_seed(order.seed, "screen") % 2**32)
        network = self._network_of(order, replace(config, freeze=1.0), task.classes)
        return screen(clean_features(network, task, rows), task.labels[rows], samples.folds[rows], task.classes)

    def check_training(self, order: WorkOrder, config: TrialConfig) -> TrainingCheck:
        """Check, before anything trains, whether a backbone can learn from these rows and views."""
        samples, task = open_work(order)
        return check_training(config, task, samples.folds, setup_of(order, config.backbone))

    def choose_arithmetic(self, order: WorkOrder, config: TrialConfig) -> Arithmetic:
        """Measure which arithmetic serves a backbone best here."""
        _, task = open_work(order)
        return fastest_arithmetic(config, task.classes, setup_of(order, config.backbone))

    def _start(self, order: WorkOrder, given: dict[str, Any]) -> TrialRun:
        samples, task = open_work(order)
        config = TrialConfig.from_dict(given["trial"])
        folds_to_run = samples.num_folds
        if given["is_control"]:
            task = replace(task, labels=shuffled_labels(samples, order.seed))
            folds_to_run = 1
        return TrialRun(config, task, samples.folds, self._network_of(order, config, task.classes), folds_to_run)

    def _network_of(self, order: WorkOrder, config: TrialConfig, classes: int) -> Network:
        """Return the configuration's network: the one that is here, if it differs in nothing but how it is trained."""
        setup = setup_of(order, config.backbone)
        key = (config.backbone, config.resolution, config.freeze, config.recipe.drop_path, classes, order.seed, setup)
        if self._network is None or self._network[0] != key:
            self._network = None  # frees the last one's memory before the next is built
            self._network = (key, Network(config, classes, order.seed, setup))
        return self._network[1]


def _finish(order: WorkOrder, given: dict[str, Any], run: TrialRun) -> None:
    samples, _ = open_work(order)
    paths = StudyPaths(order.study)
    if given["is_control"]:
        write_control(paths, samples, shuffled_labels(samples, order.seed), run.oof_logits())
    else:
        write_oof(paths, given["trial_id"], samples, run.oof_logits())
