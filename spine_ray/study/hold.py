"""Who may write to a study: one search at a time, on all machines that share its folder, and its own workers only.

On one machine a lock of the kernel's says so, which ends with its process. On a shared mount such a lock is not to be
relied on: many keep locks to each machine. So the lock file also names its holder, who renews its entry every few
seconds; another machine's holder is taken for dead once it has not done so for a while. Only changes are looked for, so
the machines' clocks need not agree.
"""

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from spine_ray.study.paths import CannotWriteError, StudyPaths, cannot_write, replace_text

BEAT_S = 5.0
"""How often a holder renews its entry, s."""
SILENCE_S = 4 * BEAT_S
"""A holder on another machine that has not renewed its entry for so long is taken for dead, s."""
SETTLE_S = 1.0
"""Where there are no locks: two that came at the same moment find out after this time, s, whose entry stands."""


class LostHoldError(ValueError):
    """A worker of a search that is dead, or as good as dead, wants to write to a study that another search holds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who writes to a study."""

    host: str
    pid: int
    since: str
    """UTC, ISO 8601."""
    machine: str
    """The same for two processes exactly when one kernel runs both."""
    token: str
    """Another for every hold."""
    beats: int = 0

    @property
    def words(self) -> str:
        """The holder for people."""
        return f"process {self.pid} on {self.host}, since {self.since}"


@dataclass(frozen=True, slots=True)
class Hold:
    """A study that this process may write to."""

    token: str
    """Names this hold; another for every hold."""
    before: Holder | None
    """Who held it before and ended without letting go; None where nobody did."""


class StudyHeldError(ValueError):
    """Another process writes to the study."""


@contextlib.contextmanager
def held(paths: StudyPaths) -> Iterator[Hold]:
    """Hold the study against other writers for the time of the block.

    Raises:
        StudyHeldError: If another process holds it; with its host, its id and since when.
        CannotWriteError: If nothing can be written there.
    """
    made = [folder for folder in (paths.root, *paths.root.parents) if not folder.exists()]
    try:
        paths.root.mkdir(parents=True, exist_ok=True)
        lock, is_locked = _open(paths.lock)
    except OSError as error:
        raise cannot_write(paths.lock, error) from error
    try:
        mine, before = _take(paths, lock, is_locked)
        try:
            with FileLock(paths.fence):
                replace_text(paths.holder, mine.token)
            with _renewed(paths, lock, mine):
                yield Hold(mine.token, before)
        finally:
            if _is_entered(paths, mine):
                os.ftruncate(lock, 0)
                _forget(paths, made)
    finally:
        os.close(lock)


@contextlib.contextmanager
def publishing(paths: StudyPaths, token: str) -> Iterator[None]:
    """Let a worker put a file in its place, which takes a moment; nobody else takes the study in the meantime.

    A killed search may leave workers that train on for a while. The lock of the study was the dead process's, so they
    are told by the name of the hold that they were handed with their work.

    Raises:
        LostHoldError: If the study is held under another name by now.
    """
    with FileLock(paths.fence):
        if not paths.holder.exists() or paths.holder.read_text(encoding="utf-8") != token:
            raise LostHoldError(
                f"another search holds {paths.root} by now: nothing more is written for the earlier one"
            )
        yield


def holder_of(paths: StudyPaths) -> Holder | None:
    """Return whom the lock file names, alive or not; None where it names nobody."""
    try:
        return Holder(**json.loads(paths.lock.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # it is empty, or just being written
        return None


def this_process() -> Holder:
    """Return this process as the holder of a new hold."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        token=uuid.uuid4().hex,
    )


def _open(path: Path) -> tuple[int, bool | None]:
    """Open the lock file, and return whether the kernel's lock on it is ours; None where there are no such locks."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        is_locked = _lock(lock)
        if not is_locked or _is_at(lock, path):
            return lock, is_locked
        os.close(lock)  # the holder removed the file while we opened it


def _take(paths: StudyPaths, lock: int, is_locked: bool | None) -> tuple[Holder, Holder | None]:
    """Enter this process as the holder; return its entry and who was entered before."""
    before = holder_of(paths)
    is_alive = is_locked is False
    if before is not None and not is_alive and (is_locked is None or before.machine != _machine()):
        is_alive = _gives_sign_of_life(paths, before)
    if is_alive:
        who = before.words if before else "a process that has not entered its name"
        raise StudyHeldError(
            f"{paths.root} is being written to by {who}; wait until it has ended, or name another study"
        )
    mine = this_process()
    _enter(paths, lock, mine)
    if is_locked is None:
        time.sleep(SETTLE_S)
        if not _is_entered(paths, mine):
            raise StudyHeldError(f"{paths.root} is being written to by another process that began at the same moment")
    return mine, before


def _lock(lock: int) -> bool | None:
    """Take the kernel's lock; False where another has it, None where this file system has none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return True


def _gives_sign_of_life(paths: StudyPaths, before: Holder) -> bool:
    """Watch whether somebody renews the entry."""
    end = time.monotonic() + SILENCE_S
    while time.monotonic() < end:
        if holder_of(paths) != before:
            return True
        time.sleep(BEAT_S / 10)
    return False


def _enter(paths: StudyPaths, lock: int, holder: Holder) -> None:
    entry = json.dumps(asdict(holder)).encode()
    try:
        os.pwrite(lock, entry, 0)
        os.ftruncate(lock, len(entry))
        os.fsync(lock)
    except OSError as error:
        raise cannot_write(paths.lock, error) from error


@contextlib.contextmanager
def _renewed(paths: StudyPaths, lock: int, mine: Holder) -> Iterator[None]:
    """Renew the entry for the time of the block; interrupt this process if another has taken the study over."""

    def renew(beats: int) -> bool:
        if not _is_entered(paths, mine):
            return False
        with contextlib.suppress(CannotWriteError):  # a disk that is full for now; the next beat tries again
            _enter(paths, lock, replace(mine, beats=beats))
        return True

    with beating("study hold", BEAT_S, renew):
        yield


@contextlib.contextmanager
def beating(name: str, pause_s: float, renew: Callable[[int], bool]) -> Iterator[None]:
    """Renew a hold from a thread for the time of the block; interrupt this process once the hold is lost.

    Args:
        name: Of the thread.
        pause_s: Between two beats, s.
        renew: Given the number of the beat, from 1; returns whether the hold is still this process's.
    """
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(pause_s):
            beats += 1
            if not renew(beats):  # this machine was asleep, or cut off, for too long
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=beat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _is_entered(paths: StudyPaths, mine: Holder) -> bool:
    """Say whether this process is still the holder, which it is unless another has entered itself."""
    now = holder_of(paths)
    return now is None or now.token == mine.token


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), path.stat())
    except FileNotFoundError:
        return False


def _forget(paths: StudyPaths, made: list[Path]) -> None:
    """Leave nothing of a study that was never begun."""
    if paths.record.exists():
        return
    for path in (paths.lock, paths.holder, paths.fence):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else lies there
        for folder in made:
            folder.rmdir()


def _machine() -> str:
    """Return what is the same for two processes exactly when one kernel runs both."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return boot.read_text().strip() if boot.exists() else socket.gethostname()
