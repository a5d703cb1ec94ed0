import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spine_ray.climb.interruption import INTERRUPTED, interruptible
from tests.support.patience import PATIENCE_S, overtime

ROOT = Path(__file__).parents[1]
BLOCK = """
import sys, time
import spine_ray.climb.interruption as interruption
interruption.GRACE_S = {grace_s}
try:
    with interruption.interruptible(lambda: print("told", flush=True)):
        try:
            print("ready", flush=True)
            time.sleep(3600)
        finally:
            print("closing", flush=True)
            time.sleep({closing_s})
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
    ("closing_s", "grace_s", "signals", "told", "after_s"),
    [
        (0, 3600, (signal.SIGTERM,), "closed", 0),
        (3600, 3600, (signal.SIGINT, signal.SIGTERM), "told", 0),  # the second one does not wait
        (3600, 1, (signal.SIGINT,), "told", 1),  # nor does the process, for ever
    ],
)
def test_a_process_ends_in_order_or_else_at_once(
    closing_s: int, grace_s: int, signals: tuple[signal.Signals, ...], told: str, after_s: int
) -> None:
    words = [sys.executable, "-c", BLOCK.format(closing_s=closing_s, grace_s=grace_s)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        process.send_signal(signals[0])
        assert process.stdout.readline() == "closing\n"
        for number in signals[1:]:
            process.send_signal(number)
        assert process.wait(timeout=PATIENCE_S) == INTERRUPTED
        seconds = time.monotonic() - began
        assert process.stdout.read() == f"{told}\n"
    assert after_s <= seconds < after_s + overtime()
