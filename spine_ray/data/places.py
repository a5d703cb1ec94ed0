"""Where the user's files lie: local paths and URIs, opened through fsspec. Knows nothing of pictures or labels."""

import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A file or folder that fsspec can open; cheap to pickle, opened again wherever it is used."""

    uri: str
    """An absolute local path or a URI: it means the same in every process."""

    @classmethod
    def of(cls, given: str) -> "Place":
        """Return the place that the user named; a relative local path is taken from the working folder."""
        if "://" in given or "::" in given:
            return cls(uri=given.rstrip("/") if not given.endswith("://") else given)
        return cls(uri=str(Path(given).expanduser().absolute()))

    @property
    def parent(self) -> "Place":
        """The folder that holds this place; of a chained URI, the folder inside the innermost archive."""
        head, chain, outer = self.uri.partition("::")
        protocol, mark, path = head.rpartition("://")
        folder = path.rpartition("/")[0]
        if not folder and path.startswith("/"):
            folder = "/"
        return Place(uri=f"{protocol}{mark}{folder}{chain}{outer}")

    def open(self) -> tuple[Any, str]:
        """Return the file system and the path in it, without a slash at the end.

        Raises:
            ValueError: If no installed file system knows the URI.
        """
        try:
            fs, path = fsspec.core.url_to_fs(self.uri)
        except (ImportError, ValueError) as error:
            raise ValueError(f"cannot open {self.uri}: {error}") from error
        return fs, str(path).rstrip("/")

    def read(self, path: str) -> bytes:
        """Return the bytes of the file at `path`, which is relative to this folder."""
        fs, root = self.open()
        return bytes(fs.cat_file(f"{root}/{path}" if root else path))

    def relative(self, path: str) -> str:
        """Return `path`, relative to this folder or absolute inside it, as a clean relative path.

        Only the spelling is judged: links inside the folder may lead anywhere, as they do in the caches of hubs
        and in annexes.

        Raises:
            ValueError: If the path leaves this folder.
        """
        _, root = self.open()
        protocol, mark, rest = path.rpartition("://")
        clean = f"{protocol}{mark}{posixpath.normpath(rest)}"
        for prefix in (self.uri, root):
            if prefix and clean.startswith(f"{prefix.rstrip('/')}/"):
                return clean[len(prefix.rstrip("/")) + 1 :]
        if mark or clean.startswith("/") or clean == "." or clean.split("/")[0] == "..":
            raise ValueError(f"the path {path!r} leaves the data's folder {self.uri}: only paths inside it are read")
        return clean

    def first_missing(self, paths: Iterable[str]) -> str | None:
        """Return the first of the relative paths at which there is no file; None if all are there.

        Folders are listed once each, because asking an object store for one file at a time takes minutes.
        """
        fs, root = self.open()
        listed: dict[str, set[str]] = {}
        for path in paths:
            full = f"{root}/{path}" if root else path
            folder = posixpath.dirname(full)
            if folder not in listed:
                listed[folder] = _names_in(fs, folder)
            if posixpath.basename(full) not in listed[folder] and not fs.isfile(full):
                return path
        return None


def _names_in(fs: Any, folder: str) -> set[str]:
    try:
        entries = fs.ls(folder, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {posixpath.basename(entry["name"]) for entry in entries if entry["type"] != "directory"}
