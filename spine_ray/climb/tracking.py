"""Tracking of a search in MLflow, or none where MLflow is not installed."""

import contextlib
from collections.abc import Iterator
from typing import Protocol

from spine_ray.climb.request import SearchRequest
from spine_ray.show.live import Progress
from spine_ray.study.events import Event
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tracking import keep_tracking
from spine_ray.track.mlflow_log import Tracker, has_mlflow, public_uri, sqlite_uri

_INTERRUPTED_S = 2.0
"""How long MLflow is waited for when the search is interrupted, s."""


class EventTracker(Protocol):
    """What a search tells its tracker."""

    def begin(self) -> None:
        """Start to deliver."""

    def put(self, event: Event) -> None:
        """Track one event of a trial, which is in the ledger already."""

    def refresh(self) -> None:
        """Track what the study says beside its ledger."""


class NoTracker:
    """Tracks nothing: an `EventTracker`."""

    def begin(self) -> None:
        """Do nothing."""

    def put(self, event: Event) -> None:
        """Do nothing."""

    def refresh(self) -> None:
        """Do nothing."""


def check_tracking(request: SearchRequest) -> None:
    """Refuse a tracking server where MLflow is not installed, before anything is written.

    Raises:
        ValueError: If one was asked for.
    """
    if request.tracking is not None and not has_mlflow():
        raise ValueError(f"--tracking {public_uri(request.tracking)}: MLflow is not installed; pip install mlflow")


@contextlib.contextmanager
def open_tracker(request: SearchRequest, progress: Progress) -> Iterator[EventTracker]:
    """Yield what tracks the search; what it has not delivered by the end of the block `compare` delivers."""
    if not has_mlflow():
        progress.say("tracking is off: MLflow is not installed")
        yield NoTracker()
        return
    paths = StudyPaths(request.study)
    tracking = keep_tracking(paths, public_uri(request.tracking) if request.tracking else None)
    tracker = Tracker(request.tracking or sqlite_uri(paths.tracking), tracking, paths, read_ledger(paths.ledger))
    timeout_s = None
    try:
        yield tracker
    except KeyboardInterrupt:
        timeout_s = _INTERRUPTED_S
        raise
    finally:
        tracker.close(timeout_s)
