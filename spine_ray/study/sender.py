"""Sends a study to its URI while it grows, from a thread of its own: the search never waits for an object store."""

import logging
import threading

from spine_ray.study.remote import Mirror

_log = logging.getLogger(__name__)

PAUSE_S = 10.0
"""Between two looks at what has changed: at most so much is lost with the machine."""
_WAIT_S = 120.0
"""For the last of it, at the end."""


class NotSentError(ValueError):
    """The last of a study is on one machine only."""


class Sender:
    """Sends what changes in a study's folder.

    Args:
        mirror: The folder and its URI; nobody else may send from it in the meantime.
        pause_s: Seconds between two looks.
    """

    def __init__(self, mirror: Mirror, *, pause_s: float = PAUSE_S) -> None:
        """Start the thread."""
        self._mirror, self._pause_s = mirror, pause_s
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def close(self, patience_s: float | None = None) -> None:
        """Send the rest.

        Args:
            patience_s: Longest wait for it, s; None for two minutes.

        Raises:
            NotSentError: If the URI does not have everything; the folder has.
        """
        patience_s = _WAIT_S if patience_s is None else patience_s
        self._closing.set()
        self._thread.join(patience_s)
        if self._thread.is_alive() or self._error is not None:
            why = " ".join(str(self._error or f"it takes longer than {patience_s:g} s").split())
            where = self._mirror.remote.uri
            raise NotSentError(
                f"{where} lacks the last of the study ({why}); it is whole in {self._mirror.folder}: "
                "the same command on this machine sends it"
            )

    def _run(self) -> None:
        while not self._closing.wait(self._pause_s):
            self._send()
        self._send()

    def _send(self) -> None:
        try:
            self._mirror.send()
            self._error = None
        # Whatever an object store or the network raises, the search goes on; the next look sends it again.
        except Exception as error:
            self._error = error
            if not self._has_warned:
                self._has_warned = True
                _log.warning("%s does not take the study (%s); it is tried again", self._mirror.remote.uri, error)
