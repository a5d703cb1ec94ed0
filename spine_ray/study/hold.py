"""Who may write to a study: one search at a time, and its own workers only."""

import contextlib
import uuid
from collections.abc import Iterator

from filelock import FileLock, Timeout

from spine_ray.study.paths import StudyPaths, replace_text


class LostHoldError(ValueError):
    """A worker of a search that is dead, or as good as dead, wants to write to a study that another search holds."""


@contextlib.contextmanager
def held(paths: StudyPaths) -> Iterator[str]:
    """Hold the study against other writers for the time of the block, whose value names this hold.

    Raises:
        ValueError: If another process holds it.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another search is writing to {paths.root} (it holds {paths.lock.name})") from error
    try:
        holder = uuid.uuid4().hex
        with FileLock(paths.fence):
            replace_text(paths.holder, holder)
        yield holder
    finally:
        lock.release()


@contextlib.contextmanager
def publishing(paths: StudyPaths, holder: str) -> Iterator[None]:
    """Let a worker put a file in its place, which takes a moment; nobody else takes the study in the meantime.

    A killed search may leave workers that train on for a while. The lock of the study was the dead process's, so they
    are told by the name of the hold that they were handed with their work.

    Raises:
        LostHoldError: If the study is held under another name by now.
    """
    with FileLock(paths.fence):
        if not paths.holder.exists() or paths.holder.read_text(encoding="utf-8") != holder:
            raise LostHoldError(
                f"another search holds {paths.root} by now: nothing more is written for the earlier one"
            )
        yield
