"""Where the user's files lie: local paths and URIs, opened through fsspec. Knows nothing of pictures or labels."""

import errno
import os
import posixpath
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from spine_ray.data.pictures import MAX_BYTES

_NO_FOLDER = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""What a file system says of a name at which there can be no folder."""
_STORES = ("s3", "gs", "abfs")
"""Object stores that pyarrow opens."""
ADVICE = "--data-root DIR allows all of DIR"
"""Where a study's data leaves its folder; new pictures have no such option."""
LEAVES = f"is a link that leaves the data's folder: only files inside it are read ({ADVICE})"


class FileTooLargeError(ValueError):
    """A file of more bytes than a picture has, perhaps only once it is unpacked."""


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
            ValueError: If no installed file system knows the URI, or an archive is damaged.
        """
        try:
            fs, path = fsspec.core.url_to_fs(self.uri)
        except ImportError as error:  # fsspec's own package for such a store is not installed; Arrow may know it
            if self.uri.partition("://")[0] not in _STORES:
                raise ValueError(f"cannot open {self.uri}: {error}") from error
            from spine_ray.data.arrow_store import through_arrow  # here: a bundle predicts without pyarrow

            fs, path = through_arrow(self.uri)
        except (ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise ValueError(f"cannot open {self.uri}: {error}") from error
        return fs, str(path).rstrip("/")

    def read(self, path: str) -> bytes:
        """Return the bytes of the file at `path`, which is relative to this folder.

        Raises:
            FileTooLargeError: If there are more than `MAX_BYTES`; no more than these are read.
        """
        content = self._local_content(path) if self._is_local else self._remote_content(path)
        if len(content) > MAX_BYTES:
            raise FileTooLargeError(f"{path} in {self.uri} has more than {MAX_BYTES} bytes")
        return content

    @property
    def _is_local(self) -> bool:
        """Whether it needs no fsspec, which takes longer for a small file than decoding it."""
        return "://" not in self.uri and "::" not in self.uri

    @property
    def _local_root(self) -> str:
        return self.uri.rstrip("/")

    def _local_content(self, path: str) -> bytes:
        with Path(f"{self._local_root}/{path}").open("rb") as file:
            # No more is asked for than there is: a buffer of the whole size is made before the first byte is read.
            return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)

    def _remote_content(self, path: str) -> bytes:
        fs, root = self.open()
        return bytes(fs.cat_file(f"{root}/{path}" if root else path, end=MAX_BYTES + 1))

    def relative(self, path: str, root: "Place | None" = None) -> str:
        """Return `path`, relative to this folder or absolute, as a clean path relative to this folder.

        Only the spelling is judged here; where links lead, `first_leaving` says.

        Args:
            path: As the user's table has it.
            root: A local folder that the path may lie in instead of this one.

        Raises:
            ValueError: If the path leaves this folder, or the root.
        """
        own = self._local_root if self._is_local else self.open()[1]
        protocol, mark, rest = path.rpartition("://")
        clean = f"{protocol}{mark}{posixpath.normpath(rest)}"
        for prefix in (self.uri, own):
            if prefix and clean.startswith(f"{prefix.rstrip('/')}/"):
                return clean[len(prefix.rstrip("/")) + 1 :]
        if not (mark or clean.startswith("/") or clean == "." or clean.split("/")[0] == ".."):
            return clean
        full = posixpath.normpath(posixpath.join(own, clean))
        if root is not None and not mark and _is_below(full, root.open()[1]):
            return posixpath.relpath(full, own)
        left = f"--data-root {root.uri}" if root else f"the data's folder {self.uri}"
        raise ValueError(f"the path {path!r} leaves {left}: only paths inside it are read")

    def first_leaving(self, paths: Iterable[str], root: "Place | None" = None) -> str | None:
        """Return the first of the relative paths that leads out of this folder, or the root, by a link; else None.

        Other file systems than local ones have no links.
        """
        fs, own = self.open()
        if not isinstance(fs, LocalFileSystem):
            return None
        allowed = os.path.realpath((root or self).open()[1] or "/")
        folders: dict[str, str] = {}  # many pictures lie in one
        for path in paths:
            folder, name = posixpath.split(f"{own}/{path}")
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            full = posixpath.join(folders[folder], name)
            if not _is_below(os.path.realpath(full) if os.path.islink(full) else full, allowed):  # noqa: PTH114
                return path
        return None

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
    except OSError as error:
        if error.errno in _NO_FOLDER or isinstance(error, FileNotFoundError | NotADirectoryError):
            return set()
        raise
    return {posixpath.basename(entry["name"]) for entry in entries if is_file(entry)}


def is_file(entry: dict[str, Any]) -> bool:
    """Say whether an entry of a listing is a file, or a link to one: a pipe or a device would be read for ever."""
    if entry.get("islink"):
        return Path(entry["name"]).is_file()
    return bool(entry["type"] == "file")


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")
