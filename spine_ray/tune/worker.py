"""A process that trains: started once a search, warm from then on, whatever tier is running."""

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.core.activations import open_inputs
from spine_ray.core.fit import Fit
from spine_ray.core.memory import gpu_memory_mb
from spine_ray.core.network import Network
from spine_ray.core.probe import Speed, fastest_arithmetic, measure_speed
from spine_ray.core.score import logits_of
from spine_ray.core.screen import SCREENED_ROWS, Screening, clean_features, few_rows, screen
from spine_ray.core.seeds import derive_seed
from spine_ray.core.ship import REFIT, rebuild, trained_arrays
from spine_ray.core.soundness import TrainingCheck, check_training
from spine_ray.core.trial import EpochRecord, TrialRun
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.study.control import write_control
from spine_ray.study.oof import write_oof
from spine_ray.study.shipped import read_refit, write_refit
from spine_ray.tune.keeper import Keeper
from spine_ray.tune.node import depot_of
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.work import open_work, setup_of, shuffled_labels


@dataclass(frozen=True, slots=True)
class Refit:
    """A member fitted on all dev rows."""

    trial_id: str
    seconds: float


@dataclass(slots=True)
class _Running:
    """The trial at hand."""

    trial_id: str
    run: TrialRun
    keeper: Keeper
    records: list[EpochRecord] = field(default_factory=list)
    told: int = 0
    """How many of the records the search knows."""
    starting: float = 0.0
    """Seconds that the start took, until an epoch has told them."""


class TrainWorker:
    """Holds one trial's run and one network at most; a new trial replaces the run, another network the network."""

    def __init__(self) -> None:
        """Hold no run."""
        self._running: _Running | None = None
        self._network: tuple[object, Network] | None = None

    def begin(self, order: WorkOrder, given: dict[str, Any]) -> dict[str, Any]:
        """Take up a trial where its checkpoint stands, or anew where there is none that fits.

        Args:
            order: The same for all trials.
            given: What the searcher handed out: the configuration, whether it is the control, and the first step
                that is to be told (again).

        Returns:
            `step`, the epochs that are done over all folds, and `dropped`, why a checkpoint was not used, or empty.
        """
        began, dropped = time.perf_counter(), ""
        self._running = None  # frees the last trial's tensors before the next is built
        samples, _ = open_work(order)
        keeper, run = Keeper(order, given, samples), self._start(order, given)
        try:
            records = keeper.resume(run)
        except ValueError as error:
            dropped, records = str(error), []
            keeper.drop()
            run = self._start(order, given)
        told = sum(record.step < given["tell_from"] for record in records)
        self._running = _Running(given["trial_id"], run, keeper, records, told, time.perf_counter() - began)
        return {"step": records[-1].step if records else 0, "dropped": dropped}

    def next_epoch(self, order: WorkOrder, given: dict[str, Any]) -> dict[str, Any]:
        """Train one epoch of the trial that was begun and, after the last, write its OOF logits.

        An epoch that the checkpoint holds and the search does not know of is told instead, without training.
        """
        running = self._running
        if running is None or running.trial_id != given["trial_id"]:
            raise RuntimeError(f"{given['trial_id']} was never begun here")
        is_known = running.told < len(running.records)
        if not is_known:
            trained = running.run.next_epoch()
            running.records.append(replace(trained, seconds=trained.seconds + running.starting))
            running.starting = 0.0
            running.keeper.keep(running.run, running.records)
        record = running.records[running.told]
        running.told += 1
        is_over = running.run.is_done and running.told == len(running.records)
        # A model that diverged in its last epoch has no OOF logits; the search ends such a trial with the reason.
        is_last = is_over and (given["is_control"] or math.isfinite(record.log_loss))
        if is_last:
            _finish(order, given, running)
            self._running = None
        return {**asdict(record), "is_last": is_last, "is_known": is_known}

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
        depot = depot_of(order)
        with depot.publishing(depot.paths.refit(config.trial_id)):
            write_refit(
                depot.paths,
                config.trial_id,
                trained_arrays(network.model),
                frozen_hash=frozen,
                data_version=samples.version,
            )
        return Refit(config.trial_id, time.perf_counter() - began)

    def score(self, order: WorkOrder, config: TrialConfig, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return a refitted member's logits on some rows, (rows, classes)."""
        _, task = open_work(order)
        depot = depot_of(order)
        depot.fetch(depot.paths.refit(config.trial_id))
        arrays = read_refit(depot.paths, config.trial_id)
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

    def gpu_memory_mb(self) -> float:
        """Return the memory of the GPU here, MB."""
        return gpu_memory_mb()

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


def _finish(order: WorkOrder, given: dict[str, Any], running: _Running) -> None:
    """Write what a trial leaves; its checkpoint goes when its end is in the ledger, that of the control here."""
    samples, _ = open_work(order)
    depot, logits = depot_of(order), running.run.oof_logits()
    if given["is_control"]:
        with depot.publishing(depot.paths.control):
            write_control(depot.paths, samples, shuffled_labels(samples, order.seed), logits)
        running.keeper.drop()
        return
    with depot.publishing(depot.paths.oof(given["trial_id"])):
        write_oof(depot.paths, given["trial_id"], samples, logits)
