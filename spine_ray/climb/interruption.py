"""Ctrl-C and a polite kill: the search stops within seconds, whatever it is doing, and nothing finished is lost."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

INTERRUPTED = 130
"""The exit code of a search that was interrupted and can go on."""
GRACE_S = 8.0
"""What closing everything in order may take, s; after that the process just ends."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def interruptible(say: Callable[[], None]) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM of the block into a KeyboardInterrupt, and a second one into the end.

    What is in the ledger and in the checkpoints is on the disk already, so that the end may be abrupt: ray's processes
    end with this one. The process also ends if it is still here `GRACE_S` after the first signal, be it closing or
    held up in a library that does not return. To be called in the main thread.

    Args:
        say: Tells the user how to go on; called before the process ends where the block cannot.
    """
    earlier = {each: signal.getsignal(each) for each in _SIGNALS}
    count = 0

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1
        if count == 1:  # what a second one does is the watcher's
            raise KeyboardInterrupt

    with _watcher(say):
        for each in _SIGNALS:
            signal.signal(each, interrupt)
        try:
            yield
        finally:
            for each, handler in earlier.items():
                signal.signal(each, handler)


@contextlib.contextmanager
def _watcher(say: Callable[[], None]) -> Iterator[None]:
    """End the process from a thread of its own: Python's handlers wait until the main thread leaves a library."""
    received, written = socket.socketpair()
    written.setblocking(False)
    thread = threading.Thread(target=_watch, args=(received, say), name="signals", daemon=True)
    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        written.close()
        thread.join()
        received.close()


def _watch(received: socket.socket, say: Callable[[], None]) -> None:
    """Read the numbers of signals until the other side is closed; leave at the second, or when the grace is over."""
    ends, count = None, 0
    while True:
        ready, _, _ = select.select([received], [], [], None if ends is None else max(0.0, ends - time.monotonic()))
        numbers = received.recv(64) if ready else b""
        if ready and not numbers:
            return
        count += sum(number in _SIGNALS for number in numbers)
        if count > 1 or not ready:
            say()
            os._exit(INTERRUPTED)
        if count == 1 and ends is None:
            ends = time.monotonic() + GRACE_S
