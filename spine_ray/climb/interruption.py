"""Ctrl-C and a polite kill: the search stops within seconds, whatever it is doing, and nothing finished is lost."""

import contextlib
import os
import signal
import threading
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
    end with this one. The process also ends if it is still here `GRACE_S` after the first signal, or held up longer in
    a library that does not return.

    Args:
        say: Tells the user how to go on; called before the process ends where the block cannot.
    """
    earlier = {each: signal.getsignal(each) for each in _SIGNALS}
    ending: list[threading.Timer] = []

    def leave() -> None:
        say()
        os._exit(INTERRUPTED)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if ending:
            leave()
        ending.append(threading.Timer(GRACE_S, leave))
        ending[0].daemon = True
        ending[0].start()
        raise KeyboardInterrupt

    for each in _SIGNALS:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for timer in ending:
            timer.cancel()
        for each, handler in earlier.items():
            signal.signal(each, handler)
