"""The worker: trains trials an epoch at a time, measures costs, refits and scores members."""

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.core.activations import open_inputs
from spine_ray.core.cost_profile import Speed, fastest_arithmetic, measure_speed
from spine_ray.core.epoch_record import EpochRecord
from spine_ray.core.fit import Fit
from spine_ray.core.linear_head import LinearHead
from spine_ray.core.memory import gpu_memory_mb, is_out_of_memory
from spine_ray.core.network import Network
from spine_ray.core.probe import ProbeRun, refitted_head, sampled_log_loss
from spine_ray.core.score import logits_of
from spine_ray.core.ship import REFIT, rebuild, refit_arrays
from spine_ray.core.soundness import TrainingCheck, check_training
from spine_ray.core.task import Task
from spine_ray.core.trial import TrialRun
from spine_ray.data.samples import Samples
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.study.control import write_control
from spine_ray.study.events import EpochDone
from spine_ray.study.oof import write_oof
from spine_ray.study.shipped import read_heads, read_refit, write_heads, write_refit
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
    run: TrialRun | ProbeRun
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
        if config.is_probe:
            network = self._network_of(spec, config, task.classes)
            network.put_head(refitted_head(task, samples.dev, network))
        else:
            network = self._fitted(spec, config, samples, task)
        depot = depot_of(spec)
        with depot.publishing(depot.paths.refit(config.trial_id)):
            write_refit(
                depot.paths,
                config.trial_id,
                refit_arrays(network.model, config),
                frozen_hash=spec.frozen_hash(config.backbone),
                data_version=samples.version,
            )
        return Refit(config.trial_id, time.perf_counter() - began)

    def score(self, spec: WorkerSpec, config: TrialConfig, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return a refitted member's logits on some rows, (rows, classes)."""
        _, task = open_work(spec)
        depot = depot_of(spec)
        depot.fetch(depot.paths.refit(config.trial_id))
        arrays = read_refit(depot.paths, config.trial_id)
        setup = setup_of(spec, config)
        model, pictures = rebuild(config, task, setup, arrays)
        return logits_of(model, pictures, rows, setup)

    def measure(self, spec: WorkerSpec, config: TrialConfig) -> Speed:
        """Measure what a configuration costs here."""
        _, task = open_work(spec)
        return measure_speed(config, task.classes, setup_of(spec, config))

    def sample_probe(self, spec: WorkerSpec, config: TrialConfig, count: int) -> float:
        """Return the log-loss of a probe's head on a random sample of the dev rows."""
        samples, task = open_work(spec)
        return sampled_log_loss(task, samples.dev, self._network_of(spec, config, task.classes), count)

    def check_training(self, spec: WorkerSpec, config: TrialConfig) -> TrainingCheck:
        """Check, before anything trains, whether a backbone can learn from these rows and views."""
        samples, task = open_work(spec)
        return check_training(config, task, samples.folds, setup_of(spec, config))

    def choose_arithmetic(self, spec: WorkerSpec, config: TrialConfig) -> Arithmetic:
        """Measure which arithmetic serves a backbone best here."""
        _, task = open_work(spec)
        return fastest_arithmetic(config, task.classes, setup_of(spec, config))

    def gpu_memory_mb(self) -> float:
        """Return the memory of the GPU here, MB."""
        return gpu_memory_mb()

    def _start(self, spec: WorkerSpec, request: TrialRequest) -> TrialRun | ProbeRun:
        samples, task = open_work(spec)
        config, folds_to_run = request.started.config, samples.num_folds
        heads: dict[int, LinearHead] = {}
        if request.is_control:
            task = replace(task, labels=shuffled_labels(samples, spec.seed))
            folds_to_run = 1
        elif not config.is_probe:
            heads = self._fold_heads(spec, config, samples, task)
        network = self._network_of(spec, config, task.classes)
        if config.is_probe:
            return ProbeRun(task, samples.folds, network, folds_to_run)
        return TrialRun(config, task, samples.folds, network, folds_to_run, heads)

    def _fold_heads(self, spec: WorkerSpec, config: TrialConfig, samples: Samples, task: Task) -> dict[int, LinearHead]:
        """Return the heads with which the folds of a fine-tune begin: those of its probe, solved again if missing.

        None with random weights, of which a head knows nothing, and where the classifier is not one linear layer.
        """
        if spec.weights_file(config.backbone) is None:
            return {}
        probe, depot = probe_config(config.backbone, config.resolution), depot_of(spec)
        frozen = spec.frozen_hash(config.backbone)
        depot.fetch(depot.paths.probe_heads(probe.trial_id))
        kept = read_heads(depot.paths, probe.trial_id, frozen_hash=frozen, data_version=samples.version)
        if len(kept) == samples.num_folds:
            return {fold: LinearHead(weight=weight, bias=bias) for fold, (weight, bias) in kept.items()}
        network = self._network_of(spec, probe, task.classes)
        if not network.can_be_probed:
            return {}
        run = ProbeRun(task, samples.folds, network, samples.num_folds)
        run.next_epoch()
        _keep_heads(spec, probe, run, samples)
        return dict(run.heads)

    def _fitted(self, spec: WorkerSpec, config: TrialConfig, samples: Samples, task: Task) -> Network:
        """Return a fine-tune's network, fitted on all dev rows from the head that was solved on all of them."""
        head, recipe = self._head_on_all(spec, config, samples, task), config.training
        network = self._network_of(spec, config, task.classes)
        inputs = open_inputs(recipe, network, task, samples.dev)
        learner = network.learner(recipe.batch_size)
        if head is not None:
            network.put_head(head)
        fit = Fit(recipe, task, samples.dev, REFIT, learner, inputs)
        for epoch in range(recipe.epochs):
            fit.train_epoch(epoch)
        return network

    def _head_on_all(self, spec: WorkerSpec, config: TrialConfig, samples: Samples, task: Task) -> LinearHead | None:
        """Return the head solved on all dev rows with which a refit begins; None where `_fold_heads` has none."""
        if spec.weights_file(config.backbone) is None:
            return None
        network = self._network_of(spec, probe_config(config.backbone, config.resolution), task.classes)
        return refitted_head(task, samples.dev, network) if network.can_be_probed else None

    def _network_of(self, spec: WorkerSpec, config: TrialConfig, classes: int) -> Network:
        """Return the configuration's network: the one that is here, if it differs in nothing but how it is trained."""
        setup = setup_of(spec, config)
        built = None if config.is_probe else (config.training.drop_path, config.training.batch_norm)
        key = (config.backbone, config.resolution, config.freeze, built, classes, spec.seed, setup)
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
    if isinstance(running.run, ProbeRun):
        _keep_heads(spec, request.started.config, running.run, samples)
    with depot.publishing(depot.paths.oof(request.trial_id)):
        write_oof(depot.paths, request.trial_id, samples, logits)


def _keep_heads(spec: WorkerSpec, probe: TrialConfig, run: ProbeRun, samples: Samples) -> None:
    """Write the heads of a probe, where this process has solved them."""
    if not run.heads:
        return
    depot = depot_of(spec)
    with depot.publishing(depot.paths.probe_heads(probe.trial_id)):
        write_heads(
            depot.paths,
            probe.trial_id,
            {fold: (head.weight, head.bias) for fold, head in run.heads.items()},
            frozen_hash=spec.frozen_hash(probe.backbone),
            data_version=samples.version,
        )
