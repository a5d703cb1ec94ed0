"""The driver of a search on a simulated clock: everything that it does between two messages of its workers is real.

Real are the queue, the sampler, admission, `TierSearcher`, `ExactAsha`, the ledger with its writes to the disk, the
lines that a log file would get, the tracker, and the order in which Ray Tune's loop takes a trial and a result in turn.
Told are the workers: an epoch takes what a kept curve says, and a worker waits while the driver is busy with others.
Left out is Ray itself: its own time is added as a constant, measured by `benchmarks.scale --actors`.
"""

import heapq
import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.curves import Curves
from spine_ray.climb.known import Known
from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.tiers import Climb
from spine_ray.core.backbone import facts, family_of
from spine_ray.core.weights import weights_from_folder
from spine_ray.data.samples import Samples
from spine_ray.ladder.budget import Budget
from spine_ray.sampling.sampler import random_suggest
from spine_ray.sampling.simulation import VirtualClock, simulate_tier
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.show.live import PlainProgress
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import Space
from spine_ray.study.events import EpochDone, Event, TrialStarted, event_to_dict
from spine_ray.study.ledger import append_event
from spine_ray.study.paths import StudyPaths
from spine_ray.track.mlflow_log import Tracker
from spine_ray.tune.scheduler import ExactAsha
from spine_ray.tune.searcher import TierSearcher
from spine_ray.workers.trial_log import TrialLog, trial_request
from spine_ray.workers.trial_steps import EpochReport, StepReport, TrialRequest

ROWS, CLASSES = 1500, 10


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the driver has to carry."""

    trials: int
    slots: int
    epoch_s: float
    """Of a worker, on average, s."""
    seed: int
    ray_result_s: float
    """Ray's own time for a result, s of the driver."""
    ray_trial_s: float
    """Ray's own time for a trial that starts on a warm worker, s of the driver."""
    is_cpu_time: bool
    """Whether the driver's time is its thread's processor time; else it is wall time, with what else runs here."""
    known: int
    """Trials of these that the study holds before: drawn blindly, in no time, nothing of it measured."""
    tracked: int
    """Trials whose events go to MLflow: the writer takes its time, and the clock does not wait for it."""


@dataclass
class Meter:
    """What the driver took."""

    suggest_s: list[float] = field(default_factory=list)
    result_s: list[float] = field(default_factory=list)
    end_s: list[float] = field(default_factory=list)
    epochs: list[tuple[float, float]] = field(default_factory=list)
    """Of every epoch: when it began on the simulated clock, and how long it took."""
    last_start: float = 0.0
    """When the last trial began."""

    @property
    def driver_s(self) -> float:
        """All that the driver itself took, s; without Ray."""
        return sum(self.suggest_s) + sum(self.result_s) + sum(self.end_s)

    def busy_share(self, slots: int) -> float:
        """Return how much of the workers' time was trained in, until there was no further trial to begin."""
        began, seconds = np.array(self.epochs).T
        return float(np.clip(self.last_start - began, 0.0, seconds).sum() / (slots * self.last_start))


@dataclass
class _Running:
    trial: Any
    """As much of a trial of Ray Tune as scheduler and searcher look at."""
    request: TrialRequest
    epochs: Sequence[EpochDone]
    done: int = 0


