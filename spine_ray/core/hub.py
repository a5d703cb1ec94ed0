"""Files of the Hugging Face hub: described, fetched once a machine, resumed where they were cut off, verified."""

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is public, and not typed so

HUB_TIMEOUT_S = 5.0
WEIGHTS_FILE = "model.safetensors"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_GONE_FOR_GOOD = range(400, 500)
"""Answers of a hub that is there: about this file only."""
Tell = Callable[[str], None]
"""Shows one line to whoever waits."""


class HubAwayError(ValueError):
    """The hub is not there: asking it for another file would be in vain."""


class HubFileError(ValueError):
    """The hub is there, and this file is not to be had from it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubFile:
    """The weights file of one repository, as the hub describes it."""

    repository: str
    commit: str
    """The version: bytes of another one are never mixed in."""
    etag: str
    """What the content hashes to: sha256 for large files, the hash that git would give a small one."""
    size: int
    """Bytes."""

    def is_whole(self, path: Path) -> bool:
        """Say whether a file holds exactly this content."""
        return path.is_file() and path.stat().st_size == self.size and has_hash(path, self.etag)


def describe(repository: str) -> HubFile:
    """Ask the hub for the description of a repository's weights file, once, without trying again.

    Raises:
        HubAwayError: If the hub does not answer, is ill, or may not be asked.
        HubFileError: If it does not have the file, or not for us.
    """
    if constants.HF_HUB_OFFLINE:
        raise HubAwayError("the hub is not asked: HF_HUB_OFFLINE is set")
    try:
        found = get_hf_file_metadata(hf_hub_url(repository, WEIGHTS_FILE), timeout=HUB_TIMEOUT_S)
    except HfHubHTTPError as error:
        status = error.response.status_code
        # Below 500 the hub is there; it only does not have the file, or not for us.
        kind = HubFileError if status in _GONE_FOR_GOOD else HubAwayError
        why = " (only safetensors are read)" if status == 404 else ""
        raise kind(f"the hub answers with status {status} for {repository}/{WEIGHTS_FILE}{why}") from error
    except Exception as error:  # the errors of the client's transport share no base with anything
        raise HubAwayError(f"the hub does not answer within {HUB_TIMEOUT_S:g} s ({_told(error)})") from error
    if not found.commit_hash or not found.size or not _is_hash(found.etag):
        raise HubAwayError(f"what answers for {repository}/{WEIGHTS_FILE} is no hub: size, version or hash is missing")
    return HubFile(repository=repository, commit=found.commit_hash, etag=str(found.etag), size=found.size)


def fetch(file: HubFile, path: Path, lock: Path, tell: Tell) -> None:
    """Bring a file to a path unless it is there already, whole; one process of a machine fetches, the others wait.

    What a fetch has brought before it was cut off stays beside the path, and the next one goes on from there. Nothing
    takes the file's name before its size and hash are right.

    Args:
        file: What the hub said.
        path: Where it is to be.
        lock: The file whose lock says who fetches.
        tell: Told what is waited for.

    Raises:
        HubFileError: If the hub breaks off, or what it sends is not what it said; with the file's name.
    """
    for folder in (path.parent, lock.parent):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(lock, file, tell):
        if file.is_whole(path):
            return
        part = path.with_name(f"{path.name}.{file.etag[:16]}.incomplete")
        resumed = _download(file, part, tell)
        if not file.is_whole(part) and resumed:  # the part was spoiled: from the beginning, once
            part.unlink()
            _download(file, part, tell)
        if not file.is_whole(part):
            found = part.stat().st_size
            part.unlink()
            raise HubFileError(
                f"{file.repository}/{WEIGHTS_FILE}: the hub sent {found} bytes that do not hash to what it said "
                f"({file.size} bytes, {file.etag[:16]}...); they are deleted"
            )
        part.replace(path)


def fetch_to_cache(file: HubFile, tell: Tell) -> Path:
    """Bring a file to the cache of the hub's client, where other programs find it too, and return its path there.

    Raises:
        HubFileError: If it cannot be had, with its name.
    """
    cache = Path(constants.HF_HUB_CACHE)
    folder = repo_folder_name(repo_id=file.repository, repo_type="model")
    try:
        # The client's own names for content and lock: it finds what is there, and waits for who fetches.
        fetch(file, cache / folder / "blobs" / file.etag, cache / ".locks" / folder / f"{file.etag}.lock", tell)
        return Path(hf_hub_download(file.repository, WEIGHTS_FILE, etag_timeout=HUB_TIMEOUT_S))
    except HubFileError:
        raise
    except Exception as error:  # as above; a full disk and a cache that may not be written to among them
        raise HubFileError(f"{file.repository}/{WEIGHTS_FILE} cannot be kept in {cache}: {_told(error)}") from error


def cached(repository: str) -> Path | None:
    """Return the repository's weights file in the cache of the hub's client, or None; it may be damaged."""
    found = try_to_load_from_cache(repository, WEIGHTS_FILE)
    return Path(found) if isinstance(found, str) else None


def is_damaged(path: Path) -> bool:
    """Say whether a file of the client's cache is not what the hub once said: its content is named by its hash."""
    name = path.resolve().name
    return _is_hash(name) and not has_hash(path, name)


def content_hash(path: Path) -> str:
    """Return the sha256 of a file; read once for as long as it does not change."""
    about = path.stat()
    return _sha256(path, about.st_size, about.st_mtime_ns)


def has_hash(path: Path, etag: str) -> bool:
    """Say whether a file's content hashes to an etag of the hub."""
    return (content_hash(path) if _SHA256.fullmatch(etag) else _git_hash(path)) == etag


def _download(file: HubFile, part: Path, tell: Tell) -> int:
    """Append to the part what is missing, and return how many bytes were there before."""
    if part.exists() and part.stat().st_size > file.size:
        part.unlink()
    url = hf_hub_url(file.repository, WEIGHTS_FILE, revision=file.commit)
    with part.open("ab") as out:
        there = out.tell()
        begun = f", {there / 1e6:.1f} MB of them are here" if there else ""
        tell(f"fetching {file.repository}: {file.size / 1e6:.1f} MB{begun}")
        try:
            http_get(url, out, resume_size=there, headers=build_hf_headers(), expected_size=file.size)
        except Exception as error:  # as above
            out.flush()
            raise HubFileError(
                f"{file.repository}/{WEIGHTS_FILE} broke off at {out.tell()} of {file.size} bytes ({_told(error)}); "
                "the same command goes on from there"
            ) from error
        out.flush()
        os.fsync(out.fileno())
    return there


def _locked(lock: Path, file: HubFile, tell: Tell) -> AbstractContextManager[object]:
    """Take the lock, and return what lets it go at the end of a block."""
    found = FileLock(lock)
    try:
        return found.acquire(timeout=0)
    except Timeout:
        tell(f"waiting for another process that fetches {file.repository}")
        return found.acquire()


def _is_hash(text: str | None) -> bool:
    return text is not None and bool(_SHA256.fullmatch(text) or _SHA1.fullmatch(text))


@lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_hash(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _told(error: BaseException) -> str:
    """Return an error on one line, its kind where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
