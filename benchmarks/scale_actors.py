"""Ray Tune's own part of the driver's time: a real tier on real actors that train nothing and answer at once.

`run_tier` is the search's own. The crew is one process that says what kept curves say; in front of it stands one thin
process a worker, as in a search. Suggestions are drawn blindly, so what is measured is Ray and the loop around it.
"""

import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
from spine_ray.tune.order import WorkOrder
from spine_ray.tune.suggester import SearchDomain, draw
from spine_ray.tune.tier import run_tier
from spine_ray.tune.tier_plan import TierPlan

from benchmarks.curves import Curves
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import Space
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted
from spine_ray.tune.cluster import Workers


class Told:
    """Answers as a warm worker does, with epochs that nobody trained."""

    def __init__(self, curves: Curves) -> None:
        self._curves = curves
        self._left: dict[str, Sequence[EpochDone]] = {}

    def do(self, work: str, order: WorkOrder, given: dict[str, Any]) -> Any:
        """Begin a trial, or say how its next epoch went."""
        trial_id = given["trial_id"]
        if work == "begin":
            self._left[trial_id] = self._curves.draw(TrialConfig.from_dict(given["trial"]), 0, 1.0)
            return None
        record, *left = self._left.pop(trial_id)
        if left:
            self._left[trial_id] = left
        return {**asdict(record), "is_last": not left}


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


def run_actors(actors: int, trials: int, space: Space, curves: Curves) -> None:
    """Run a tier and print what Ray Tune took of the driver.

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
        order = WorkOrder(
            study=Path(folder), holder="", pixels=Path(folder), seed=0, weights=(), device="cpu", threads=1
        )
        workers = Workers(count=actors, cpus=1, gpus=0.0, crew=(told,) * actors)
        started = Load.now()
        run_tier(_plan(space, trials), order, workers, lambda event: events.append((event, Load.now())))
        ended = Load.now()
    ray.shutdown()
    _tell(actors, events, (began, started, ended))


def _plan(space: Space, trials: int) -> TierPlan:
    tier = replace(space.tiers[0], trials=trials)
    pairs = frozenset((backbone, side) for backbone in tier.backbones for side in tier.resolutions)

    def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
        return TrialStarted(
            trial_id=config.trial_id, tier=tier.name, config=config, family=config.backbone, is_start=is_start,
            total_steps=config.recipe.epochs * space.folds, params=1, macs=1, weights_source="random",
            licence="unknown", data_version="rows", time=time.time(),
        )  # fmt: skip

    return TierPlan(
        domain=SearchDomain(tier=tier, weights="pretrained", buildable=pairs, seed=0),
        starts=start_configs(tier, "pretrained"), first=(), known=(), most_trials=trials, folds=space.folds,
        reduction=space.reduction, control=None, deadline=None, admit=lambda config, now: None,
        effort=lambda config: 1.0, describe=describe, ask=draw,
    )  # fmt: skip


def _tell(actors: int, events: Sequence[tuple[Event, Load]], loads: tuple[Load, Load, Load]) -> None:
    began, started, ended = loads
    results = [load for event, load in events if isinstance(event, EpochDone)]
    ends = [event for event, _ in events if isinstance(event, TrialEnded)]
    statuses = Counter(event.status for event in ends)
    print(f"{len(ends)} trials on {actors} actors ({', '.join(f'{n} {name}' for name, n in statuses.items())}), "
          f"{len(results)} results; Ray started in {started.wall_s - began.wall_s:.1f} s")  # fmt: skip
    # All actors are up when as many trials as there are actors have ended; what follows is the steady part.
    warm = [load for event, load in events if isinstance(event, TrialEnded)][min(actors, len(ends)) - 1]
    steady = sum(load.wall_s > warm.wall_s for load in results)
    print(f"first {actors} trials: {warm.wall_s - started.wall_s:.1f} s, of which the driver's processor "
          f"{warm.cpu_s - started.cpu_s:.1f} s; memory {started.memory_mb:.0f} -> {warm.memory_mb:.0f} MB")  # fmt: skip
    if steady:
        last, left = results[-1], len(ends) - actors
        print(f"the other {left}: {steady} results, each {1000 * (last.wall_s - warm.wall_s) / steady:.1f} ms of wall "
              f"time, {1000 * (last.cpu_s - warm.cpu_s) / steady:.1f} ms of the driver's processor (its trial's part "
              f"included); memory {warm.memory_mb:.0f} -> {ended.memory_mb:.0f} MB, "
              f"{1024 * (ended.memory_mb - warm.memory_mb) / left:.0f} kB a trial")  # fmt: skip
