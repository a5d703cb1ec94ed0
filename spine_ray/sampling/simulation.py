"""A tier simulated on a virtual clock: the search's own queue, rungs and admission, with epochs that cost nothing."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spine_ray.sampling.queue import Outcome, QueuedTrial, Refusal, TrialQueue
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialStarted

Script = Callable[[TrialConfig], Sequence[EpochDone]]
"""Returns every epoch of a trial that nobody stops."""


@dataclass(slots=True)
class VirtualClock:
    """The time of a simulation."""

    now: float
    """Seconds since 1970."""


@dataclass(slots=True)
class _Running:
    """A trial on a worker."""

    queued: QueuedTrial
    started: TrialStarted
    epochs: Sequence[EpochDone]
    done: int = 0


def simulate_tier(
    plan: TierPlan, workers: int, clock: VirtualClock, script: Script, on_event: Callable[[Event], None]
) -> tuple[Refusal, ...]:
    """Run a tier to its end as `run_tier` would, moving the clock instead of training.

    Args:
        plan: What to try.
        workers: How many trials run at once.
        clock: Stands where the tier ends when this returns.
        script: The epochs of each trial; those of the control are the ones of its first fold.
        on_event: Called for every event, in order.
    """
    stage = _Stage(plan, clock, script, on_event)
    is_open, running = True, list[tuple[float, int, _Running]]()
    number = 0
    while True:
        while is_open and len(running) < workers:
            trial = stage.start()
            if trial is None:
                is_open = False
                break
            heapq.heappush(running, (clock.now + trial.epochs[0].seconds, number, trial))
            number += 1
        if not running:
            return stage.queue.refusals
        clock.now, place, trial = heapq.heappop(running)
        if stage.goes_on(trial):
            heapq.heappush(running, (clock.now + trial.epochs[trial.done].seconds, place, trial))


class _Stage:
    """The trials of a tier, started and moved on one at a time."""

    def __init__(self, plan: TierPlan, clock: VirtualClock, script: Script, on_event: Callable[[Event], None]) -> None:
        self.queue: TrialQueue = plan.queue(lambda: clock.now)
        self._rule = plan.stopping_rule(lambda: clock.now)
        self._plan, self._clock, self._script, self._on_event = plan, clock, script, on_event
        self._starts = {config.trial_id for config in plan.starts}

    def start(self) -> _Running | None:
        """Begin the next trial, or return None when the tier hands out no more."""
        queued = self.queue.next_trial()
        if queued is None:
            return None
        config = queued.config
        epochs = self._script(config)
        if queued.is_control and not config.is_probe:  # a probe is one step for one fold, too
            epochs = epochs[: config.training.epochs]
        started = replace(self._plan.describe(config, config.trial_id in self._starts), time=self._clock.now)
        if not queued.is_control:
            self._on_event(started)
        return _Running(queued, started, epochs)

    def goes_on(self, trial: _Running) -> bool:
        """Take the epoch that has just ended and say whether the trial has another."""
        epoch = trial.epochs[trial.done]
        trial.done += 1
        is_last = trial.done == len(trial.epochs)
        if trial.queued.is_control:
            return not is_last and not self._rule.is_over
        self._on_event(epoch)
        reason = None if is_last else self._rule.why_stop(trial.started, epoch)
        if not is_last and reason is None:
            return True
        status: Status = "completed" if reason is None else "stopped"
        self.queue.suggester.tell(Outcome(trial.queued.config, status, epoch.step, epoch.log_loss))
        self._on_event(
            TrialEnded(
                trial_id=trial.started.trial_id,
                status=status,
                reason=reason or "",
                step=epoch.step,
                log_loss=epoch.log_loss,
                accuracy=epoch.accuracy,
                seconds=sum(each.seconds for each in trial.epochs[: trial.done]),
                time=self._clock.now,
            )
        )
        return False
