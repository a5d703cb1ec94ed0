"""What can happen to a trial: the records of which the ledger is made."""

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from spine_ray.space.config import TrialConfig
from spine_ray.study.checked import check_fields

Status = Literal["completed", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialStarted:
    """A trial was handed to a worker."""

    trial_id: str
    tier: str
    config: TrialConfig
    family: str
    is_start: bool
    """Whether this is its backbone's start recipe: the controlled comparison."""
    total_steps: int
    """Epochs over all folds."""
    params: int
    macs: int
    """Multiply-accumulates of one forward pass of one image."""
    weights_source: str
    licence: str
    data_version: str
    """`Samples.version` of the rows that it is trained on."""
    time: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialResumed:
    """A trial that had lost its process went on. Epochs after `step` that were told before no longer count."""

    trial_id: str
    step: int
    """Epochs that its checkpoint held, over all folds; 0 where it began anew."""
    reason: str
    """How it lost its process and, if there was a checkpoint that does not fit, why that was dropped."""
    time: float
    """Seconds since 1970."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochDone:
    """One epoch of one fold of a fine-tune, or a whole probe, with the held-out rows scored."""

    trial_id: str
    step: int
    """Epochs so far over all folds, from 1."""
    fold: int
    """-1 for a probe, whose heads are solved for all folds in one step."""
    epoch: int
    """Epoch in this fold, from 1."""
    train_loss: float
    log_loss: float
    """Temperature-scaled log-loss of the held-out rows of all folds so far; lower is better."""
    accuracy: float
    """Accuracy on the same rows; higher is better."""
    seconds: float
    """Wall time of training and scoring, s."""
    train_images: int
    """Images trained on, counting repeats; of a probe those whose features there are."""
    train_images_s: float
    """While training; where a frozen prefix's activations are kept, of what is behind it; of a probe, rows solved."""
    score_images_s: float
    """Held-out images; where a frozen prefix's activations are kept, of what is behind it; of a probe, its passes."""
    peak_mb: float
    """Peak memory of the worker process (of the device on a GPU), MB."""
    views: int
    """Training views there are; epoch e uses view e mod views."""
    micro_batch: int
    """Rows that went through the model at once: the batch size, or what memory allowed of it."""
    note: str
    """What was not as fast, or not the same, as it should have been; empty when all was well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialEnded:
    """A trial is over: `completed` with OOF logits, `stopped` or `failed` with a reason."""

    trial_id: str
    status: Status
    reason: str
    step: int
    log_loss: float | None
    accuracy: float | None
    seconds: float
    """Wall time of the trial's epochs, s."""
    time: float


Event = TrialStarted | TrialResumed | EpochDone | TrialEnded
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KINDS: dict[str, type[Event]] = {
    "started": TrialStarted,
    "resumed": TrialResumed,
    "epoch": EpochDone,
    "ended": TrialEnded,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def event_to_dict(event: Event) -> dict[str, Any]:
    """Return the event as plain values, with its kind under `event`."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def event_from_dict(values: dict[str, Any]) -> Event:
    """Build the event that `event_to_dict` wrote.

    Raises:
        ValueError: If the kind is unknown or a field is missing or strange.
    """
    name = values.get("event")
    kind = _KINDS.get(str(name))
    if kind is None:
        raise ValueError(f"unknown kind of event: {name!r} (known: {', '.join(_KINDS)})")
    rest = {key: value for key, value in values.items() if key != "event"}
    try:
        if kind is TrialStarted:
            rest["config"] = TrialConfig.from_dict(rest["config"])
        event = kind(**rest)
    except KeyError as error:
        raise ValueError(f"a {name} event without {error}") from error
    except TypeError as error:
        raise ValueError(f"a {name} event that cannot be read: {error}") from error
    check_fields(event)
    if not _ID.fullmatch(event.trial_id):  # files are named by it
        raise ValueError(f"{event.trial_id!r} is no trial's name")
    return event
