"""Which pool a search runs on. The only module of this room that knows that there is a room of Ray."""

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager

from spine_ray.climb.request import SearchRequest
from spine_ray.workers.in_process import in_process_pool
from spine_ray.workers.layout import divide, this_machine
from spine_ray.workers.pool import WorkerPool


def check_pool(request: SearchRequest) -> None:
    """Refuse workers that cannot be had here, before anything is written.

    Raises:
        ValueError: If there are too few cores or GPUs, Ray is not installed, or a cluster should be this process.
    """
    is_in_process = request.workers is not None and request.workers.is_in_process
    if is_in_process and request.address is not None:
        raise ValueError(f"--workers 0 runs in this process, not on the cluster at {request.address}; leave one away")
    if not is_in_process and importlib.util.find_spec("ray") is None:
        raise ValueError("Ray is not installed: pip install 'ray[tune]', or search in this process with --workers 0")
    if request.address is None:
        divide(this_machine(), request.workers)


def open_pool(request: SearchRequest, say: Callable[[str], None]) -> AbstractContextManager[WorkerPool]:
    """Return the pool that was asked for, to be entered."""
    if request.workers is not None and request.workers.is_in_process:
        return in_process_pool(divide(this_machine(), request.workers))
    from spine_ray.tune.ray_pool import ray_pool  # only here: Ray may not be installed

    return ray_pool(request.address, request.workers, say)
