"""What the tracker writes, as plain values: entries, and the params and metrics of an event. Knows no MLflow."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialStarted, event_from_dict, event_to_dict

RUN_STATUS: dict[Status, str] = {"completed": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
"""MLflow's word for each way in which a trial ends."""

MAX_VALUE = 6000
"""Longest text of a param, characters: a limit of MLflow."""

MAX_KEY = 250
"""Longest name of a param or metric, characters: a limit of MLflow."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleChosen:
    """An ensemble as reported once to the tracker."""

    summary: dict[str, Any]
    """Plain values: numbers become metrics, everything else params."""

    @property
    def key(self) -> str:
        """Equal exactly when the summaries are equal, so that one ensemble has one run."""
        text = json.dumps(self.summary, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One thing to track and when it was reported."""

    at_ms: int
    """Milliseconds since 1970; kept over a spool, so that the same entry twice is the same metric twice."""
    content: Event | EnsembleChosen


def ensemble_chosen(summary: Mapping[str, Any]) -> EnsembleChosen:
    """Copy a summary into plain JSON values; numbers of other libraries become floats, the rest text.

    Raises:
        ValueError: If the summary cannot be written as JSON, such as one that contains itself.
    """
    try:
        return EnsembleChosen(summary=json.loads(json.dumps(dict(summary), default=_plain)))
    except TypeError as error:
        raise ValueError(f"an ensemble's summary must be plain values: {error}") from error


def entry_to_line(entry: Entry) -> str:
    """Return the entry as one line of JSON."""
    content = entry.content
    body = {"ensemble": content.summary} if isinstance(content, EnsembleChosen) else event_to_dict(content)
    return json.dumps({"at_ms": entry.at_ms, "content": body})


def entry_from_line(line: str) -> Entry:
    """Build the entry that `entry_to_line` wrote.

    Raises:
        ValueError: If the line is not such an entry, such as one cut short by a crash.
    """
    try:
        values = json.loads(line)
        at_ms, body = int(values["at_ms"]), values["content"]
        if "ensemble" in body:
            return Entry(at_ms=at_ms, content=EnsembleChosen(summary=body["ensemble"]))
        return Entry(at_ms=at_ms, content=event_from_dict(body))
    except (KeyError, TypeError) as error:
        raise ValueError(f"not an entry of a spool: {line[:80]!r}") from error


def trial_params(event: TrialStarted) -> dict[str, str]:
    """Return what identifies a trial, repeated on every child so that the UI filters and groups children alone."""
    config = event.config
    values: dict[str, Any] = {
        "trial_id": event.trial_id,
        "tier": event.tier,
        "backbone": config.backbone,
        "family": event.family,
        "resolution": config.resolution,
        "freeze": config.freeze,
        **asdict(config.recipe),
        "is_start": event.is_start,
        "params": event.params,
        "macs": event.macs,
        "weights_source": event.weights_source,
        "licence": event.licence,
    }
    return {key: str(value)[:MAX_VALUE] for key, value in values.items()}


def epoch_metrics(event: EpochDone) -> dict[str, float]:
    """Return the numbers of one epoch, to be logged at `event.step`."""
    return {
        "log_loss": event.log_loss,
        "accuracy": event.accuracy,
        "train_loss": event.train_loss,
        "seconds": event.seconds,
        "train_images_s": event.train_images_s,
        "score_images_s": event.score_images_s,
        "peak_mb": event.peak_mb,
    }


def final_metrics(event: TrialEnded) -> dict[str, float]:
    """Return a trial's cost and, where it completed, its result.

    A stopped trial has no `final_log_loss`: sorting by it compares only trials that saw all folds.
    """
    metrics = {"total_seconds": event.seconds, "total_steps": float(event.step)}
    if event.status == "completed":
        ends = {"final_log_loss": event.log_loss, "final_accuracy": event.accuracy}
        metrics |= {key: value for key, value in ends.items() if value is not None}
    return metrics


def summary_fields(summary: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, float]]:
    """Split an ensemble's summary into params (text) and metrics (finite numbers)."""
    params: dict[str, str] = {}
    metrics: dict[str, float] = {}
    for name, value in summary.items():
        key = re.sub(r"[^\w -]", "_", name)[:MAX_KEY] or "_"
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            metrics[key] = float(value)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            params[key] = text[:MAX_VALUE]
    return params, metrics


def _plain(value: object) -> float | str:
    return float(value) if isinstance(value, Real) else str(value)
