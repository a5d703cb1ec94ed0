"""What the crew does besides trials: measuring costs, fitting members once more, scoring rows."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from spine_ray.core.probe import Speed
from spine_ray.core.screen import Screening
from spine_ray.core.soundness import TrainingCheck
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.tune.cluster import Workers
from spine_ray.tune.failures import failure_of
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.worker import Refit


@dataclass(frozen=True, slots=True)
class Undone:
    """A piece of work that no worker could do, and why; its workers' deaths are forgiven before."""

    config: TrialConfig
    reason: str


def measure_costs(configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers) -> list[Speed | Undone]:
    """Return what each configuration costs on a worker, measured with all workers busy."""
    return _each("measure", configs, order, workers)


def choose_arithmetic(configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers) -> list[Arithmetic | Undone]:
    """Return the fastest arithmetic of each configuration's backbone, measured with all workers busy."""
    return _each("choose_arithmetic", configs, order, workers)


def screen_backbones(configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers) -> list[Screening | Undone]:
    """Return what each backbone's features say with everything frozen."""
    return _each("screen", configs, order, workers)


def check_backbone(config: TrialConfig, order: WorkOrder, workers: Workers) -> TrainingCheck | Undone:
    """Return what is known of a backbone's training before it begins."""
    found: TrainingCheck | Undone = _each("check_training", [config], order, workers)[0]
    return found


def refit_members(
    configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers, on_done: Callable[[Refit], None]
) -> list[Undone]:
    """Fit every configuration on all dev rows and keep its trained parameters in the study.

    Args:
        configs: What to fit, each once.
        order: What the workers need to know.
        workers: Who fits.
        on_done: Called in this process as each is done.

    Returns:
        What could not be fitted.
    """

    def told(found: Refit | Undone) -> None:
        if isinstance(found, Refit):
            on_done(found)

    found = _each("refit", configs, order, workers, on_done=told)
    return [each for each in found if isinstance(each, Undone)]


def score_rows(
    configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers, rows: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    """Return the logits of refitted members on some rows, (rows, classes) each, in the order of `configs`.

    Raises:
        ValueError: If a member cannot be scored.
    """
    found = _each("score", configs, order, workers, rows)
    for each in found:
        if isinstance(each, Undone):
            raise ValueError(f"{each.config.trial_id} cannot be scored: {each.reason}")
    return found


def gpu_memory_mb(workers: Workers) -> float:
    """Return the memory of the smallest GPU that a worker has, MB.

    Raises:
        ValueError: If a worker cannot say.
    """
    try:
        return float(min(ray.get([worker.do.remote("gpu_memory_mb") for worker in workers.crew])))
    except ray.exceptions.RayError as error:
        raise ValueError(f"a GPU's memory cannot be read: {failure_of(error).reason}") from error


def _each(
    work: str,
    configs: Sequence[TrialConfig],
    order: WorkOrder,
    workers: Workers,
    *more: Any,
    on_done: Callable[[Any], None] = lambda _: None,
) -> list[Any]:
    """Have work done for every configuration, each worker taking up the next when its last is done.

    Returns:
        What the worker returned, or an `Undone`, in the order of `configs`.
    """
    waiting, idle = deque(enumerate(configs)), list(reversed(workers.crew))
    running: dict[Any, tuple[int, Any]] = {}
    found: list[Any] = [None] * len(configs)
    while waiting or running:
        while waiting and idle:
            place, config = waiting.popleft()
            worker = idle.pop()
            running[worker.do.remote(work, order, config, *more)] = (place, worker)
        (ready, *_), _ = ray.wait(list(running))
        place, worker = running.pop(ready)
        idle.append(worker)
        try:
            found[place] = ray.get(ready)
        except ray.exceptions.RayError as error:
            found[place] = Undone(configs[place], failure_of(error).reason)
        on_done(found[place])
    return found
