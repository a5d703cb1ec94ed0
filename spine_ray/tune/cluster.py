"""Ray, started on this machine or joined at an address, and what one worker of it gets."""

import contextlib
import logging
import math
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from spine_ray.tune.warm import WarmProcess

_OBJECT_STORE_BYTES = 128 * 2**20
"""Hardly used: pixels come from a memory-mapped file."""


_PAUSE_S = 0.02
_DEATHS = 3
"""Times that a piece of work is handed to a worker's successor, where ray can do so without loss."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How many trials run at once and what each of them gets."""

    count: int
    cpus: int
    gpus: float
    crew: tuple[Any, ...] = ()
    """Handles of the warm workers, `count` of them."""

    @property
    def bundles(self) -> tuple[float, float]:
        """CPUs of a warm worker and of the thin process that runs a trial on it: together a worker's share."""
        return (0.5, 0.5) if self.cpus == 1 else (self.cpus - 1, 1)

    @property
    def device(self) -> str:
        """Where a worker trains."""
        return "cuda" if self.gpus > 0 else "cpu"


@contextlib.contextmanager
def running_ray(address: str | None, workers: int | None) -> Iterator[Workers]:
    """Start ray in this process, or join a cluster, for the time of the block.

    Args:
        address: A running cluster, or None to start on this machine.
        workers: Trials at once; None for what the machine or cluster holds.

    Raises:
        ValueError: If no cluster answers at the address, or so many workers cannot be had.
    """
    sigterm = signal.getsignal(signal.SIGTERM)
    if address is None:
        ray.init(
            address="local",  # else it would join whatever cluster was started on this machine
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    else:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except ConnectionError as error:
            raise ValueError(f"--address {address}: no Ray cluster answers there") from error
    signal.signal(signal.SIGTERM, sigterm)  # ray has put its own handler there, which aborts
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        shared = share(nodes, workers)
        yield replace(shared, crew=_hire(shared))
    finally:
        _shut_down(sigterm)


def _shut_down(sigterm: Any) -> None:
    """End ray while this process still heeds SIGTERM: somewhere on the way ray gives its place back to the system."""
    closing = threading.Thread(target=ray.shutdown, name="ray shutdown")
    closing.start()
    while closing.is_alive():
        signal.signal(signal.SIGTERM, sigterm)
        closing.join(_PAUSE_S)
    signal.signal(signal.SIGTERM, sigterm)


def _hire(workers: Workers) -> tuple[Any, ...]:
    """Start the warm workers; they import in the background and come back by themselves when they die."""
    hired: Any = ray.remote(WarmProcess).options(
        num_cpus=workers.bundles[0], num_gpus=workers.gpus, max_restarts=-1, max_task_retries=_DEATHS
    )
    return tuple(hired.remote() for _ in range(workers.count))


def share(nodes: Sequence[Mapping[str, float]], workers: int | None) -> Workers:
    """Divide what there is among the workers, each of which lies on one node.

    Without GPUs every worker gets the same whole number of cores (two one-thread trials beat one two-thread
    trial); with GPUs there is one worker a GPU unless more are asked for, they share, and nodes without any hold none.

    Args:
        nodes: What each offers, as Ray names it; a node without cores, such as a head that only directs, holds none.
        workers: How many are asked for; None for what there is.

    Raises:
        ValueError: If fewer than one worker is asked for, or more than there are cores to hold them.
    """
    offers = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    gpus = sum(own for cpus, own in offers if cpus)
    offers = [(cpus, own) for cpus, own in offers if cpus and (own or not gpus)] or [(1, 0)]
    most = sum(cpus for cpus, _ in offers)
    count = workers if workers is not None else min(gpus or most, most)
    if not 1 <= count <= most:
        raise ValueError(f"--workers must be 1 to {most} (the cores there are), not {count}")
    # A worker's share lies on one GPU, so the fullest GPU decides: 3 workers on 2 GPUs get half of one each.
    on_a_gpu = math.ceil(count / gpus) if gpus else count
    while True:
        cores = [each for each in range(1, most + 1) if _held(offers, each, on_a_gpu, has_gpus=gpus > 0) >= count]
        if cores:
            return Workers(count=count, cpus=max(cores), gpus=1.0 / on_a_gpu if gpus else 0.0)
        on_a_gpu += 1


def _held(offers: Sequence[tuple[int, int]], cores: int, on_a_gpu: int, *, has_gpus: bool) -> int:
    """Return how many workers of some cores the nodes hold."""
    return sum(min(cpus // cores, gpus * on_a_gpu if has_gpus else cpus) for cpus, gpus in offers)
