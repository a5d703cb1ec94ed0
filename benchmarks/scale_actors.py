"""Ray Tune's own part of the driver's time: a real tier on real actors that train nothing and answer at once.

`run_tuner` is the search's own. All warm workers are one process that says what kept curves say; in front of it stands
one thin process a worker, as in a search. Suggestions are drawn blindly, so what is measured is Ray and the loop around
it.
"""

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from benchmarks.curves import Curves
from spine_ray.sampling.queue import SearchDomain
from spine_ray.sampling.sampler import random_suggest
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import Space
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted
from spine_ray.tune.tuner import run_tuner
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import Beginning, EpochReport, TrialRequest

THIN_CPUS = 0.5
"""Of the thin process in front of a worker, as in a search whose workers have one core each."""


class Told:
    """Answers as a warm worker does, with epochs that nobody trained."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self._left: dict[str, Sequence[EpochDone]] = {}

    def do(self, task: str, spec: WorkerSpec, request: TrialRequest) -> Beginning | EpochReport:
        """Begin a trial, or say how its next epoch went."""
        if task == "begin":
            self._left[request.trial_id] = self._curves.draw(request.started.config, 0, 1.0)
            return Beginning(0, "")
        epoch, *left = self._left.pop(request.trial_id)
        if left:
            self._left[request.trial_id] = left
        return EpochReport(epoch, is_last=not left, is_known=False)


@dataclass(frozen=True)
class Load:
    """Of the driver: processor time and memory so far."""

    wall_s: float
    cpu_s: float
    memory_mb: float

    @classmethod
    def now(cls) -> "Load":
        """Read it."""
        kilobytes = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024
        return cls(time.perf_counter(), time.process_time(), kilobytes / 1024)


def run_actors(actors: int, trials: int, space: Space, curves: Curves) -> dict[str, Any]:
    """Run a tier and return what Ray Tune took of the driver.

    Args:
        actors: Trials at once.
        trials: How many in all.
        space: Of one tier.
        curves: What the trials say.
    """
    began = Load.now()
    ray.init(num_cpus=actors, include_dashboard=False, log_to_driver=False, object_store_memory=2**27)
    told: Any = ray.remote(Told).options(num_cpus=0).remote(curves)
    events: list[tuple[Event, Load]] = []
    with tempfile.TemporaryDirectory() as folder:
        spec = WorkerSpec(
            study=Path(folder), holder="", pixels=Path(folder), seed=0, weights=(), device="cpu", threads=1
        )
        started = Load.now()
        plan, workers = _plan(space, trials), (told,) * actors
        run_tuner(plan, spec, workers, THIN_CPUS, lambda event: events.append((event, Load.now())))
        ended = Load.now()
    ray.shutdown()
    return _summary(actors, events, (began, started, ended))


def _plan(space: Space, trials: int) -> TierPlan:
    tier = replace(space.tiers[0], trials=trials)
    pairs = frozenset((backbone, side) for backbone in tier.backbones for side in tier.resolutions_of(backbone))

    def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
        return TrialStarted(
            trial_id=config.trial_id, tier=tier.name, config=config, family=config.backbone, is_start=is_start,
            total_steps=config.training.epochs * space.folds, params=1, macs=1, weights_source="random",
            licence="unknown", data_version="rows", time=time.time(),
        )  # fmt: skip

    return TierPlan(
        domain=SearchDomain(tier=tier, weights="pretrained", buildable=pairs, seed=0),
        starts=start_configs(tier, "pretrained"), first=(), known=(), most_trials=trials, folds=space.folds,
        reduction=space.reduction, control=None, deadline=None, admit=lambda config, now: None,
        effort=lambda config: 1.0, hang_timeout=lambda config: 3600.0, describe=describe, suggest=random_suggest,
    )  # fmt: skip


def _summary(actors: int, events: Sequence[tuple[Event, Load]], loads: tuple[Load, Load, Load]) -> dict[str, Any]:
    began, started, ended = loads
    results = [load for event, load in events if isinstance(event, EpochDone)]
    ends = [(event, load) for event, load in events if isinstance(event, TrialEnded)]
    # All actors are up when as many trials as there are actors have ended; what follows is the steady part.
    first = min(actors, len(ends))
    warm = ends[first - 1][1]
    return {
        "actors": actors,
        "trials": len(ends),
        "statuses": dict(Counter(event.status for event, _ in ends)),
        "results": len(results),
        "ray_start_s": round(started.wall_s - began.wall_s, 2),
        "first": {
            "trials": first,
            "wall_s": round(warm.wall_s - started.wall_s, 2),
            "driver_cpu_s": round(warm.cpu_s - started.cpu_s, 2),
            "memory_mb": [round(started.memory_mb), round(warm.memory_mb)],
        },
        "steady": _steady(warm, ended, results, len(ends) - first),
    }


def _steady(warm: Load, ended: Load, results: Sequence[Load], trials: int) -> dict[str, Any]:
    """Return what a result takes once all actors are up, its trial's part included; empty where none came since."""
    count, last = sum(load.wall_s > warm.wall_s for load in results), results[-1]
    if not count or not trials:
        return {}
    return {
        "trials": trials,
        "results": count,
        "wall_ms_a_result": round(1000 * (last.wall_s - warm.wall_s) / count, 1),
        "driver_cpu_ms_a_result": round(1000 * (last.cpu_s - warm.cpu_s) / count, 1),
        "memory_mb": [round(warm.memory_mb), round(ended.memory_mb)],
        "memory_kb_a_trial": round(1024 * (ended.memory_mb - warm.memory_mb) / trials),
    }
