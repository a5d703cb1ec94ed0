"""The driver's tracker: a queue, one writer thread, and a spool file when MLflow is away. Never in the way."""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spine_ray.study.events import Event
from spine_ray.track.records import Entry, ensemble_chosen
from spine_ray.track.runs import RunStore
from spine_ray.track.spool import Spool

_log = logging.getLogger(__name__)

QUEUE_SIZE = 10_000
BATCH_SIZE = 200
POLL_S = 0.2


class Tracker:
    """Writes a study's events to MLflow from a thread of its own.

    `put` returns at once and never raises. While the store fails, entries go to the spool and the store is
    tried again every `retry_s`; once the spool has been written in order, entries flow directly again.
    Entries that an earlier search left in the spool come first.
    """

    def __init__(self, uri: str, study: str, spool: Path, *, retry_s: float = 60.0) -> None:
        """Start the writer.

        Args:
            uri: MLflow's tracking URI: `sqlite:///FILE`, opened by this process alone, or a server's address.
            study: Name of the experiment. Two studies on one server need two names.
            spool: File for entries that could not be written.
            retry_s: Pause before a store that failed is tried again, s.
        """
        self._uri, self._study, self._retry_s = uri, study, retry_s
        self._spool = Spool(spool)
        self._queue: queue.Queue[Entry] = queue.Queue(maxsize=QUEUE_SIZE)
        self._lock = threading.Lock()
        self._spooling = not self._spool.is_empty()
        self._in_flight: list[Entry] = []
        self._closing = threading.Event()
        self._abandoned = False
        self._warned = False
        self._retry_at = 0.0
        self._store: RunStore | None = None
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Track one event of a trial."""
        self._accept(Entry(at_ms=_now_ms(), content=event))

    def put_ensemble(self, summary: Mapping[str, Any]) -> None:
        """Track a chosen ensemble: numbers as metrics, the rest as params; the same summary again is one run."""
        try:
            self._accept(Entry(at_ms=_now_ms(), content=ensemble_chosen(summary)))
        except ValueError as error:
            _log.warning("the ensemble is not tracked: %s", error)

    def close(self, timeout_s: float = 30.0) -> None:
        """Write what waits and end the runs; what is not written within `timeout_s` seconds goes to the spool."""
        self._closing.set()
        self._thread.join(timeout_s)
        with self._lock:
            self._abandoned = self._thread.is_alive()
            left = [*(self._in_flight if self._abandoned else []), *self._drain()]
            self._to_spool(left)
            if left:
                self._warn(f"did not take everything within {timeout_s:g} s")
            self._spooling = True

    def _accept(self, entry: Entry) -> None:
        with self._lock:
            if not self._spooling:
                try:
                    self._queue.put_nowait(entry)
                    return
                except queue.Full:
                    # The spool is the queue's tail from now on, so that the order is kept.
                    self._spooling = True
            self._to_spool([entry])

    def _run(self) -> None:
        while not self._abandoned:
            batch = self._take()
            if batch:
                self._write(batch)
            elif self._spooling and time.monotonic() >= self._retry_at:
                self._catch_up()
            elif self._closing.is_set():
                break
        if not self._spooling and not self._abandoned:
            self._end_runs()

    def _take(self) -> list[Entry]:
        try:
            first = self._queue.get(timeout=POLL_S)
        except queue.Empty:
            return []
        with self._lock:
            if self._abandoned:
                # `close` gave up between the queue and here, and could not see this one.
                self._to_spool([first])
                return []
            self._in_flight = [first, *self._drain(BATCH_SIZE - 1)]
            return self._in_flight

    def _drain(self, limit: int = QUEUE_SIZE) -> list[Entry]:
        entries: list[Entry] = []
        while len(entries) < limit and not self._queue.empty():
            entries.append(self._queue.get_nowait())
        return entries

    def _write(self, batch: Sequence[Entry]) -> None:
        try:
            self._opened().write(batch)
        # Whatever MLflow, its database or the network raises, the search goes on: the entries are kept.
        except Exception as error:
            self._fall_back(batch, error)
        with self._lock:
            self._in_flight = []

    def _catch_up(self) -> None:
        try:
            with self._lock:
                entries, lines = self._spool.read()
            self._opened().write(entries)
        except Exception as error:
            self._fall_back([], error)
            return
        with self._lock:
            if self._abandoned:
                return
            self._spool.drop(lines)
            self._spooling = not self._spool.is_empty()

    def _end_runs(self) -> None:
        try:
            if self._store is not None:
                self._store.end_open_runs()
        except Exception as error:
            self._fall_back([], error)

    def _opened(self) -> RunStore:
        if self._store is None:
            self._store = RunStore(self._uri, self._study)
        return self._store

    def _fall_back(self, batch: Sequence[Entry], error: Exception) -> None:
        """Keep what could not be written and drop the connection, whose picture of the runs may be half true."""
        with self._lock:
            self._store = None
            self._retry_at = time.monotonic() + self._retry_s
            if self._abandoned:
                return
            self._spooling = True
            self._to_spool([*batch, *self._drain()])
            self._warn(_first_line(error).replace(self._uri, public_uri(self._uri)))

    def _to_spool(self, entries: Sequence[Entry]) -> None:
        try:
            self._spool.append(entries)
        except OSError as error:
            _log.warning("%d entries are not tracked: %s", len(entries), error)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            where = public_uri(self._uri)
            _log.warning("MLflow at %s: %s. Runs wait in %s", where, why, self._spool.path)


def deliver_spool(uri: str, study: str, spool: Path) -> int:
    """Write a spool left by an earlier search to MLflow and remove it; no tracker may be using it.

    Returns:
        How many entries were delivered; 0 when nothing waited.

    Raises:
        ConnectionError: If the store does not take them; the spool is kept.
    """
    waiting = Spool(spool)
    entries, lines = waiting.read()
    if not lines:
        return 0
    try:
        store = RunStore(uri, study)
        store.write(entries)
        store.end_open_runs()
    except Exception as error:
        why = _first_line(error).replace(uri, public_uri(uri))
        raise ConnectionError(f"MLflow at {public_uri(uri)} does not take {spool}: {why}") from error
    waiting.drop(lines)
    return len(entries)


def sqlite_uri(database: Path) -> str:
    """Return the tracking URI of a database file."""
    return f"sqlite:///{database.absolute()}"


def public_uri(uri: str) -> str:
    """Return the URI without a user's name and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else uri


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _now_ms() -> int:
    return int(time.time() * 1000)
