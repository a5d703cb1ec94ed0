"""A study at a URI while a search runs: held there, worked on in a folder here, sent there as it grows."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

from spine_ray.core.cache import cache_folder
from spine_ray.study.checkpoint import CONTROL
from spine_ray.study.lease import leased
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.remote import Mirror, Remote
from spine_ray.study.sender import Sender
from spine_ray.study.trials import trials_from_events

_BREAK_S = 2.0
"""How long the URI is waited for when the search is interrupted, s."""


def folder_for(uri: str) -> Path:
    """Return the folder in which this machine works on the study at a URI: the same every time."""
    name = uri.rpartition("/")[2]
    return cache_folder() / "studies" / f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


class Afar:
    """The way from the folder here to the URI.

    Args:
        mirror: Folder and URI.
        token: Names the hold on the study there.
    """

    def __init__(self, mirror: Mirror, token: str) -> None:
        """Send nothing yet."""
        self._mirror, self.token = mirror, token

    @property
    def uri(self) -> str:
        """Where the study lies."""
        return self._mirror.remote.uri

    @contextlib.contextmanager
    def sending(self) -> Iterator[None]:
        """Send what changes for the time of the block, and the rest at its end.

        Raises:
            NotSentError: If the URI does not have everything in the end; the folder has.
        """
        unfinished = [
            name
            for name, trial in trials_from_events(read_ledger(StudyPaths(self._mirror.folder).ledger)).items()
            if trial.ended is None
        ]
        with _answering(self.uri):
            self._mirror.sweep([*unfinished, CONTROL])
            self._mirror.send()  # before any worker asks for the rows
        sender, patience = Sender(self._mirror), None
        try:
            yield
        except KeyboardInterrupt:
            patience = _BREAK_S
            raise
        finally:
            sender.close(patience)

    def bring(self, path: Path) -> None:
        """Fetch a file that a worker made, unless it is here.

        Raises:
            ValueError: If it is not there, or the URI does not answer.
        """
        with _answering(self.uri):
            self._mirror.fetch_missing([path])

    def bring_if_there(self, path: Path) -> None:
        """Fetch a file that a worker may have made.

        Raises:
            ValueError: If the URI does not answer.
        """
        with _answering(self.uri), contextlib.suppress(FileNotFoundError):
            self._mirror.fetch_missing([path])


@contextlib.contextmanager
def held_afar(uri: str | None, folder: Path, say: Callable[[str], None]) -> Iterator[Afar | None]:
    """Hold a study at a URI and make the folder what it is; None where the study is the folder.

    Raises:
        StudyHeldError: If another process holds it.
        ValueError: If the URI cannot be opened or does not answer.
    """
    if uri is None:
        yield None
        return
    remote = Remote.at(uri)
    with contextlib.ExitStack() as stack:
        with _answering(uri):
            token = stack.enter_context(leased(remote, say))
            mirror = Mirror(remote, folder)
            mirror.fetch()
        say(f"the study lies at {uri}; this machine works on it in {folder}")
        yield Afar(mirror, token)


@contextlib.contextmanager
def _answering(uri: str) -> Iterator[None]:
    """Say in one line that a URI does not answer."""
    try:
        yield
    except OSError as error:
        told = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{uri} does not answer: {told}; what is finished is kept: the same command goes on from there"
        ) from error
