"""The table of trials, rebuilt from the ledger's events."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialResumed, TrialStarted


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """All that the ledger says of one trial."""

    started: TrialStarted
    epochs: tuple[EpochDone, ...] = field(default=())
    ended: TrialEnded | None = None
    resumed: tuple[TrialResumed, ...] = ()
    """How often it lost its process and went on, and why."""

    @property
    def trial_id(self) -> str:
        """The trial's name."""
        return self.started.trial_id

    @property
    def config(self) -> TrialConfig:
        """What was trained."""
        return self.started.config

    @property
    def status(self) -> Status | None:
        """How it ended; None while it runs or when it was interrupted."""
        return self.ended.status if self.ended else None

    @property
    def is_completed(self) -> bool:
        """Whether all folds were trained to their last epoch: only then are there OOF logits."""
        return self.status == "completed"

    def is_of(self, data_version: str) -> bool:
        """Say whether it was trained on these rows, and not on what the data was before."""
        return self.started.data_version == data_version

    @property
    def seconds(self) -> float:
        """Wall time of the epochs so far, s."""
        return sum((epoch.seconds for epoch in self.epochs), 0.0)

    @property
    def views(self) -> int | None:
        """How many training views there were; None before the first epoch."""
        return self.epochs[-1].views if self.epochs else None

    @property
    def micro_batch(self) -> int | None:
        """How many rows went through the model at once, in the end; None before the first epoch."""
        return self.epochs[-1].micro_batch if self.epochs else None

    @property
    def note(self) -> str:
        """What was not as fast, or not the same, as it should have been."""
        return self.epochs[-1].note if self.epochs else ""

    @property
    def log_loss(self) -> float | None:
        """Temperature-scaled OOF log-loss at the last epoch; lower is better."""
        return self.epochs[-1].log_loss if self.epochs else None

    @property
    def accuracy(self) -> float | None:
        """OOF accuracy at the last epoch; higher is better."""
        return self.epochs[-1].accuracy if self.epochs else None


def trials_from_events(events: Iterable[Event]) -> dict[str, Trial]:
    """Fold events into trials, in the order in which the trials first started.

    Raises:
        ValueError: If an event stands before the start of its trial.
    """
    trials: dict[str, Trial] = {}
    for event in events:
        add_event(trials, event)
    return trials


def add_event(trials: dict[str, Trial], event: Event) -> None:
    """Change the trials, by id, by what has happened.

    A trial that goes on forgets the epochs after the one that its checkpoint held, and an epoch that is told twice
    replaces what it was and all after it: no step is ever there twice. One that starts again on other rows forgets all.

    Raises:
        ValueError: If the event stands before the start of its trial.
    """
    if isinstance(event, TrialStarted):
        known = trials.get(event.trial_id)
        is_same = known is not None and known.started.data_version == event.data_version
        again = Trial(started=event)
        trials[event.trial_id] = (
            replace(again, epochs=known.epochs, resumed=known.resumed) if known and is_same else again
        )
        return
    trial = trials.get(event.trial_id)
    if trial is None:
        raise ValueError(f"the ledger has an event of trial {event.trial_id} before its start")
    if isinstance(event, EpochDone):
        kept = tuple(epoch for epoch in trial.epochs if epoch.step < event.step)
        trials[event.trial_id] = replace(trial, epochs=(*kept, event))
    elif isinstance(event, TrialResumed):
        kept = tuple(epoch for epoch in trial.epochs if epoch.step <= event.step)
        trials[event.trial_id] = replace(trial, epochs=kept, resumed=(*trial.resumed, event))
    else:
        trials[event.trial_id] = replace(trial, ended=event)
