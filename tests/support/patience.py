"""Patience on a machine that may be slow and busy: events are waited for, and what is quick is measured beside others.

A number of seconds says little of such a machine. So a test waits for an event until it is there, and compares what it
claims to be quick with what something else takes there and then.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

PATIENCE_S = 120.0
"""Longest wait for what happens at all, s: a wait ends with its event, so that only what hangs meets this."""
BREATHS = 20
"""Starts of a bare Python that something may take beyond its time: on a busy machine all takes longer."""


def wait_for(look: Callable[[], Any]) -> Any:
    """Look again and again, and return what is seen once it is something."""
    end = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < end, f"it has not happened within {PATIENCE_S:.0f} s"
        time.sleep(0.02)
    return seen


def breath() -> float:
    """Return how long a bare Python takes to start and end now, s."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return time.monotonic() - began


@contextlib.contextmanager
def breaths() -> Iterator[list[float]]:
    """Measure breath after breath while the block runs, at least one; the list is whole when it is left."""
    taken, over = [breath()], threading.Event()

    def breathe() -> None:
        while not over.is_set():
            taken.append(breath())

    breathing = threading.Thread(target=breathe)
    breathing.start()
    try:
        yield taken
    finally:
        over.set()
        breathing.join()


def overtime() -> float:
    """Return how much longer than its time something may take now, s."""
    return BREATHS * breath()


def cpu_seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the CPU time of some work in this thread, s: the least of several times, since others only add to it.

    Not of the whole process: threads of a numerical library that have nothing to do wait by turning round.
    """
    found = []
    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return min(found)
