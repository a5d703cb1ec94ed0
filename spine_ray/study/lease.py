"""Who may write to a study at a URI: an object store has no locks, so its holder signs a file there again and again.

Whoever finds an entry watches it: where it changes, somebody is alive. Only changes are looked for, so the machines'
clocks need not agree. Two that come at the same moment find out after a moment whose entry stands.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace

from spine_ray.study.hold import Holder, LostHoldError, StudyHeldError, beating, this_process
from spine_ray.study.remote import LEASE, Remote

BEAT_S = 10.0
"""How often a holder signs, s."""
SILENCE_S = 4 * BEAT_S
"""A holder that has not signed for so long is taken for dead, s."""
SETTLE_S = 2.0
"""How long one that has entered itself waits whether another did at the same moment, s."""


@contextlib.contextmanager
def leased(remote: Remote, say: Callable[[str], None]) -> Iterator[str]:
    """Hold the study at a URI for the time of the block; yields the name of the hold.

    Args:
        remote: The URI.
        say: Told why it takes a while.

    Raises:
        StudyHeldError: If another process holds it; with its host, its id and since when.
        OSError: If the URI does not answer.
    """
    before = lease_of(remote)
    if before is not None and _is_alive(remote, before, say):
        raise StudyHeldError(
            f"{remote.uri} is being written to by {before.words}; wait until it has ended, or name another study"
        )
    mine = this_process()
    _sign(remote, mine)
    time.sleep(SETTLE_S)
    check_lease(remote, mine.token)
    try:
        with _signed(remote, mine):
            yield mine.token
    finally:
        with contextlib.suppress(OSError):  # where the URI is away, the lease falls silent by itself
            if (now := lease_of(remote)) is not None and now.token == mine.token:
                remote.delete(LEASE)


def check_lease(remote: Remote, token: str) -> None:
    """Look whether a study is still held under a name: workers of a dead search may train on for a while.

    Raises:
        LostHoldError: If it is not.
        OSError: If the URI does not answer.
    """
    now = lease_of(remote)
    if now is None or now.token != token:
        raise LostHoldError(f"another search holds {remote.uri} by now: nothing more is written for the earlier one")


def lease_of(remote: Remote) -> Holder | None:
    """Return who has signed, alive or not; None where nobody has.

    Raises:
        OSError: If the URI does not answer.
    """
    try:
        return Holder(**json.loads(remote.get(LEASE)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # of another form: nobody that could be told
        return None


def _is_alive(remote: Remote, before: Holder, say: Callable[[str], None]) -> bool:
    """Say whether a holder lives: at once where it was on this machine, else after watching its entry."""
    if before.machine == this_process().machine:
        return _is_running(before.pid)
    say(f"{remote.uri} was left by {before.words}: watching for {SILENCE_S:.0f} s whether it is alive")
    end = time.monotonic() + SILENCE_S
    while time.monotonic() < end:
        time.sleep(BEAT_S / 2)
        if lease_of(remote) != before:
            return True
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sign(remote: Remote, holder: Holder) -> None:
    remote.put(LEASE, json.dumps(asdict(holder)).encode())


@contextlib.contextmanager
def _signed(remote: Remote, mine: Holder) -> Iterator[None]:
    """Sign for the time of the block; interrupt this process if another has taken the study over."""

    def renew(beats: int) -> bool:
        try:
            check_lease(remote, mine.token)
            _sign(remote, replace(mine, beats=beats))
        except LostHoldError:
            return False
        except OSError:  # the network is away for now; the next beat tries again
            return True
        return True

    with beating("study lease", BEAT_S, renew):
        yield