@dataclass
class Simulation:
    """Carries a climb out: one tier, no gates."""

    load: Load
    curves: Curves
    known: Known
    paths: StudyPaths
    tracker: Tracker
    meter: Meter = field(default_factory=Meter)
    has_control: bool = True
    _clock: float = 0.0
    _tracked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Write the lines of progress where nobody reads them."""
        self._progress = PlainProgress(Console(file=io.StringIO(), width=120))
        self._log = TrialLog(self._record, {})

    def now(self) -> float:
        """Return the simulated time: when the driver has nothing to do any more."""
        return self._clock

    def say(self, line: str) -> None:
        """Keep silent."""

    def sample_probes(self, configs: Sequence[TrialConfig], count: int) -> Mapping[str, float]:
        """Return nothing: there is time for all probes."""
        return {}

    def check(self, configs: Sequence[TrialConfig]) -> None:
        """Check nothing."""

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Measure nothing: the costs were kept with the curves."""

    @property
    def workers(self) -> int:
        """How many trials run at once."""
        return self.load.slots

    def decide(self, question: Any) -> Any:
        """There is no gate behind a single tier."""
        raise AssertionError("one tier has no gate")

    def run(self, plan: TierPlan, question: str) -> None:
        """Carry the tier out as Ray Tune's loop would: a trial if a worker is free, then a result if one is there."""
        plan = self._come_back(plan) if self.load.known else plan
        scheduler = ExactAsha(plan.stopping_rule(self.now))
        searcher = TierSearcher(
            plan.queue(self.now), lambda queued: trial_request(plan, queued), workers=self.load.slots
        )
        waiting: list[tuple[float, int, _Running]] = []
        number, is_open = 0, True
        while is_open or waiting:
            if is_open and len(waiting) < self.load.slots:
                running = self._start(searcher, number)
                is_open = running is not None
                if running is not None:
                    self._train(waiting, number, running)
                    number += 1
            is_full = not is_open or len(waiting) == self.load.slots
            if waiting and (is_full or waiting[0][0] <= self._clock):
                ends, place, running = heapq.heappop(waiting)
                self._clock = max(self._clock, ends)
                if self._goes_on(searcher, scheduler, running):
                    self._train(waiting, place, running)

    def _come_back(self, plan: TierPlan) -> TierPlan:
        """Return the plan of a search that was interrupted after so many trials and continues."""

        def script(config: TrialConfig) -> list[EpochDone]:
            return self.curves.draw(config, self.load.seed, self.load.epoch_s)

        blind = replace(
            plan,
            most_trials=self.load.known,
            suggest=random_suggest,
            admit=lambda config, now: None,
            effort=lambda config: 1.0,
        )
        simulate_tier(blind, self.load.slots, VirtualClock(0.0), script, self.known.events.append)
        lines = [json.dumps(event_to_dict(event)) + "\n" for event in self.known.events]
        self.paths.ledger.write_text("".join(lines))
        return replace(plan, known=self.known.of_tier(plan.domain.tier))

    def _train(self, waiting: list[tuple[float, int, _Running]], place: int, running: _Running) -> None:
        seconds = running.epochs[running.done].seconds
        self.meter.epochs.append((self._clock, seconds))
        heapq.heappush(waiting, (self._clock + seconds, place, running))

    def _start(self, searcher: TierSearcher, number: int) -> _Running | None:
        with self._thinking(self.meter.suggest_s, self.load.ray_trial_s):
            given = searcher.suggest(f"ray{number}")
            if not isinstance(given, dict):
                return None
            request: TrialRequest = given["request"]
            self._log.start(request.started)
        self.meter.last_start = self._clock
        trial = SimpleNamespace(trial_id=f"ray{number}", config=given)
        epochs = self.curves.draw(request.started.config, self.load.seed, self.load.epoch_s)
        return _Running(trial, request, epochs)

    def _goes_on(self, searcher: TierSearcher, scheduler: ExactAsha, running: _Running) -> bool:
        """Let the driver take the epoch that has just ended, and say whether the trial has another."""
        trial, trial_id = running.trial, running.request.trial_id
        epoch, is_last = running.epochs[running.done], running.done + 1 == len(running.epochs)
        running.done += 1
        report = StepReport(done=EpochReport(epoch, is_last, is_known=False))
        result = {"log_loss": report.log_loss, "done": is_last, "report": report}
        with self._thinking(self.meter.result_s, self.load.ray_result_s):
            self._log.step(trial_id, report)
            goes_on = not is_last and scheduler.on_trial_result(None, trial, result) == ExactAsha.CONTINUE
        if not goes_on:
            with self._thinking(self.meter.end_s, 0.0):
                searcher.on_trial_complete(trial.trial_id, result)
                self._log.end(trial_id, report.status, scheduler.reasons.get(trial_id, ""))
        return goes_on

    def _record(self, event: Event) -> None:
        """Do what a search does with an event."""
        append_event(self.paths.ledger, event)
        self.known.events.append(event)
        self._progress.event(event)
        if len(self._tracked) < self.load.tracked and isinstance(event, TrialStarted):
            self._tracked.add(event.trial_id)
        if event.trial_id in self._tracked:
            self.tracker.put(event)

    @contextmanager
    def _thinking(self, into: list[float], ray_s: float) -> Iterator[None]:
        """Let the time that the block takes, and Ray's, pass on the simulated clock."""
        watch = time.thread_time if self.load.is_cpu_time else time.perf_counter
        began = watch()
        yield
        into.append(watch() - began)
        self._clock += into[-1] + ray_s


def simulate(load: Load, space: Space, curves: Curves, folder: Path, tracker: Tracker) -> Simulation:
    """Run a search of one tier with told workers.

    Args:
        load: How many trials and workers.
        space: Of one tier, whose backbones the curves have.
        curves: What the workers say.
        folder: Where the ledger is written.
        tracker: Where some of the trials go.
    """
    tier = replace(space.tiers[0], trials=load.trials)
    space = replace(space, tiers=(tier,))
    prepared = Prepared(
        spaces=(space,),
        weights=weights_from_folder(Path(str(space.weights)), tier.backbones),
        facts={
            (name, side): facts(name, side, CLASSES) for name in tier.backbones for side in tier.resolutions_of(name)
        },
        families={name: family_of(name) for name in tier.backbones},
    )
    request = SearchRequest(
        spaces=(space,), sets=(), data=None, study=folder, budget_s=None, weights=str(space.weights), seed=load.seed,
        workers=None, address=None, tracking=None, open_test=False, resume=False, finish=False, force=False, update=(),
        plan=False, on=None, began=0.0, command="",
    )  # fmt: skip
    costs = {cost.key: cost for cost in curves.costs}
    known = Known(request=request, samples=_rows(space.folds), prepared=prepared, device="cpu", events=[], costs=costs)
    played = Simulation(load, curves, known, StudyPaths(folder), tracker)
    Climb(known, played, space, Budget(began=0.0, seconds=None)).fine_tune()
    return played


def _rows(folds: int) -> Samples:
    """Return a table of rows of which only the size matters."""
    rows = np.arange(ROWS)
    return Samples(
        sample_ids=tuple(f"{row:016x}" for row in rows),
        paths=tuple(map(str, rows)),
        labels=rows % CLASSES,
        classes=tuple(map(str, range(CLASSES))),
        groups=rows,
        splits=tuple(repeat("dev", ROWS)),
        folds=(rows // CLASSES % folds).astype(np.int8),
    )
