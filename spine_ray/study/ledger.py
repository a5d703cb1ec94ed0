"""The ledger: append-only, one line an event of a trial. Everything else is derived from it or named by it."""

import json
import logging
import os
from pathlib import Path
from typing import BinaryIO

from spine_ray.study.events import Event, event_from_dict, event_to_dict

_log = logging.getLogger(__name__)


def read_ledger(path: Path) -> list[Event]:
    """Return all events in order; a torn last line, left by a death while writing, is dropped and said.

    Raises:
        ValueError: If another line cannot be read, with its number.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    torn = lines.pop()  # empty when the file ends with a newline
    if torn:
        _log.warning("dropped the torn last line of %s (%d characters)", path, len(torn))
    events = []
    for number, line in enumerate(lines, 1):
        try:
            events.append(_read_line(line))
        except ValueError as error:
            raise ValueError(f"line {number} of {path} cannot be read: {error}") from error
    return events


def append_event(path: Path, event: Event) -> None:
    """Append one event and hand it to the disk before returning. A torn last line is cut off first.

    A loss that is not a number is written as Python's `NaN`: a diverged trial must be a row, not an error.
    """
    line = json.dumps(event_to_dict(event)) + "\n"
    with path.open("a+b") as file:
        _cut_torn_line(file)
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def drop_torn_line(path: Path) -> int:
    """Cut off the last line if a death while writing left it torn, and return its bytes; 0 if it is whole."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        _cut_torn_line(file)
    return size - path.stat().st_size


def _read_line(line: str) -> Event:
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError(f"an event is a JSON object, not {line[:40]!r}")
    return event_from_dict(values)


def _cut_torn_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
