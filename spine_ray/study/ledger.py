"""The ledger: append-only, one line an event of a trial. Everything else is derived from it or named by it.

It is kept twice. A line that one file lacks, or has damaged, is taken from the other.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from spine_ray.study.events import Event, TrialStarted, event_from_dict, event_to_dict
from spine_ray.study.paths import DamagedError, cannot_write, copy_of, replace_text


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """What the ledger and its copy hold together."""

    lines: tuple[str, ...]
    """Those that can be read."""
    events: tuple[Event, ...]
    """Without those of trials whose start is lost."""
    is_ahead: bool
    """Whether the copy is one line ahead and nothing else is amiss: an event is being written, or its writer died."""
    restored: int
    """Lines that the file itself lacks and the copy has."""
    torn: bool
    """Whether a last line was cut short, by a death while it was written."""
    lost: int
    """Other lines that can be read nowhere, and events of trials whose start is lost."""


@dataclass(frozen=True, slots=True)
class _Lines:
    readable: list[str]
    damaged: int
    torn: bool


def read_ledger(path: Path) -> list[Event]:
    """Return all events that can be read, in order.

    Raises:
        DamagedError: If there is a file that the system does not give out.
    """
    return list(open_ledger(path).events)


def open_ledger(path: Path) -> Ledger:
    """Read the ledger and its copy, line by line.

    Raises:
        DamagedError: If there is a file that the system does not give out.
    """
    own, copy = _read(path), _read(copy_of(path))
    same = own.readable == copy.readable
    lines = tuple(own.readable if same else _merged(own.readable, copy.readable))
    started: set[str] = set()
    events: list[Event] = []
    for event in (event for line in lines if (event := _event(line)) is not None):
        if isinstance(event, TrialStarted):
            started.add(event.trial_id)
        if event.trial_id in started:
            events.append(event)
    restored = len(lines) - len(own.readable)
    return Ledger(
        lines=lines,
        events=tuple(events),
        is_ahead=restored == 1 and list(lines[:-1]) == own.readable and not own.torn and not own.damaged,
        restored=restored,
        torn=own.torn,
        lost=max(0, own.damaged - restored) + len(lines) - len(events),
    )


def mend_ledger(path: Path, ledger: Ledger) -> None:
    """Write what the two files hold together to both, where one holds something else; nobody may be appending.

    Raises:
        CannotWriteError: If the disk is full, or nothing may be written there.
    """
    text = "".join(f"{line}\n" for line in ledger.lines)
    for place in (copy_of(path), path):
        if not place.exists() or place.read_bytes() != text.encode():
            replace_text(place, text)


def append_event(path: Path, event: Event) -> None:
    """Append one event to the copy and to the ledger, and hand both to the disk before returning.

    A torn last line is cut off first. A loss that is not a number is written as Python's `NaN`: a diverged trial must
    be a row, not an error.

    Raises:
        CannotWriteError: If the disk is full, or nothing may be written there.
    """
    line = (json.dumps(event_to_dict(event)) + "\n").encode()
    for place in (copy_of(path), path):
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with place.open("a+b") as file:
                _cut_torn_line(file)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(place, error) from error


def _read(path: Path) -> _Lines:
    if not path.exists():
        return _Lines([], 0, False)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error
    torn = bool(lines.pop())  # empty when the file ends with a newline
    readable = [line for line in lines if _event(line) is not None]
    return _Lines(readable, len(lines) - len(readable), torn)


def _event(line: str) -> Event | None:
    """Return what a line says, or None if it is damaged."""
    try:
        values = json.loads(line)
        return event_from_dict(values) if isinstance(values, dict) else None
    except (ValueError, RecursionError):
        return None


def _merged(own: list[str], copy: list[str]) -> Iterable[str]:
    """Put together the lines of two files of one history: what only one of them has stays in its place.

    No line stands twice, because events carry their times.
    """
    places = {line: place for place, line in enumerate(own)}
    given = 0
    for line in copy:
        place = places.get(line)
        if place is None:
            yield line
        elif place >= given:
            yield from own[given : place + 1]
            given = place + 1
    yield from own[given:]


def _cut_torn_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
