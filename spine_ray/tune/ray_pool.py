"""The pool of warm workers on Ray: started on this machine, or joined at an address."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

from spine_ray.data.places import Place
from spine_ray.sampling.queue import Refusal
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import Event
from spine_ray.tune.cluster import joined
from spine_ray.tune.machines import alive_nodes, await_machines
from spine_ray.tune.node import serve_files
from spine_ray.tune.node_check import check_nodes
from spine_ray.tune.ray_errors import failure_of
from spine_ray.tune.tuner import run_tuner
from spine_ray.tune.worker_actor import WorkerActor
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.layout import PoolLayout, divide
from spine_ray.workers.pool import Task
from spine_ray.workers.request import WorkerRequest
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.worker_data import DecodeRequest

_DEATHS = 3
"""Times that a task is handed to a worker's successor, where ray can do so without loss."""


@contextlib.contextmanager
def ray_pool(
    address: str | None, workers: WorkerRequest | None, say: Callable[[str], None] = lambda _: None
) -> Iterator["RayPool"]:
    """Start Ray in this process, or join a cluster, for the time of the block.

    Args:
        address: A running cluster, or None to start on this machine.
        workers: Trials at once, or GPUs or cores, which a cluster that grows is waited for; None for what the machine
            or cluster holds.
        say: Called with a line for whoever waits.

    Raises:
        ValueError: If no cluster answers at the address, or so many workers cannot be had.
    """
    with joined(address):
        if address is not None:
            workers = _wait_for(address, workers, say)
        yield RayPool(divide(alive_nodes(), workers), say, has_other_nodes=address is not None)


class RayPool:
    """Warm workers, each a process; a trial runs on one of them: a `WorkerPool`.

    Args:
        layout: How many, and what each has.
        say: Called with a line on each node of a cluster.
        has_other_nodes: Whether workers may be on other machines.
    """

    def __init__(self, layout: PoolLayout, say: Callable[[str], None], *, has_other_nodes: bool) -> None:
        """Start the workers, which import in the background and come back by themselves when they die."""
        self._say, self._has_other_nodes = say, has_other_nodes
        self._layout, self._actors = layout, _started(layout)

    @property
    def layout(self) -> PoolLayout:
        """The number of workers and the resources of each."""
        return self._layout

    @property
    def actors(self) -> tuple[Any, ...]:
        """Handles of the workers."""
        return self._actors

    def resize(self, layout: PoolLayout) -> None:
        """Let the workers go and start others in their place."""
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        self._layout, self._actors = layout, _started(layout)

    def connect(self, spec: WorkerSpec, pictures: DecodeRequest, data: str | None) -> WorkerSpec:
        """Look at every node of a cluster, a line each, and return how they get this machine's files.

        Raises:
            ValueError: If a node is not ready.
        """
        if not self._has_other_nodes:
            return spec
        spec = serve_files(spec, pictures)
        reports = check_nodes(spec, None if data is None else Place.of(data).uri)
        for report in reports:
            self._say(report.line)
        broken = [report for report in reports if report.problems]
        if broken:
            raise ValueError(
                f"{len(broken)} of {len(reports)} nodes are not ready, first {broken[0].name}: {broken[0].problems[0]}"
            )
        return spec

    def map(
        self,
        task: Task,
        configs: Sequence[TrialConfig],
        spec: WorkerSpec,
        *args: Any,
        on_done: Callable[[Any], None] = lambda _: None,
    ) -> list[Any]:
        """Run a task for every configuration; each worker takes up the next when its last is done."""
        waiting, idle = deque(enumerate(configs)), list(reversed(self._actors))
        running: dict[Any, tuple[int, Any]] = {}
        results: list[Any] = [None] * len(configs)
        while waiting or running:
            while waiting and idle:
                index, config = waiting.popleft()
                actor = idle.pop()
                running[actor.do.remote(task, spec, config, *args)] = (index, actor)
            (ready, *_), _ = ray.wait(list(running))
            index, actor = running.pop(ready)
            idle.append(actor)
            try:
                results[index] = ray.get(ready)
            except ray.exceptions.RayError as error:
                results[index] = WorkFailure(configs[index], failure_of(error).reason)
            on_done(results[index])
        return results

    def run_tier(self, plan: TierPlan, spec: WorkerSpec, on_event: Callable[[Event], None]) -> tuple[Refusal, ...]:
        """Run a tier as one Tuner."""
        return run_tuner(plan, spec, self._actors, _shares(self._layout)[1], on_event)

    def gpu_memory_mb(self) -> float:
        """Return the memory of the smallest GPU that a worker has, MB.

        Raises:
            ValueError: If a worker cannot say.
        """
        try:
            return float(min(ray.get([actor.do.remote("gpu_memory_mb") for actor in self._actors])))
        except ray.exceptions.RayError as error:
            raise ValueError(f"a GPU's memory cannot be read: {failure_of(error).reason}") from error


def _started(layout: PoolLayout) -> tuple[Any, ...]:
    actor: Any = ray.remote(WorkerActor).options(
        num_cpus=_shares(layout)[0], num_gpus=layout.gpus, max_restarts=-1, max_task_retries=_DEATHS
    )
    return tuple(actor.remote() for _ in range(layout.count))


def _shares(layout: PoolLayout) -> tuple[float, float]:
    """Return the CPUs of a warm worker and of the thin process that runs a trial on it: together a worker's share."""
    return (0.5, 0.5) if layout.cpus == 1 else (layout.cpus - 1, 1)


def _wait_for(address: str, workers: WorkerRequest | None, say: Callable[[str], None]) -> WorkerRequest | None:
    """Return what is there of the workers that were asked for, once it is."""
    if workers is not None and workers.device is not None:
        return await_machines(workers, say)
    if not any(node.get("CPU", 0) >= 1 for node in alive_nodes()):
        raise ValueError(
            f"--address {address}: the cluster has no machine that trains; --workers 4xGPU or 16xCPU asks it for some"
        )
    return workers
