import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spine_ray.climb.interruption import INTERRUPTED, interruptible

ROOT = Path(__file__).parents[1]
BLOCK = """
import sys, time
import spine_ray.climb.interruption as interruption
interruption.GRACE_S = 1.0
try:
    with interruption.interruptible(lambda: print("told", flush=True)):
        print("ready", flush=True)
        try:
            time.sleep(60)
        finally:
            {closing}
except KeyboardInterrupt:
    print("closed", flush=True)
    sys.exit(interruption.INTERRUPTED)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_the_handlers_of_before_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: None):
        signal.raise_signal(number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize(
    ("closing", "signals", "told"),
    [
        ("pass", (signal.SIGTERM,), "closed"),
        ("time.sleep(60)", (signal.SIGINT, signal.SIGTERM), "told"),  # the second one does not wait
        ("time.sleep(60)", (signal.SIGINT,), "told"),  # nor does the process, for ever
    ],
)
def test_a_process_ends_in_order_or_else_at_once(closing: str, signals: tuple[signal.Signals, ...], told: str) -> None:
    words = [sys.executable, "-c", BLOCK.format(closing=closing)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.2)
        assert process.wait(timeout=20) == INTERRUPTED
        assert time.monotonic() - began < 10.0
        assert process.stdout.read() == f"{told}\n"
