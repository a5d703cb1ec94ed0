"""A study at a URI: worked on in a local folder, sent there in few requests, fetched from there to go on.

An object store cannot append, so there the ledger is a folder of segments, each named by its first byte's place in the
whole. Everything else lies under the same names as in a folder. What an event names is sent before the event, so
whoever opens the URI finds a whole study, at most some seconds old.
"""

import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from spine_ray.study.paths import StudyPaths, replace_bytes

LEASE = "lease.json"
"""Names the search that holds the study at a URI."""
_KEPT_HERE = (
    "ray",
    "mlflow.db",
    "study.lock",
    "study.holder",
    "study.fence",
    "ledger.jsonl",
    "copies",
    "damaged",
    "checkpoints",
)
"""What stays in the local folder, or goes another way."""
_WRITTEN_ONCE = ("oof", "weights")
"""Folders whose files are never written twice: those of the right size need not be fetched again."""
_SEGMENTS, _CHECKPOINTS = "ledger", "checkpoints"
_MOST_SEGMENTS = 64
"""More than these become one when a study is opened."""
_AT_ONCE = 16
"""Files that are fetched at the same time."""
_Stamp = tuple[int, int]
"""Size in bytes and time of change, ns."""


def is_remote(place: str) -> bool:
    """Say whether words name a URI rather than a folder of this machine."""
    return len(urlsplit(place).scheme) > 1  # one letter is a drive


