"""Lines and a bar for a machine that may have nothing but Python: what predicting shows."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

DRAW_PAUSE_S = 0.2
"""Least time between two drawings of the bar, s."""
LINE_PAUSE_S = 10.0
"""Least time between two lines where there is no terminal, s."""
_WIDTH = 30


def say(line: str) -> None:
    """Write a line to standard output."""
    sys.stdout.write(f"{line}\n")


def fail(error: BaseException) -> None:
    """Write an error as one line to standard error."""
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")


class RowsBar:
    """How far a run is: one line that is drawn again on a terminal, a line now and then elsewhere."""

    def __init__(self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to a stream, standard error by default; `clock` gives seconds."""
        self._stream = stream or sys.stderr
        self._clock, self._is_drawn = clock, False
        self._began = self._last = clock()
        self._live = self._stream.isatty()

    def show(self, done: int, rows: int | None) -> None:
        """Show rows done, of all where that is known; 0 says that the run begins now."""
        now = self._clock()
        if done == 0:
            self._began = self._last = now
        if now - self._last < (DRAW_PAUSE_S if self._live else LINE_PAUSE_S):
            return
        self._last = now
        text = bar_text(done, rows, now - self._began)
        self._stream.write(f"\r\x1b[2K{text}" if self._live else f"{text}\n")
        self._stream.flush()
        self._is_drawn = self._live

    def close(self) -> None:
        """Leave the terminal as it was; safe to call twice."""
        if self._is_drawn:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
            self._is_drawn = False


def bar_text(done: int, rows: int | None, seconds: float) -> str:
    """Return a bar with what is left, or what is done where the end is not known."""
    rate = done / seconds if seconds > 0 else 0.0
    if not rows:
        return f"{done:,} pictures, {rate:,.0f} a second"
    filled = min(_WIDTH, _WIDTH * done // rows)
    left = (rows - done) / rate if rate else 0.0
    minutes, rest = divmod(round(left), 60)
    bar = "=" * filled + " " * (_WIDTH - filled)
    return f"[{bar}] {done:,} of {rows:,} pictures, {rate:,.0f} a second, {minutes}:{rest:02d} left"
