"""Who may write to a study: one process at a time."""

import contextlib
from collections.abc import Iterator

from filelock import FileLock, Timeout

from spine_ray.study.paths import StudyPaths


class StudyHeldError(ValueError):
    """Another process writes to the study."""


@contextlib.contextmanager
def held(paths: StudyPaths) -> Iterator[None]:
    """Hold the study against other writers for the time of the block.

    Raises:
        StudyHeldError: If another process holds it.
    """
    paths.root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudyHeldError(f"another search is writing to {paths.root} (it holds {paths.lock.name})") from error
    try:
        yield
    finally:
        lock.release()
