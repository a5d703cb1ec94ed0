"""Failures of a worker, and whether another try is worth it. Imports nothing heavy: thin processes load it."""

from dataclasses import dataclass, field
from typing import Literal

from spine_ray.space.config import TrialConfig

RETRIES = 3
"""Most times that a trial is tried again without a new epoch in between."""
FailureKind = Literal["hopeless", "error", "lost"]
"""Would come again for sure; may come again; the process went away, whatever it was doing."""


class WorkFailedError(Exception):
    """A failed task of a worker, in plain values: the error itself may be of a package that is not loaded here.

    Args:
        reason: One line.
        kind: Whether trying again is of use.
    """

    def __init__(self, reason: str, kind: FailureKind) -> None:
        """Take the reason."""
        super().__init__(reason, kind)
        self.reason, self.kind = reason, kind

    def __str__(self) -> str:
        """Return the reason."""
        return self.reason


@dataclass(frozen=True, slots=True)
class WorkFailure:
    """A task that failed on its worker, after the retries, and why."""

    config: TrialConfig
    reason: str


@dataclass(slots=True)
class Attempts:
    """A trial's failures since its last epoch."""

    failures: list[WorkFailedError] = field(default_factory=list)

    def why_give_up(self, failure: WorkFailedError) -> str | None:
        """Count a failure and return the reason of the trial's end, or None where it is worth another try.

        An error that comes a second time at the same place would come a third time.
        """
        again = failure.kind == "error" and any(each.reason == failure.reason for each in self.failures)
        self.failures.append(failure)
        if failure.kind != "hopeless" and not again and len(self.failures) <= RETRIES:
            return None
        tries = f" ({len(self.failures)} tries without a new epoch)" if len(self.failures) > 1 else ""
        return f"{failure.reason}{tries}"


def reason_of(error: BaseException) -> str:
    """Return one line that says what an error is."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    message = lines[-1].strip() if lines else ""
    return f"{type(error).__name__}: {message}".removesuffix(": ")[:300]
