"""A tier on a virtual clock: the search's own queue, rungs and admission, with told epochs in place of training."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spine_ray.ladder.rungs import Contender, Rungs
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialStarted
from spine_ray.tune.suggester import Handed, Outcome, Queue
from spine_ray.tune.tier_plan import Refusal, TierPlan

Script = Callable[[TrialConfig], Sequence[EpochDone]]
"""Returns every epoch of a trial that nobody stops."""


@dataclass(slots=True)
class Clock:
    """The time of a rehearsal."""

    now: float
    """Seconds since 1970."""


@dataclass(slots=True)
class _Running:
    """A trial on a worker."""

    handed: Handed
    started: TrialStarted
    epochs: Sequence[EpochDone]
    done: int = 0


def rehearse_tier(
    plan: TierPlan, workers: int, clock: Clock, script: Script, on_event: Callable[[Event], None]
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
            return tuple(Refusal(config, reason) for config, reason in stage.queue.suggester.refused.values())
        clock.now, place, trial = heapq.heappop(running)
        if stage.goes_on(trial):
            heapq.heappush(running, (clock.now + trial.epochs[trial.done].seconds, place, trial))


class _Stage:
    """What happens to one trial at a time."""

    def __init__(self, plan: TierPlan, clock: Clock, script: Script, on_event: Callable[[Event], None]) -> None:
        self.queue: Queue = plan.queue(lambda: clock.now)
        self._rungs: Rungs = plan.rungs()
        self._plan, self._clock, self._script, self._on_event = plan, clock, script, on_event
        self._starts = {config.trial_id for config in plan.starts}

    def start(self) -> _Running | None:
        """Begin the next trial, or return None when the tier hands out no more."""
        handed = self.queue.next_trial()
        if handed is None:
            return None
        config = handed.config
        epochs = self._script(config)
        if handed.is_control:
            epochs = epochs[: config.recipe.epochs]
        started = replace(self._plan.describe(config, config.trial_id in self._starts), time=self._clock.now)
        if not handed.is_control:
            self._on_event(started)
        return _Running(handed, started, epochs)

    def goes_on(self, trial: _Running) -> bool:
        """Take the epoch that has just ended and say whether the trial has another."""
        epoch = trial.epochs[trial.done]
        trial.done += 1
        is_last = trial.done == len(trial.epochs)
        if trial.handed.is_control:
            return not is_last and not self._is_over
        self._on_event(epoch)
        reason = None if is_last else self._why_stop(trial, epoch)
        if not is_last and reason is None:
            return True
        status: Status = "completed" if reason is None else "stopped"
        self.queue.suggester.tell(Outcome(trial.handed.config, status, epoch.step, epoch.log_loss))
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

    @property
    def _is_over(self) -> bool:
        return self._plan.deadline is not None and self._clock.now > self._plan.deadline

    def _why_stop(self, trial: _Running, epoch: EpochDone) -> str | None:
        reason = None if math.isfinite(epoch.log_loss) else f"the loss is {epoch.log_loss}"
        if epoch.fold >= 0:  # all folds at once have no epochs to compare
            contender = Contender(trial.started.trial_id, trial.started.family, trial.started.is_start)
            reason = self._rungs.judge(contender, epoch.step, epoch.log_loss)
        return "the budget is spent" if reason is None and self._is_over else reason