@dataclass(frozen=True, slots=True)
class Remote:
    """A folder at a URI that `pyarrow.fs` opens: `s3://`, `gs://`, `abfs://`, `hdfs://`, `file://`."""

    uri: str
    store: fs.FileSystem
    root: str

    @classmethod
    def at(cls, uri: str) -> "Remote":
        """Open a URI; nothing is asked of it yet.

        Raises:
            ValueError: If nothing here knows such URIs.
        """
        parts = urlsplit(uri)
        query = parts.query
        if parts.scheme == "s3":  # a small file is one request instead of three
            query = "&".join(filter(None, (query, "allow_delayed_open=true")))
        try:
            store, root = fs.FileSystem.from_uri(parts._replace(path=parts.path.rstrip("/"), query=query).geturl())
        except (pa.ArrowException, OSError, ValueError) as error:
            told = " ".join(str(error).split())
            raise ValueError(f"{uri} cannot be opened: {told} (allowed: s3://, gs://, abfs:// or a folder)") from error
        if not root.strip("/"):
            raise ValueError(f"{uri} names no folder (such as s3://BUCKET/studies/flowers)")
        return cls(uri, store, root)

    def put(self, name: str, content: bytes) -> None:
        """Write a file whole.

        Raises:
            OSError: If it cannot be written.
        """
        path = f"{self.root}/{name}"
        if isinstance(self.store, fs.LocalFileSystem):
            replace_bytes(Path(path), content)
            return
        with self.store.open_output_stream(path) as stream:
            stream.write(content)

    def get(self, name: str) -> bytes:
        """Read a file.

        Raises:
            OSError: If it is not there or cannot be read.
        """
        with self.store.open_input_stream(f"{self.root}/{name}") as stream:
            content: bytes = stream.read()
        return content

    def delete(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OSError: If the URI does not answer.
        """
        try:
            self.store.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size of every file in a folder, bytes, by name relative to the URI; empty where there is none."""
        chosen = fs.FileSelector(f"{self.root}/{folder}".rstrip("/"), allow_not_found=True, recursive=True)
        files = [each for each in self.store.get_file_info(chosen) if each.type == fs.FileType.File]
        return {each.path[len(self.root) :].lstrip("/"): int(each.size) for each in files}


@dataclass(slots=True)
class Mirror:
    """The local folder of a study at a URI, and how much of it is there already.

    Safe to use from two threads: one that sends, one that fetches what other machines have sent.

    Args:
        remote: The URI.
        folder: The local folder.
    """

    remote: Remote
    folder: Path
    _sent: dict[str, _Stamp] = field(default_factory=dict)
    _ledger_bytes: int = 0
    """Of the local ledger that stand in segments."""
    _sending: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self) -> None:
        """Make the folder what the URI is, or leave it as it is where it has gone on from there.

        A machine that comes back has what it could not send any more. Its folder is the newer one, unless another
        machine went on in the meantime: then the URI is what counts. Checkpoints stay where they are.

        Raises:
            OSError: If the URI does not answer.
        """
        sizes = {name: size for name, size in self.remote.sizes().items() if name != LEASE}
        segments = sorted(name for name in sizes if name.startswith(f"{_SEGMENTS}/"))
        plain = [name for name in sizes if name not in segments and not name.startswith(f"{_CHECKPOINTS}/")]
        sent = self._read_segments(segments)
        self._ledger_bytes = len(sent)
        if sizes and self._has_gone_on(sent):
            self.fetch_missing(self.folder / name for name in plain)
            self._sent.clear()
            return
        for path in list(_files(self.folder)):
            if path.relative_to(self.folder).as_posix() not in plain:
                path.unlink()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(lambda name: self._fetch(name, sizes[name]), plain))
        shutil.rmtree(self.folder / "copies", ignore_errors=True)
        ledger = StudyPaths(self.folder).ledger
        ledger.unlink(missing_ok=True)
        if sent:
            replace_bytes(ledger, sent)

    def _read_segments(self, segments: Sequence[str]) -> bytes:
        """Return the ledger that stands in segments; where these are many, make them one.

        One that begins before the end of those before it stands in them already: its deletion was cut off.
        """
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            contents = list(pool.map(self.remote.get, segments))
        whole = b""
        for name, content in zip(segments, contents, strict=True):
            if int(Path(name).stem) == len(whole):
                whole += content
        if len(segments) > _MOST_SEGMENTS:
            self.remote.put(_segment(0), whole)
            for name in segments[1:]:
                self.remote.delete(name)
        return whole

    def _has_gone_on(self, sent: bytes) -> bool:
        ledger = StudyPaths(self.folder).ledger
        return ledger.exists() and len(found := ledger.read_bytes()) > len(sent) and found.startswith(sent)

    def sweep(self, unfinished: Iterable[str]) -> None:
        """Remove the checkpoints of trials that are over.

        Raises:
            OSError: If the URI does not answer.
        """
        kept = {f"{_CHECKPOINTS}/{StudyPaths(self.folder).checkpoint(name).name}" for name in unfinished}
        for name in self.remote.sizes(_CHECKPOINTS).keys() - kept:
            self.remote.delete(name)

    def fetch_missing(self, paths: Iterable[Path]) -> None:
        """Fetch those files of the folder that are not there: another machine sent them.

        Raises:
            OSError: If one is not at the URI either.
        """
        with self._sending:
            for path in paths:
                if not path.exists():
                    self._fetch(path.relative_to(self.folder).as_posix(), None)

    def send(self) -> None:
        """Send what has changed in the folder since the last time, the ledger's new lines last.

        Raises:
            OSError: If the URI does not take it; the next call sends it again.
        """
        with self._sending:
            # Read first: what these lines name is in the folder by now, and so is sent before them.
            lines = self._new_lines()
            for path in _files(self.folder):
                self._send(path)
            if lines:
                self.remote.put(_segment(self._ledger_bytes), lines)
                self._ledger_bytes += len(lines)

    def _new_lines(self) -> bytes:
        """Return the ledger's whole lines that stand in no segment."""
        ledger = StudyPaths(self.folder).ledger
        if not ledger.exists():
            return b""
        with ledger.open("rb") as file:
            file.seek(self._ledger_bytes)
            found = file.read()
        return found[: found.rfind(b"\n") + 1]

    def _send(self, path: Path) -> None:
        name, stamp = path.relative_to(self.folder).as_posix(), _stamp(path)
        if self._sent.get(name) != stamp:
            self.remote.put(name, path.read_bytes())
            self._sent[name] = stamp

    def _fetch(self, name: str, size: int | None) -> None:
        path = self.folder / name
        is_here = path.exists() and path.stat().st_size == size and name.split("/")[0] in _WRITTEN_ONCE
        if not is_here:
            replace_bytes(path, self.remote.get(name))
        self._sent[name] = _stamp(path)


def _segment(start: int) -> str:
    """Name the ledger's segment that begins at a byte."""
    return f"{_SEGMENTS}/{start:015d}.jsonl"


def _files(folder: Path) -> Iterable[Path]:
    """Yield the files that the URI holds under the same names."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if here == folder:
            folders[:] = [name for name in folders if name not in _KEPT_HERE]
        for name in sorted(names):
            if not name.endswith((".part", ".tmp")) and not (here == folder and name in _KEPT_HERE):
                yield here / name


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    return found.st_size, found.st_mtime_ns
