"""Object stores that need no package of their own: pyarrow opens them, fsspec's calls are passed on to it."""

import functools
from typing import Any

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import FileSystem


class _ArrowStore(ArrowFSWrapper):  # type: ignore[misc]
    """An object store; its files are streams, in which nothing can be skipped."""

    def cat_file(self, path: str, start: None = None, end: int | None = None, **_: Any) -> bytes:
        with self.open(path, "rb") as file:
            content: bytes = file.read(end)
        return content


@functools.lru_cache(maxsize=8)
def through_arrow(uri: str) -> tuple[_ArrowStore, str]:
    """Open a store, and return the file system and the path in it.

    Raises:
        ValueError: If it cannot be opened.
    """
    try:
        store, path = FileSystem.from_uri(uri)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"cannot open {uri}: {' '.join(str(error).split())}") from error
    return _ArrowStore(store), path
