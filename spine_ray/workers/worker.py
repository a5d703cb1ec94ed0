"""The worker: trains trials an epoch at a time, measures costs, refits and scores members."""

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.core.activations import open_inputs
from spine_ray.core.fit import Fit
from spine_ray.core.memory import gpu_memory_mb, is_out_of_memory
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
from spine_ray.study.events import EpochDone
from spine_ray.study.oof import write_oof
from spine_ray.study.shipped import read_refit, write_refit
from spine_ray.workers.checkpointer import Checkpointer
from spine_ray.workers.failures import WorkFailedError, reason_of
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import Beginning, EpochReport, TrialRequest
from spine_ray.workers.worker_data import depot_of, open_work, setup_of, shuffled_labels


@dataclass(frozen=True, slots=True)
class Refit:
    """A member fitted on all dev rows."""

    trial_id: str
    seconds: float


@dataclass(slots=True)
class _Running:
    """The trial that is trained now."""

    request: TrialRequest
    run: TrialRun
    checkpointer: Checkpointer
    records: list[EpochRecord] = field(default_factory=list)
    reported: int = 0
    """How many of the records the search knows."""
    starting: float = 0.0
    """Seconds that the start took, until an epoch has reported them."""


class TrainWorker:
    """Holds one trial's run and one network at most; a new trial replaces the run, another network the network."""

    def __init__(self) -> None:
        """Hold no run."""
        self._running: _Running | None = None
        self._network: tuple[object, Network] | None = None

    def begin(self, spec: WorkerSpec, request: TrialRequest) -> Beginning:
        """Take up a trial where its checkpoint stands, or anew where there is none that fits."""
        began, dropped = time.perf_counter(), ""
        self._running = None  # frees the last trial's tensors before the next is built
        samples, _ = open_work(spec)
        checkpointer, run = Checkpointer(spec, request, samples), self._start(spec, request)
        try:
            records = checkpointer.resume(run)
        except ValueError as error:
            dropped, records = str(error), []
            checkpointer.drop()
            run = self._start(spec, request)
        reported = sum(record.step < request.report_from for record in records)
        self._running = _Running(request, run, checkpointer, records, reported, time.perf_counter() - began)
        return Beginning(records[-1].step if records else 0, dropped)

    def next_epoch(self, spec: WorkerSpec, request: TrialRequest) -> EpochReport:
        """Train one epoch of the trial that was begun and, after the last, write its OOF logits.

        An epoch that the checkpoint holds and the search does not know of is reported instead, without training.
        """
        running = self._running
        if running is None or running.request.trial_id != request.trial_id:
            raise RuntimeError(f"{request.trial_id} was never begun here")
        is_known = running.reported < len(running.records)
        if not is_known:
            trained = running.run.next_epoch()
            running.records.append(replace(trained, seconds=trained.seconds + running.starting))
            running.starting = 0.0
            running.checkpointer.write(running.run, running.records)
        record = running.records[running.reported]
        running.reported += 1
        is_over = running.run.is_done and running.reported == len(running.records)
        # A model that diverged in its last epoch has no OOF logits; the search ends such a trial with the reason.
        is_last = is_over and (request.is_control or math.isfinite(record.log_loss))
        if is_last:
            _finish(spec, running)
            self._running = None
        return EpochReport(EpochDone(trial_id=request.trial_id, **asdict(record)), is_last, is_known)

    def refit(self, spec: WorkerSpec, config: TrialConfig) -> Refit:
        """Fit a configuration on all dev rows and keep its trained tensors in the study."""
        samples, task = open_work(spec)
        began = time.perf_counter()
        network = self._network_of(spec, config, task.classes)
        inputs = open_inputs(config.recipe, network, task, samples.dev)
        fit = Fit(config.recipe, task, samples.dev, REFIT, network.learner(config.recipe.batch_size), inputs)
        for epoch in range(config.recipe.epochs):
            fit.train_epoch(epoch)
        frozen = spec.frozen_hash(config.backbone)
        depot = depot_of(spec)
        with depot.publishing(depot.paths.refit(config.trial_id)):
            write_refit(
                depot.paths,
                config.trial_id,
                trained_arrays(network.model),
                frozen_hash=frozen,
                data_version=samples.version,
            )
        return Refit(config.trial_id, time.perf_counter() - began)

    def score(self, spec: WorkerSpec, config: TrialConfig, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return a refitted member's logits on some rows, (rows, classes)."""
        _, task = open_work(spec)
        depot = depot_of(spec)
        depot.fetch(depot.paths.refit(config.trial_id))
        arrays = read_refit(depot.paths, config.trial_id)
        setup = setup_of(spec, config.backbone)
        model, pictures = rebuild(config, task, setup, arrays)
        return logits_of(model, pictures, rows, setup)

    def measure(self, spec: WorkerSpec, config: TrialConfig) -> Speed:
        """Measure what a configuration costs here."""
        _, task = open_work(spec)
        return measure_speed(config, task.classes, setup_of(spec, config.backbone))

    def screen(self, spec: WorkerSpec, config: TrialConfig) -> Screening:
        """Look at a backbone's features with everything frozen, on at most a few thousand dev rows."""
        samples, task = open_work(spec)
        rows = few_rows(task.labels, samples.dev, SCREENED_ROWS, derive_seed(spec.seed, "screen") % 2**32)
        network = self._network_of(spec, replace(config, freeze=1.0), task.classes)
        return screen(clean_features(network, task, rows), task.labels[rows], samples.folds[rows], task.classes)

    def check_training(self, spec: WorkerSpec, config: TrialConfig) -> TrainingCheck:
        """Check, before anything trains, whether a backbone can learn from these rows and views."""
        samples, task = open_work(spec)
        return check_training(config, task, samples.folds, setup_of(spec, config.backbone))

    def choose_arithmetic(self, spec: WorkerSpec, config: TrialConfig) -> Arithmetic:
        """Measure which arithmetic serves a backbone best here."""
        _, task = open_work(spec)
        return fastest_arithmetic(config, task.classes, setup_of(spec, config.backbone))

    def gpu_memory_mb(self) -> float:
        """Return the memory of the GPU here, MB."""
        return gpu_memory_mb()

    def _start(self, spec: WorkerSpec, request: TrialRequest) -> TrialRun:
        samples, task = open_work(spec)
        config, folds_to_run = request.started.config, samples.num_folds
        if request.is_control:
            task = replace(task, labels=shuffled_labels(samples, spec.seed))
            folds_to_run = 1
        return TrialRun(config, task, samples.folds, self._network_of(spec, config, task.classes), folds_to_run)

    def _network_of(self, spec: WorkerSpec, config: TrialConfig, classes: int) -> Network:
        """Return the configuration's network: the one that is here, if it differs in nothing but how it is trained."""
        setup = setup_of(spec, config.backbone)
        key = (config.backbone, config.resolution, config.freeze, config.recipe.drop_path, classes, spec.seed, setup)
        if self._network is None or self._network[0] != key:
            self._network = None  # frees the last one's memory before the next is built
            self._network = (key, Network(config, classes, spec.seed, setup))
        return self._network[1]


def run_task(worker: TrainWorker, task: str, *args: Any) -> Any:
    """Call one of a worker's methods by its name and return what it returns.

    Raises:
        WorkFailedError: If it raised; what memory does not hold in the smallest portions is not worth another try.
    """
    try:
        return getattr(worker, task)(*args)
    except Exception as error:
        is_hopeless = isinstance(error, ValueError | MemoryError) or is_out_of_memory(error)
        raise WorkFailedError(reason_of(error), "hopeless" if is_hopeless else "error") from error


def _finish(spec: WorkerSpec, running: _Running) -> None:
    """Write what a trial leaves; its checkpoint goes when its end is in the ledger, that of the control here."""
    samples, _ = open_work(spec)
    depot, logits, request = depot_of(spec), running.run.oof_logits(), running.request
    if request.is_control:
        with depot.publishing(depot.paths.control):
            write_control(depot.paths, samples, shuffled_labels(samples, spec.seed), logits)
        running.checkpointer.drop()
        return
    with depot.publishing(depot.paths.oof(request.trial_id)):
        write_oof(depot.paths, request.trial_id, samples, logits)
