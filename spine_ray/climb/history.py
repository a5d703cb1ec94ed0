"""What a search changed in a study that was there before: trials, board, ensemble; kept search by search."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.climb.choice import Choice, read_choice, stored_choice
from spine_ray.climb.desk import Desk
from spine_ray.climb.ship import Shipped
from spine_ray.data.counted import counted
from spine_ray.ensemble.metrics import bootstrap_interval, row_losses
from spine_ray.ensemble.selection import pooled_log_probs
from spine_ray.ladder.evidence import Evidence
from spine_ray.study.paths import StudyPaths, copy_of, read_either, read_json, replace_json, write_twice
from spine_ray.study.trials import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """A study as a search found it."""

    began: float
    """Seconds since 1970."""
    trials: frozenset[str]
    """Trials of the present rows that had ended."""
    choice: Choice | None
    """The ensemble of the present rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one search changed; log-losses are OOF, on the rows that the choice was made on; lower is better."""

    time: str
    """UTC, ISO 8601."""
    command: str
    seconds: float
    """Wall time of the search."""
    added: tuple[str, ...]
    """Trials that ended."""
    device_seconds: float
    """What those took."""
    members: tuple[str, ...]
    came: tuple[str, ...]
    """Members that were none before."""
    left: tuple[str, ...]
    """Members that are none any more."""
    log_loss: float
    log_loss_before: float | None
    gain: float | None
    """By how much the ensemble's log-loss fell, on the same rows."""
    gain_low: float | None
    gain_high: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain values for JSON."""
        return asdict(self)

    @property
    def lines(self) -> tuple[str, ...]:
        """The change in words, for a reader who knows the study."""
        trials = counted(len(self.added), "trial", "trials")
        lines = [f"{trials} added in {self.seconds:.0f} s, {self.device_seconds:.0f} s of them on workers"]
        if self.gain is None or self.log_loss_before is None:
            return tuple(lines)
        if not self.came and not self.left:
            lines.append("the members are the same")
        lines += [f"came in: {', '.join(self.came)}"] if self.came else []
        lines += [f"went out: {', '.join(self.left)}"] if self.left else []
        lines.append(
            f"OOF log-loss {self.log_loss_before:.4f} before, {self.log_loss:.4f} now: {self.gain:+.4f} better "
            f"({self.gain_low:+.4f} to {self.gain_high:+.4f} over rows; chosen on them, so somewhat optimistic)"
        )
        return tuple(lines)


def look_back(desk: Desk) -> Before:
    """Return what the study holds before the search adds to it."""
    present = desk.present
    ended = frozenset(name for name, trial in present.items() if trial.status is not None)
    return Before(began=time.time(), trials=ended, choice=_choice_before(desk.paths, present))


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


def keep_change(paths: StudyPaths, change: Change) -> None:
    """Add a change to the study's history."""
    changes = [*stored_history(paths), change.to_dict()]
    write_twice(paths.history, lambda place: replace_json(place, changes))


def stored_history(paths: StudyPaths) -> list[dict[str, Any]]:
    """Return what each finished search changed, the oldest first.

    Raises:
        ValueError: If the file is damaged.
    """
    if not paths.history.exists() and not copy_of(paths.history).exists():
        return []
    found = read_either(paths.history, read_json)
    if not isinstance(found, list):
        raise ValueError(f"{paths.history} is damaged: it holds no list")
    return found


def _choice_before(paths: StudyPaths, present: Mapping[str, Trial]) -> Choice | None:
    """Return the ensemble that was there; None where there was none, or it was of rows as they were."""
    stored = stored_choice(paths)
    if not stored or any(name not in present for name in stored["candidates"]):
        return None
    return read_choice(paths, present)


def _losses(choice: Choice, evidence: Evidence) -> npt.NDArray[np.float64]:
    """Return an ensemble's log-loss of each dev row, nats."""
    places = {trial.trial_id: place for place, trial in enumerate(evidence.trials)}
    logits = np.stack([evidence.logits[places[trial.trial_id]] for trial in choice.members])
    return row_losses(pooled_log_probs(choice.ensemble, logits), evidence.labels)
