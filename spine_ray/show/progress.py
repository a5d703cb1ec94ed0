"""What is known of the trials of a tier while it runs: plain values folded from events."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialResumed, TrialStarted


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialProgress:
    """One trial as far as it got."""

    started: TrialStarted
    last: EpochDone | None = None
    measured_steps: int = 0
    """Epochs seen since the trial was last handed to a worker."""
    measured_seconds: float = 0.0
    """Their wall time, s."""
    ended: TrialEnded | None = None

    @property
    def step(self) -> int:
        """Epochs so far over all folds."""
        return self.last.step if self.last else 0

    @property
    def left_seconds(self) -> float | None:
        """Time left at this trial's mean pace, s; None before its first epoch."""
        if self.ended is not None:
            return 0.0
        if not self.measured_steps:
            return None
        return (self.started.total_steps - self.step) * self.measured_seconds / self.measured_steps


@dataclass(frozen=True, kw_only=True, slots=True)
class TierProgress:
    """A tier and its trials in the order in which they started."""

    name: str
    question: str
    planned: int
    """Trials that the tier means to run."""
    trials: dict[str, TrialProgress] = field(default_factory=dict)

    def after(self, event: Event) -> "TierProgress":
        """Return the tier after one more event; an event of a trial that never started changes nothing."""
        known = self.trials.get(event.trial_id)
        if isinstance(event, TrialStarted):
            trial = TrialProgress(started=event, last=known.last if known else None)
        elif known is None:
            return self
        elif isinstance(event, TrialResumed):
            is_kept = known.last is not None and known.last.step <= event.step
            trial = replace(known, last=known.last if is_kept else None)
        elif isinstance(event, EpochDone):
            trial = replace(
                known,
                last=event,
                measured_steps=known.measured_steps + 1,
                measured_seconds=known.measured_seconds + event.seconds,
            )
        else:
            trial = replace(known, ended=event)
        return replace(self, trials={**self.trials, event.trial_id: trial})

    @property
    def running(self) -> list[TrialProgress]:
        """Trials without an end, in order of start."""
        return [trial for trial in self.trials.values() if trial.ended is None]

    @property
    def finished(self) -> list[TrialProgress]:
        """Trials with an end, the latest end last."""
        ended = (trial for trial in self.trials.values() if trial.ended is not None)
        return sorted(ended, key=lambda trial: trial.ended.time if trial.ended else 0.0)

    @property
    def best(self) -> TrialProgress | None:
        """The completed trial with the lowest log-loss."""
        return _lowest(trial for trial in self.finished if trial.ended and trial.ended.status == "completed")


def _lowest(trials: Iterable[TrialProgress]) -> TrialProgress | None:
    scored = [(trial.ended.log_loss, trial) for trial in trials if trial.ended]
    with_loss = [(loss, trial) for loss, trial in scored if loss is not None]
    return min(with_loss, key=lambda pair: pair[0])[1] if with_loss else None
