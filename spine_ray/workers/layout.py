"""Division of a machine's or cluster's cores and GPUs among workers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import joblib
import torch

from spine_ray.space.arithmetic import Device
from spine_ray.workers.request import WorkerRequest

Nodes = Sequence[Mapping[str, float]]
"""The resources of each node: `CPU` and `GPU`, as Ray names them."""


@dataclass(frozen=True, slots=True)
class PoolLayout:
    """The number of workers and the resources of each."""

    count: int
    cpus: int
    """Cores, and threads, of a worker."""
    gpus: float
    """GPUs of a worker; a fraction where several share one."""

    def sharing(self, on_a_gpu: int) -> "PoolLayout":
        """Return the layout if so many workers share each GPU that holds one of these, as far as its cores go."""
        fits = min(on_a_gpu, self.cpus)
        return PoolLayout(count=self.count * fits, cpus=self.cpus // fits, gpus=self.gpus / fits)

    @property
    def device(self) -> Device:
        """The device on which a worker trains."""
        return "cuda" if self.gpus > 0 else "cpu"


def cores_here() -> int:
    """Return how many cores this process may use, by its affinity and its container's quota."""
    return int(joblib.cpu_count())


def this_machine() -> Nodes:
    """Return what this process may use of its machine as the resources of one node."""
    return [{"CPU": float(cores_here()), "GPU": float(torch.cuda.device_count())}]


def divide(nodes: Nodes, workers: WorkerRequest | None) -> PoolLayout:
    """Divide what there is among the workers, each of which lies on one node.

    Without GPUs every worker gets the same whole number of cores (two one-thread trials beat one two-thread
    trial); with GPUs there is one worker a GPU unless more are asked for, they share, and nodes without any hold none.
    In this process there is one worker, with what a single one of Ray would have.

    Args:
        nodes: What each offers; a node without cores, such as a head that only directs, holds none.
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
    count = whole if workers is None else max(1, workers.count)
    if wanted == "cuda" and count > gpus:
        raise ValueError(f"--workers {workers}: there are {gpus} GPUs")
    if count > most:
        raise ValueError(f"--workers must be 0 to {most} (the cores there are; 0: in this process), not {count}")
    # A worker's share lies on one GPU, so the fullest GPU decides: 3 workers on 2 GPUs get half of one each.
    on_a_gpu = math.ceil(count / gpus) if gpus else count
    while True:
        cores = [each for each in range(1, most + 1) if _held(offers, each, on_a_gpu, has_gpus=gpus > 0) >= count]
        if cores:
            return PoolLayout(count=count, cpus=max(cores), gpus=1.0 / on_a_gpu if gpus else 0.0)
        on_a_gpu += 1


def _held(offers: Sequence[tuple[int, int]], cores: int, on_a_gpu: int, *, has_gpus: bool) -> int:
    """Return how many workers of some cores the nodes hold."""
    return sum(min(cpus // cores, gpus * on_a_gpu if has_gpus else cpus) for cpus, gpus in offers)
