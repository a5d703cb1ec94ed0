"""The driver's tracker: one thread that makes MLflow say what the ledger says. Never in the way, never in a hurry."""

import importlib.util
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from spine_ray.study.events import Event
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tracking import Tracking, keep_tracking, read_tracking
from spine_ray.track.client import SQLITE, Client
from spine_ray.track.files import trial_files
from spine_ray.track.runs import StudyRuns

_log = logging.getLogger(__name__)

SCHEMES = ("http://", "https://", SQLITE, "postgresql", "mysql", "mssql")
BATCH_S = 0.5
"""What happens within this time is written together, s."""
RETRY_S = 60.0
PATIENCE_S = 60.0
"""How long a search waits at its end for a database on its own disk, s: to make one takes 2 to 20 s."""
SHARE = 0.01
"""How long it waits for anything else, in units of the time that it took; half a second at least, 30 s at most."""


class Tracker:
    """Follows a study and writes it to MLflow from a thread of its own.

    The ledger is what waits while MLflow is away: every event is in it before it comes here. So `put` does nothing but
    remember the event, and whatever fails, the thread looks later at what the store has and adds what is missing.
    """

    def __init__(self, uri: str, tracking: Tracking, paths: StudyPaths, past: Sequence[Event]) -> None:
        """Prepare; nothing is asked of MLflow before `begin`.

        Args:
            uri: MLflow's tracking URI: `sqlite:///FILE`, opened by this process alone, or a server's address.
            tracking: Which study this is.
            paths: Where it is.
            past: What its ledger holds.
        """
        self.retry_s = RETRY_S
        self._uri, self._tracking, self._paths = uri, tracking, paths
        self._events, self._past = list(past), len(past)
        self._told = 0
        self._runs: StudyRuns | None = None
        self._is_stale, self._is_away, self._is_warned = True, False, False
        self._retry_at = self._files_at = 0.0
        self._news, self._closing = threading.Event(), threading.Event()
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def begin(self) -> None:
        """Start the thread, which first delivers what earlier searches left."""
        self._thread.start()
        self._news.set()

    def put(self, event: Event) -> None:
        """Track one event of a trial, which is in the ledger already."""
        self._events.append(event)
        self._news.set()

    def refresh(self) -> None:
        """Track what the study says beside its ledger: costs and the ensemble."""
        self._is_stale = True
        self._news.set()

    def close(self, timeout_s: float | None = None) -> None:
        """End the runs, and stop; what MLflow has not taken by then `compare` delivers.

        Args:
            timeout_s: How long to wait, s; None for as long as a search of this length may.
        """
        if not self._thread.is_alive():
            return
        self._closing.set()
        self._news.set()
        self._thread.join(self._patience() if timeout_s is None else timeout_s)
        if self._thread.is_alive() or self._is_away:
            where = public_uri(self._uri)
            _log.warning("not all of it is in MLflow at %s yet; compare %s delivers it", where, self._paths.root)

    def _patience(self) -> float:
        if self._uri.startswith(SQLITE) and not self._is_away:
            return PATIENCE_S
        return min(30.0, max(0.5, SHARE * (time.monotonic() - self._began)))

    def _run(self) -> None:
        while not self._closing.is_set():
            self._news.wait(self.retry_s)
            self._closing.wait(BATCH_S)
            self._news.clear()
            if time.monotonic() >= self._retry_at:
                self._attempt(self._catch_up)
            if time.monotonic() >= self._files_at:
                self._store_files()
        self._attempt(self._finish)

    def _attempt(self, write: Callable[[], None]) -> None:
        try:
            write()
            self._is_away = False
        # Whatever MLflow, its database or the network raises, the search goes on: the ledger keeps everything.
        except Exception as error:
            self._runs, self._is_away, self._is_stale = None, True, True
            self._retry_at = time.monotonic() + self.retry_s
            self._warn(error)

    def _catch_up(self) -> None:
        """Write what happened since the last time; after a failure, whatever the store lacks."""
        if self._runs is None:
            client = Client(self._uri, self._paths.root.resolve().name, self._tracking.study_id)
            runs = StudyRuns(client, self._paths)
            runs.deliver(self._events[: self._past])
            self._runs, self._told = runs, self._past
        count = len(self._events)
        self._runs.follow(self._events[self._told : count])
        self._told = count
        if self._is_stale:
            self._is_stale = False
            self._runs.refresh()

    def _store_files(self) -> None:
        """Store what is not worth losing the runs over: one that fails is tried again later."""
        try:
            if self._runs is not None:
                store_files(self._runs, self._paths)
        except Exception as error:
            self._files_at = time.monotonic() + self.retry_s
            self._warn(error)

    def _finish(self) -> None:
        self._catch_up()
        if self._runs is not None:
            self._runs.end()
            store_files(self._runs, self._paths)

    def _warn(self, error: Exception) -> None:
        if not self._is_warned:
            self._is_warned = True
            where = public_uri(self._uri)
            _log.warning("MLflow at %s: %s. It is tried again later", where, _why(error, self._uri))


