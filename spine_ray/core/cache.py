"""Derived files of this machine: content-addressed, built once under a lock, held while in use, evicted by age.

An entry is a folder `cache_folder()/KIND/KEY` with its lock `KEY.lock` beside it. What is being built is named `.part`,
what is being deleted `.gone`; nobody reads either. For local POSIX file systems.
"""

import errno
import fcntl
import functools
import math
import os
import shutil
import weakref
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, get_args

from filelock import FileLock, Timeout

Kind = Literal["pixels", "activations", "features", "weights"]
GB = 10**9
RESERVE = GB
"""Bytes of a disk that are left free."""
SUM_BYTES = 4
"""Of a checksum."""
_BLOCK = 1 << 20
_MARK = "held"
"""The file of an entry that its users lock."""


class NoRoomError(ValueError):
    """The disk of the cache is too small."""


def cache_folder() -> Path:
    """Return where derived files live: `$SPINE_RAY_CACHE`, else `~/.cache/spine_ray`."""
    return Path(os.environ.get("SPINE_RAY_CACHE", Path.home() / ".cache" / "spine_ray"))


def entry_folder(kind: Kind, key: str) -> Path:
    """Return the folder of an entry; `key` changes with whatever the entry is made from."""
    return cache_folder() / kind / key


def cache_budget() -> int:
    """Return how many bytes the cache may keep.

    `$SPINE_RAY_CACHE_GB`, else 50 GB or 30 % of what the disk would have free without the cache, whichever is less.

    Raises:
        ValueError: If `$SPINE_RAY_CACHE_GB` is no positive number.
    """
    given = os.environ.get("SPINE_RAY_CACHE_GB")
    if given is None:
        return min(50 * GB, 3 * (_free(cache_folder()) + sum(map(_size, _entries()))) // 10)
    try:
        size = float(given)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise ValueError(f"SPINE_RAY_CACHE_GB is {given!r}; it must be a positive number, in GB")
    return int(size * GB)


class Hold:
    """Keeps an entry from eviction for as long as it lives, at most as long as its process."""

    def __init__(self, folder: Path) -> None:
        """Take the entry and mark it as used now.

        Raises:
            FileNotFoundError: If there is no such entry (any more).
        """
        mark = _open_mark(folder)
        fcntl.flock(mark, fcntl.LOCK_SH)
        while not _is_mark(mark, folder):  # the entry went while its lock was awaited
            os.close(mark)
            mark = _open_mark(folder)
            fcntl.flock(mark, fcntl.LOCK_SH)
        self.folder = folder
        weakref.finalize(self, os.close, mark)
        os.utime(folder)


def build_entry(folder: Path, write: Callable[[Path], None]) -> Hold:
    """Build an entry unless it exists, and return the hold on it.

    Args:
        folder: The entry.
        write: Fills the empty folder that it is given.

    Raises:
        NoRoomError: If the disk is full; nothing is left of the entry.
    """

    def make(building: Path) -> None:
        building.mkdir()
        write(building)

    with FileLock(f"{folder}.lock"):
        _build(folder, make)
        return Hold(folder)  # under the lock, without which nobody evicts


def build_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Build one file of an entry unless it exists, waiting for whoever is building it; the caller holds the entry.

    Raises:
        NoRoomError: If the disk is full; nothing is left of the file.
    """
    _check_entry(path.parent)
    with FileLock(f"{path}.lock"):
        _build_file(path, write)


def try_build_file(path: Path, write: Callable[[BinaryIO], object]) -> bool:
    """Do as `build_file`, but return False at once where another is building the file, else True: it is there.

    Raises:
        NoRoomError: If the disk is full; nothing is left of the file.
    """
    _check_entry(path.parent)
    if not path.exists() and (lock := _lock_now(path)):
        with lock:
            _build_file(path, write)
    return path.exists()


def discard(path: Path) -> None:
    """Remove a damaged entry, or a damaged file of one; whoever has it open keeps what they have."""
    with FileLock(f"{path}.lock"):
        if path.is_dir():
            _delete(_named(path, "gone"))
            path.rename(_named(path, "gone"))
            _delete(_named(path, "gone"))
        else:
            _delete(path)


class Summed:
    """Writes to a file, and at its end the CRC-32 of all that it wrote."""

    def __init__(self, file: BinaryIO) -> None:
        """Write from where the file stands."""
        self._file, self._sum = file, 0

    def write(self, content: bytes | memoryview) -> None:
        """Write some bytes."""
        self._file.write(content)
        self._sum = zlib.crc32(content, self._sum)

    def close(self) -> None:
        """Write the checksum."""
        self._file.write(self._sum.to_bytes(SUM_BYTES, "big"))


def is_whole(path: Path) -> bool:
    """Say whether a file that `Summed` wrote is what it wrote; a file is read for that once in a process."""
    facts = path.stat()
    return _is_whole(path, facts.st_ino, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=10_000)
def _is_whole(path: Path, *facts: int) -> bool:
    total, left = 0, path.stat().st_size - SUM_BYTES
    if left < 0:
        return False
    with path.open("rb") as file:
        while left and (block := file.read(min(left, _BLOCK))):
            total, left = zlib.crc32(block, total), left - len(block)
        return file.read() == total.to_bytes(SUM_BYTES, "big")


def evict(budget: int) -> None:
    """Remove what the dead left, then entries that nobody holds, the longest unused first, down to `budget` bytes."""
    with FileLock(cache_folder() / "evict.lock"):
        entries = _entries()
        for folder in entries:
            _delete(_named(folder, "gone"))
            if lock := _lock_now(folder):
                with lock:
                    _delete(_named(folder, "part"))
        total = sum(map(_size, entries))
        for folder in sorted(filter(Path.exists, entries), key=lambda folder: folder.stat().st_mtime_ns):
            if total <= budget:
                break
            size = _size(folder)
            if _remove(folder):
                total -= size


def check_room(folder: Path, needed: int) -> None:
    """Check that a number of bytes fit on the disk of a folder, which need not exist yet, beside the reserve.

    Raises:
        NoRoomError: If they do not.
    """
    if _free(folder) - RESERVE < needed:
        raise _no_room(folder, f"{needed / GB:.1f} GB and a reserve of {RESERVE / GB:.0f} GB are")


def _check_entry(folder: Path) -> None:
    """Refuse a folder that is gone, which the lock's library would make again, without a lock of its own."""
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no longer in the cache", str(folder))


def _build(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file or a folder under another name, bring it to the disk and rename it; the caller has its lock."""
    if path.exists():
        return
    building = _named(path, "part")
    _delete(building)  # ours alone under the lock: what lies there is of the dead
    try:
        make(building)
        for part in [*building.rglob("*"), building]:
            _flush(part)
        building.rename(path)
    except BaseException as error:
        _delete(building)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room(path.parent, "more is") from error
        raise
    _flush(path.parent)


def _build_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    def make(building: Path) -> None:
        with building.open("wb") as file:
            write(file)

    _build(path, make)


def _entries() -> list[Path]:
    """Return the places of all entries, also evicted ones; a folder without a lock beside it is not ours."""
    locks = (lock for kind in get_args(Kind) for lock in (cache_folder() / kind).glob("*.lock"))
    return [lock.with_suffix("") for lock in locks]


def _remove(folder: Path) -> bool:
    """Remove an entry unless somebody builds or holds it, and return whether it was removed."""
    if (lock := _lock_now(folder)) is None:
        return False
    with lock:
        mark = _open_mark(folder)
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rename(_named(folder, "gone"))
        except BlockingIOError:
            return False
        finally:
            os.close(mark)
    _delete(_named(folder, "gone"))
    return True


def _lock_now(path: Path) -> AbstractContextManager[object] | None:
    """Take the lock of a path unless another has it."""
    try:
        return FileLock(f"{path}.lock").acquire(timeout=0)
    except Timeout:
        return None


def _open_mark(folder: Path) -> int:
    return os.open(folder / _MARK, os.O_RDWR | os.O_CREAT, 0o666)


def _is_mark(mark: int, folder: Path) -> bool:
    """Return whether a descriptor is of the mark that the folder has now."""
    try:
        return os.path.samestat((folder / _MARK).stat(), os.fstat(mark))
    except FileNotFoundError:
        return False


def _named(path: Path, state: Literal["part", "gone"]) -> Path:
    return path.with_name(f"{path.name}.{state}")


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    """Return the bytes of an entry, of what is being built for it and of what is left of it."""
    total = 0
    for place in (folder, _named(folder, "part"), _named(folder, "gone")):
        for root, _, names in os.walk(place):
            for name in names:
                with suppress(FileNotFoundError):  # a builder has just renamed it
                    total += Path(root, name).stat().st_size
    return total


def _free(folder: Path) -> int:
    """Return the free bytes of a folder's disk; the folder need not exist yet."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _no_room(folder: Path, needed: str) -> NoRoomError:
    return NoRoomError(
        f"{needed} needed, but {_free(folder) / GB:.1f} GB are free on the disk of {folder}: "
        "set SPINE_RAY_CACHE to a folder on another disk"
    )
