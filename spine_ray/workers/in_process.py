"""The pool without Ray: one worker, which is this process. For small data, debugging, notebooks and tests."""

import bdb
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from spine_ray.core.memory import gpu_memory_mb
from spine_ray.sampling.queue import QueuedTrial, Refusal, TrialQueue
from spine_ray.sampling.stopping import StoppingRule
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import Event
from spine_ray.workers.failures import WorkFailedError, WorkFailure
from spine_ray.workers.layout import PoolLayout
from spine_ray.workers.pool import Task
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_log import TrialLog, dropping_checkpoints, outcome_of, trial_request
from spine_ray.workers.trial_steps import Beginning, EpochReport, StepReport, TrialRequest, TrialSteps
from spine_ray.workers.worker import TrainWorker, run_task
from spine_ray.workers.worker_data import DecodeRequest, depot_of


@contextlib.contextmanager
def in_process_pool(layout: PoolLayout) -> Iterator["InProcessPool"]:
    """Yield a pool of this process; afterwards torch has the threads that it had before."""
    threads = torch.get_num_threads()
    try:
        yield InProcessPool(layout)
    finally:
        torch.set_num_threads(threads)


class InProcessPool:
    """Runs everything one after the other in this process: a `WorkerPool`.

    A worker that hangs is not ended here, and memory that runs out ends the search: what is finished is kept.

    Args:
        layout: Of one worker.
    """

    def __init__(self, layout: PoolLayout) -> None:
        """Train nothing yet."""
        self.resize(layout)

    @property
    def layout(self) -> PoolLayout:
        """The resources of this process."""
        return self._layout

    def resize(self, layout: PoolLayout) -> None:
        """Take another layout of one worker.

        Raises:
            ValueError: If it is of several.
        """
        if layout.count != 1:
            raise ValueError(f"this process is one worker, not {layout.count}")
        self._layout = layout
        self._worker = TrainWorker()

    def connect(self, spec: WorkerSpec, pictures: DecodeRequest, data: str | None) -> WorkerSpec:
        """Return the spec as it is: there is no other machine."""
        return spec

    def map(
        self,
        task: Task,
        configs: Sequence[TrialConfig],
        spec: WorkerSpec,
        *args: Any,
        on_done: Callable[[Any], None] = lambda _: None,
    ) -> list[Any]:
        """Do a task for one configuration after the other."""
        results: list[Any] = []
        for config in configs:
            try:
                results.append(self.run(task, spec, config, *args))
            except WorkFailedError as failure:
                results.append(WorkFailure(config, failure.reason))
            on_done(results[-1])
        return results

    def run(self, task: str, *args: Any) -> Any:
        """Call one of the worker's methods.

        Raises:
            WorkFailedError: If it raised; the next task has a new worker.
            KeyboardInterrupt: If a debugger was left.
        """
        try:
            return run_task(self._worker, task, *args)
        except WorkFailedError as failure:
            self._worker = TrainWorker()
            if isinstance(failure.__cause__, bdb.BdbQuit):
                raise KeyboardInterrupt from failure
            raise

    def run_tier(self, plan: TierPlan, spec: WorkerSpec, on_event: Callable[[Event], None]) -> tuple[Refusal, ...]:
        """Run a tier's trials one after the other, and the control where it is due."""
        record = dropping_checkpoints(on_event, depot_of(spec))
        queue = plan.queue(time.time)
        run = _TierRun(plan, queue, TrialLog(record, plan.interrupted), self, spec)
        while (queued := queue.next_trial()) is not None:
            run.train(queued)
        return queue.refusals

    def gpu_memory_mb(self) -> float:
        """Return the memory of the GPU here, MB."""
        return gpu_memory_mb()


class _TierRun:
    """Trains the trials of a tier one at a time."""

    def __init__(self, plan: TierPlan, queue: TrialQueue, log: TrialLog, pool: InProcessPool, spec: WorkerSpec) -> None:
        self._plan, self._queue, self._log, self._pool, self._spec = plan, queue, log, pool, spec
        self._rule: StoppingRule = plan.stopping_rule(time.time)

    def train(self, queued: QueuedTrial) -> None:
        """Train one trial until it is complete, stopped or given up."""
        request = trial_request(self._plan, queued)
        if not request.is_control:
            self._log.start(request.started)
        steps = TrialSteps(request, _Worker(self._pool, self._spec), pause=0.0)
        while True:
            report = steps.next()
            reason = self._why_stop(request, report)
            if not request.is_control:
                self._log.step(request.trial_id, report)
            if report.is_last or reason is not None:
                break
        if not request.is_control:
            self._log.end(request.trial_id, report.status, report.failure or reason or "")
            self._queue.suggester.tell(outcome_of(queued.config, report))

    def _why_stop(self, request: TrialRequest, report: StepReport) -> str | None:
        if report.is_last or report.done is None:
            return None
        if request.is_control:
            return "the budget is spent" if self._rule.is_over else None
        return self._rule.why_stop(request.started, report.done.epoch)


class _Worker:
    """The pool's worker as `TrialSteps` calls it."""

    def __init__(self, pool: InProcessPool, spec: WorkerSpec) -> None:
        self._pool, self._spec = pool, spec

    def begin(self, request: TrialRequest) -> Beginning:
        begun: Beginning = self._pool.run("begin", self._spec, request)
        return begun

    def next_epoch(self, request: TrialRequest) -> EpochReport:
        done: EpochReport = self._pool.run("next_epoch", self._spec, request)
        return done
