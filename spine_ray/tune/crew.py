"""What the crew does besides trials: measuring costs, fitting members once more, scoring rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.util import ActorPool

from spine_ray.core.probe import Speed
from spine_ray.core.screen import Screening
from spine_ray.core.soundness import TrainingCheck
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.tune.cluster import Workers
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.worker import Refit


def measure_costs(configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers) -> list[Speed]:
    """Return what each configuration costs on a worker, measured with all workers busy."""
    pool = _pool(workers)
    return list(pool.map(lambda worker, config: worker.do.remote("measure", order, config), list(configs)))


def choose_arithmetic(configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers) -> list[Arithmetic]:
    """Return the fastest arithmetic of each configuration's backbone, measured with all workers busy."""
    pool = _pool(workers)
    return list(pool.map(lambda worker, config: worker.do.remote("choose_arithmetic", order, config), list(configs)))


def screen_backbones(configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers) -> list[Screening]:
    """Return what each backbone's features say with everything frozen."""
    pool = _pool(workers)
    return list(pool.map(lambda worker, config: worker.do.remote("screen", order, config), list(configs)))


def check_backbone(config: TrialConfig, order: WorkOrder, workers: Workers) -> TrainingCheck:
    """Return what is known of a backbone's training before it begins."""
    found: TrainingCheck = ray.get(workers.crew[0].do.remote("check_training", order, config))
    return found


def refit_members(
    configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers, on_done: Callable[[Refit], None]
) -> None:
    """Fit every configuration on all dev rows and keep its trained parameters in the study.

    Args:
        configs: What to fit, each once.
        order: What the workers need to know.
        workers: Who fits.
        on_done: Called in this process as each is done.
    """
    pool = _pool(workers)
    for refit in pool.map_unordered(lambda worker, config: worker.do.remote("refit", order, config), list(configs)):
        on_done(refit)


def score_rows(
    configs: Sequence[TrialConfig], order: WorkOrder, workers: Workers, rows: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    """Return the logits of refitted members on some rows, (rows, classes) each, in the order of `configs`."""
    pool = _pool(workers)
    return list(pool.map(lambda worker, config: worker.do.remote("score", order, config, rows), list(configs)))


def _pool(workers: Workers) -> Any:
    """Return ray's pool of the crew: each takes the next piece of work when it has done its last."""
    return ActorPool(list(workers.crew))
