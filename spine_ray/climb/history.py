"""What a search changes in a study that was there before, found out while it runs: trials, members, log-loss."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from spine_ray.climb.changes import Change
from spine_ray.climb.choice import Choice, present_choice
from spine_ray.climb.desk import Desk
from spine_ray.climb.ship import Shipped
from spine_ray.ensemble.metrics import bootstrap_interval, row_losses
from spine_ray.ensemble.selection import pooled_log_probs
from spine_ray.ladder.evidence import Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """A study as a search found it."""

    began: float
    """Seconds since 1970."""
    trials: frozenset[str]
    """Trials of the present rows that had ended."""
    choice: Choice | None
    """The ensemble of the present rows."""


def look_back(desk: Desk) -> Before:
    """Return what the study holds before the search adds to it."""
    present = desk.present
    ended = frozenset(name for name, trial in present.items() if trial.status is not None)
    return Before(began=time.time(), trials=ended, choice=present_choice(desk.paths, present))


def look_at_change(desk: Desk, before: Before, shipped: Shipped) -> Change:
    """Return what the search changed."""
    added = [trial for name, trial in desk.present.items() if trial.status and name not in before.trials]
    now = [trial.trial_id for trial in shipped.choice.members]
    then = [trial.trial_id for trial in before.choice.members] if before.choice else []
    losses = _losses(shipped.choice, shipped.evidence)
    gain: tuple[float | None, float | None, float | None] = (None, None, None)
    earlier = None
    known = {trial.trial_id for trial in shipped.evidence.trials}
    if before.choice is not None and known.issuperset(then):
        earlier = _losses(before.choice, shipped.evidence)
        apart = earlier - losses
        gain = (float(apart.mean()), *bootstrap_interval(apart, shipped.evidence.groups, seed=desk.request.seed))
    return Change(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=desk.request.command,
        seconds=time.time() - before.began,
        added=tuple(trial.trial_id for trial in added),
        device_seconds=sum(trial.seconds for trial in added),
        members=tuple(now),
        came=tuple(name for name in now if name not in then),
        left=tuple(name for name in then if name not in now),
        log_loss=float(losses.mean()),
        log_loss_before=None if earlier is None else float(earlier.mean()),
        gain=gain[0],
        gain_low=gain[1],
        gain_high=gain[2],
    )


def _losses(choice: Choice, evidence: Evidence) -> npt.NDArray[np.float64]:
    """Return an ensemble's log-loss of each dev row, nats."""
    places = {trial.trial_id: place for place, trial in enumerate(evidence.trials)}
    logits = np.stack([evidence.logits[places[trial.trial_id]] for trial in choice.members])
    return row_losses(pooled_log_probs(choice.ensemble, logits), evidence.labels)
