"""Where workers put what they make, and find what others made: the study's folder, or its URI.

At a URI every node has a folder of its own in between, in which nothing stays: a trial may go on on another node.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spine_ray.study.hold import publishing
from spine_ray.study.lease import check_lease
from spine_ray.study.paths import StudyPaths, replace_bytes
from spine_ray.study.remote import Remote


@dataclass(frozen=True, slots=True)
class Depot:
    """A study as a worker reaches it."""

    paths: StudyPaths
    """Of the study's folder, or of this node's."""
    holder: str
    """Names the search's hold on the study: without it nothing is put there."""
    uri: str | None
    """Where the study lies if not in that folder."""

    @contextlib.contextmanager
    def publishing(self, path: Path) -> Iterator[None]:
        """Put a file of the study there; the block writes it, or gives it its name.

        Raises:
            LostHoldError: If another search holds the study by now.
            OSError: If the URI does not take it.
        """
        if self.uri is None:
            with publishing(self.paths, self.holder):
                yield
            return
        yield
        remote = Remote.at(self.uri)
        check_lease(remote, self.holder)
        remote.put(self._name(path), path.read_bytes())
        path.unlink()

    def fetch(self, path: Path) -> None:
        """Bring a file of the study here, as it is now; where there is none, none is here afterwards.

        Raises:
            OSError: If the URI does not answer.
        """
        if self.uri is None:
            return
        try:
            replace_bytes(path, Remote.at(self.uri).get(self._name(path)))
        except FileNotFoundError:
            path.unlink(missing_ok=True)

    def remove(self, path: Path) -> None:
        """Remove a file of the study, if there is one.

        Raises:
            OSError: If the URI does not answer.
        """
        path.unlink(missing_ok=True)
        if self.uri is not None:
            Remote.at(self.uri).delete(self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.paths.root).as_posix()
