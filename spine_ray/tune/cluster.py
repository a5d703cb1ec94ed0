"""Ray, started on this machine or joined at an address, and what one worker of it gets."""

import contextlib
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray

from spine_ray.space.arithmetic import Device
from spine_ray.tune.machines import Nodes, alive_nodes, await_machines
from spine_ray.tune.shape import Shape
from spine_ray.tune.warm import WarmProcess

_OBJECT_STORE_BYTES = 128 * 2**20
"""Hardly used: pixels come from a memory-mapped file."""
_ANSWER_S = 10.0
"""How long a cluster may take to answer at all, s."""
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

    def sharing(self, on_a_gpu: int) -> "Workers":
        """Return the workers if so many share each GPU that holds one of these, as far as its cores go."""
        fits = min(on_a_gpu, self.cpus)
        return Workers(count=self.count * fits, cpus=self.cpus // fits, gpus=self.gpus / fits)

    @property
    def device(self) -> Device:
        """Where a worker trains."""
        return "cuda" if self.gpus > 0 else "cpu"


@contextlib.contextmanager
def running_ray(
    address: str | None, workers: Shape | None, say: Callable[[str], None] = lambda _: None
) -> Iterator[Workers]:
    """Start ray in this process, or join a cluster, for the time of the block.

    Args:
        address: A running cluster, or None to start on this machine.
        workers: Trials at once, or GPUs or cores, which a cluster that grows is waited for; None for what the machine
            or cluster holds.
        say: Told what is waited for.

    Raises:
        ValueError: If no cluster answers at the address, or so many workers cannot be had.
    """
    with joined(address):
        if address is not None:
            workers = _there(address, workers, say)
        yield hired(share(alive_nodes(), workers))


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[None]:
    """Start ray in this process, or join a cluster, for the time of the block; hire nobody.

    Raises:
        ValueError: If no cluster answers at the address.
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
            _knock(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except OSError as error:
            locked = ": it wants its token (RAY_AUTH_MODE=token)" if "InvalidAuthToken" in str(error.__cause__) else ""
            raise ValueError(f"--address {address}: no Ray cluster answers there{locked}") from error
    signal.signal(signal.SIGTERM, sigterm)  # ray has put its own handler there, which aborts
    try:
        yield
    finally:
        _shut_down(sigterm)


def _knock(address: str) -> None:
    """See whether anybody listens at an address such as 10.0.0.1:6379: ray itself goes on asking for minutes.

    Raises:
        OSError: If nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()


def _shut_down(sigterm: Any) -> None:
    """End ray while this process still heeds SIGTERM: somewhere on the way ray gives its place back to the system."""
    closing = threading.Thread(target=ray.shutdown, name="ray shutdown")
    closing.start()
    while closing.is_alive():
        signal.signal(signal.SIGTERM, sigterm)
        closing.join(_PAUSE_S)
    signal.signal(signal.SIGTERM, sigterm)


def _there(address: str, workers: Shape | None, say: Callable[[str], None]) -> Shape | None:
    """Return what is there of the workers that were asked for, once it is."""
    if workers is not None and workers.device is not None:
        return await_machines(workers, say)
    if not any(node.get("CPU", 0) >= 1 for node in alive_nodes()):
        raise ValueError(
            f"--address {address}: the cluster has no machine that trains; --workers 4xGPU or 16xCPU asks it for some"
        )
    return workers


def hired_anew(workers: Workers, before: Workers) -> Workers:
    """Let workers go and hire others in their place."""
    for each in before.crew:
        ray.kill(each, no_restart=True)
    return hired(workers)


def hired(workers: Workers) -> Workers:
    """Start the warm workers; they import in the background and come back by themselves when they die."""
    each: Any = ray.remote(WarmProcess).options(
        num_cpus=workers.bundles[0], num_gpus=workers.gpus, max_restarts=-1, max_task_retries=_DEATHS
    )
    return replace(workers, crew=tuple(each.remote() for _ in range(workers.count)))


def share(nodes: Nodes, workers: Shape | None) -> Workers:
    """Divide what there is among the workers, each of which lies on one node.

    Without GPUs every worker gets the same whole number of cores (two one-thread trials beat one two-thread
    trial); with GPUs there is one worker a GPU unless more are asked for, they share, and nodes without any hold none.

    Args:
        nodes: What each offers, as Ray names it; a node without cores, such as a head that only directs, holds none.
        workers: How many are asked for, and on what; None for what there is.

    Raises:
        ValueError: If more are asked for than there are cores to hold them, or on a GPU where there is none.
    """
    wanted = None if workers is None else workers.device
    offers = [(int(node.get("CPU", 0)), int(node.get("GPU", 0)) if wanted != "cpu" else 0) for node in nodes]
    gpus = sum(own for cpus, own in offers if cpus)
    offers = [(cpus, own) for cpus, own in offers if cpus and (own or not gpus)] or [(1, 0)]
    most = sum(cpus for cpus, _ in offers)
    whole = sum(min(offer) for offer in offers) if gpus else most
    count = whole if workers is None else workers.count
    if wanted == "cuda" and count > gpus:
        raise ValueError(f"--workers {workers}: there are {gpus} GPUs")
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
