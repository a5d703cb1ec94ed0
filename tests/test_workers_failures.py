import pickle

import pytest
import ray

from spine_ray.tune.ray_errors import failure_of
from spine_ray.workers.failures import RETRIES, Attempts, FailureKind, WorkFailedError, reason_of


def wrapped(error: Exception) -> BaseException:
    """What ray raises here for an error there."""
    return ray.exceptions.RayTaskError("step", "Traceback (most recent call last):\n  many lines", error)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("no such file"), "ValueError: no such file"),
        (FileNotFoundError(), "FileNotFoundError"),
        (RuntimeError("while loading:\n\n  the shapes differ\n"), "RuntimeError: the shapes differ"),
        (ValueError("long" * 200), "ValueError: " + "long" * 72),
    ],
)
def test_a_reason_is_the_last_line_of_an_error(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


@pytest.mark.parametrize(
    ("error", "reason", "kind"),
    [
        (None, "unknown error", "lost"),
        (wrapped(wrapped(KeyError("deep"))), "KeyError: 'deep'", "error"),
        (wrapped(WorkFailedError("ValueError: no", "hopeless")), "ValueError: no", "hopeless"),
        (ray.exceptions.ActorDiedError(), "the worker's process died", "lost"),
        (ray.exceptions.OutOfMemoryError("x"), "the node was short of memory and ended the worker", "lost"),
    ],
)
def test_a_failure_is_the_innermost_error(error: BaseException | None, reason: str, kind: FailureKind) -> None:
    found = failure_of(error)
    assert (found.reason, found.kind) == (reason, kind)


def test_a_failure_travels_between_processes() -> None:
    failure = pickle.loads(pickle.dumps(WorkFailedError("the reason", "error")))
    assert (failure.reason, failure.kind, str(failure)) == ("the reason", "error", "the reason")


def test_what_is_hopeless_is_not_tried_again() -> None:
    assert Attempts().why_give_up(WorkFailedError("ValueError: no", "hopeless")) == "ValueError: no"


def test_an_error_is_tried_once_more_and_given_up_when_it_comes_back() -> None:
    attempts = Attempts()
    assert attempts.why_give_up(WorkFailedError("RuntimeError: a", "error")) is None
    assert attempts.why_give_up(WorkFailedError("RuntimeError: b", "error")) is None
    told = attempts.why_give_up(WorkFailedError("RuntimeError: a", "error"))
    assert told == "RuntimeError: a (3 tries without a new epoch)"


def test_lost_processes_are_forgiven_so_many_times() -> None:
    attempts, lost = Attempts(), WorkFailedError("the worker's process died", "lost")
    assert [attempts.why_give_up(lost) for _ in range(RETRIES)] == [None] * RETRIES
    assert attempts.why_give_up(lost) == f"the worker's process died ({RETRIES + 1} tries without a new epoch)"
