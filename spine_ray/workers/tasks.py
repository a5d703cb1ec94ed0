"""Tasks of a pool beside its trials: measuring costs, looking at backbones, refitting members, scoring rows."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from spine_ray.core.cost_profile import Speed
from spine_ray.core.soundness import TrainingCheck
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.pool import WorkerPool
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.worker import Refit


def measure_costs(configs: Sequence[TrialConfig], spec: WorkerSpec, pool: WorkerPool) -> list[Speed | WorkFailure]:
    """Return what each configuration costs on a worker, measured with all workers busy."""
    return pool.map("measure", configs, spec)


def choose_arithmetic(
    configs: Sequence[TrialConfig], spec: WorkerSpec, pool: WorkerPool
) -> list[Arithmetic | WorkFailure]:
    """Return the fastest arithmetic of each configuration's backbone, measured with all workers busy."""
    return pool.map("choose_arithmetic", configs, spec)


def check_backbone(config: TrialConfig, spec: WorkerSpec, pool: WorkerPool) -> TrainingCheck | WorkFailure:
    """Return what is known of a backbone's training before it begins."""
    found: TrainingCheck | WorkFailure = pool.map("check_training", [config], spec)[0]
    return found


def sample_probes(configs: Sequence[TrialConfig], count: int, spec: WorkerSpec, pool: WorkerPool) -> dict[str, float]:
    """Return the log-loss of each probe's head on a random sample of the dev rows, by trial id; failures are missing.

    Args:
        configs: Probes.
        count: Rows of the sample.
        spec: What the workers must know.
        pool: The workers.
    """
    found = zip(configs, pool.map("sample_probe", configs, spec, count), strict=True)
    return {config.trial_id: loss for config, loss in found if isinstance(loss, float)}


def refit_members(
    configs: Sequence[TrialConfig], spec: WorkerSpec, pool: WorkerPool, on_done: Callable[[Refit], None]
) -> list[WorkFailure]:
    """Fit every configuration on all dev rows and keep its trained parameters in the study.

    Args:
        configs: What to fit, each once.
        spec: What the workers must know.
        pool: The workers.
        on_done: Called in this process as each is done.

    Returns:
        What could not be fitted.
    """

    def report(found: Refit | WorkFailure) -> None:
        if isinstance(found, Refit):
            on_done(found)

    results = pool.map("refit", configs, spec, on_done=report)
    return [result for result in results if isinstance(result, WorkFailure)]


def score_rows(
    configs: Sequence[TrialConfig], spec: WorkerSpec, pool: WorkerPool, rows: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.float32]]:
    """Return the logits of refitted members on some rows, (rows, classes) each, in the order of `configs`.

    Raises:
        ValueError: If a member cannot be scored.
    """
    results = pool.map("score", configs, spec, rows)
    for result in results:
        if isinstance(result, WorkFailure):
            raise ValueError(f"{result.config.trial_id} cannot be scored: {result.reason}")
    return results
