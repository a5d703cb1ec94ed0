"""The file in which entries wait while the tracking store is away: JSON lines beside the study."""

import logging
from collections.abc import Iterable
from pathlib import Path

from spine_ray.track.records import Entry, entry_from_line, entry_to_line

_log = logging.getLogger(__name__)


class Spool:
    """Entries in a file, oldest first. Not locked: whoever shares one holds a lock of their own."""

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist, and does not while nothing waits."""
        self.path = path

    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self.path.exists()

    def append(self, entries: Iterable[Entry]) -> None:
        """Add entries at the end."""
        text = "".join(entry_to_line(entry) + "\n" for entry in entries)
        if not text:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    def read(self) -> tuple[list[Entry], int]:
        """Return the waiting entries in the order of their times, and how many lines they were read from.

        A line that cannot be read (a crash cut it short) is left out with a warning.
        """
        if self.is_empty():
            return [], 0
        lines = self.path.read_text(encoding="utf-8").splitlines()
        entries = []
        for line in lines:
            try:
                entries.append(entry_from_line(line))
            except ValueError:
                _log.warning("a line of %s cannot be read and is left out", self.path)
        return sorted(entries, key=lambda entry: entry.at_ms), len(lines)

    def drop(self, lines: int) -> None:
        """Remove the first `lines` lines, and the file with the last of them."""
        if self.is_empty():
            return
        rest = self.path.read_text(encoding="utf-8").splitlines(keepends=True)[lines:]
        if not rest:
            self.path.unlink()
            return
        temporary = self.path.with_name(self.path.name + ".tmp")
        temporary.write_text("".join(rest), encoding="utf-8")
        temporary.replace(self.path)