def deliver(uri: str, paths: StudyPaths) -> None:
    """Make MLflow say what the study says; the caller holds the study. Files that it does not take are a warning.

    Raises:
        ValueError: If the study cannot be read.
        ConnectionError: If the store does not take it.
    """
    runs = _brought(uri, paths)
    try:
        store_files(runs, paths)
    except Exception as error:
        _log.warning("MLflow at %s does not take the files of runs: %s", public_uri(uri), _why(error, uri))


def register(uri: str, paths: StudyPaths, model: Path, name: str) -> str:
    """Store an MLflow model of the ensemble with its run, and register it; the caller holds the study.

    Args:
        uri: MLflow's tracking URI.
        paths: The study, which MLflow is made to say first.
        model: Folder of the MLflow model.
        name: Of the registered model, which gets a new version.

    Returns:
        The model's URI, such as `models:/flowers/2`.

    Raises:
        ValueError: If the study cannot be read.
        ConnectionError: If the store does not take it.
    """
    runs = _brought(uri, paths)
    try:
        return runs.register(model, name)
    except Exception as error:
        raise ConnectionError(f"MLflow at {public_uri(uri)} does not take the model: {_why(error, uri)}") from error


def _brought(uri: str, paths: StudyPaths) -> StudyRuns:
    """Return the study's runs, which say what the study says."""
    events = read_ledger(paths.ledger)
    tracking = read_tracking(paths) or keep_tracking(paths, None)
    try:
        runs = StudyRuns(Client(uri, paths.root.resolve().name, tracking.study_id), paths)
        runs.deliver(events)
        runs.refresh()
        runs.end()
    except Exception as error:
        raise ConnectionError(f"MLflow at {public_uri(uri)} does not take the study: {_why(error, uri)}") from error
    return runs


def store_files(runs: StudyRuns, paths: StudyPaths) -> None:
    """Store the files of ended trials that have none in MLflow; one that cannot be read is left out with a warning."""
    for trial in list(runs.without_files.values()):
        try:
            files = trial_files(paths, trial)
        except ValueError as error:
            _log.warning("the run of %s gets no confusion matrix: %s", trial.trial_id, error)
            files = {}
        runs.store_files(files, trial)


def has_mlflow() -> bool:
    """Say whether MLflow is installed; all but the comparison does without it."""
    return importlib.util.find_spec("mlflow") is not None


def check_uri(uri: str) -> str:
    """Return the URI.

    Raises:
        ValueError: If MLflow knows no such store.
    """
    if not uri.startswith(SCHEMES):
        raise ValueError(f"--tracking {uri}: not an MLflow server; allowed are http://, https:// or a database's URI")
    return uri


def sqlite_uri(database: Path) -> str:
    """Return the tracking URI of a database file."""
    return f"{SQLITE}{database.absolute()}"


def public_uri(uri: str) -> str:
    """Return the URI without a user's name and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def _why(error: Exception, uri: str) -> str:
    """Return an error's first line, without the password that a URI in it may hold."""
    lines = str(error).splitlines()
    told = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    return told.replace(uri, public_uri(uri))
