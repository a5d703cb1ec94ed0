"""One search at a time on a study at a URI."""

import json
import signal
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from spine_ray.study import lease
from spine_ray.study.hold import Holder, LostHoldError, StudyHeldError, this_process
from spine_ray.study.lease import check_lease, lease_of, leased
from spine_ray.study.remote import LEASE, Remote
from tests.support.object_store import ObjectStore
from tests.support.patience import PATIENCE_S, wait_for

SAID: list[str] = []


@pytest.fixture(autouse=True)
def quick_and_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign often, and take nobody for dead within any test: however busy the machine, the living live."""
    monkeypatch.setattr(lease, "BEAT_S", 0.2)
    monkeypatch.setattr(lease, "SILENCE_S", 10 * PATIENCE_S)
    monkeypatch.setattr(lease, "SETTLE_S", 0.2)


@pytest.fixture(params=["s3", "file"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Remote:
    if request.param == "file":
        return Remote.at((tmp_path / "there").as_uri())
    store: ObjectStore = request.getfixturevalue("object_store")
    return Remote.at(f"s3://{store.make_bucket()}/study")


def elsewhere() -> Holder:
    return replace(this_process(), machine="another", host="node-7", pid=41)


def sign(remote: Remote, holder: Holder) -> None:
    remote.put(LEASE, json.dumps(asdict(holder)).encode())


def test_a_hold_is_signed_while_it_lasts_and_gone_afterwards(remote: Remote) -> None:
    with leased(remote, SAID.append) as token:
        check_lease(remote, token)
        first = lease_of(remote)
        assert first is not None
        later = wait_for(lambda: now if (now := lease_of(remote)) and now.beats > first.beats else None)
        assert replace(later, beats=0) == replace(first, beats=0)
    assert lease_of(remote) is None


def test_a_second_search_is_told_who_holds_it(remote: Remote) -> None:
    told = r"is being written to by process \d+ on "
    with leased(remote, SAID.append), pytest.raises(StudyHeldError, match=told), leased(remote, SAID.append):
        raise AssertionError("two hold one study")


def test_a_holder_on_another_machine_that_signs_is_alive(remote: Remote) -> None:
    over = threading.Event()

    def beat() -> None:
        beats, holder = 0, elsewhere()
        while not over.is_set():
            sign(remote, replace(holder, beats=(beats := beats + 1)))
            time.sleep(0.1)

    other = threading.Thread(target=beat)
    other.start()
    try:
        wait_for(lambda: lease_of(remote) is not None)
        with pytest.raises(StudyHeldError, match="process 41 on node-7"), leased(remote, SAID.append):
            raise AssertionError("two hold one study")
    finally:
        over.set()
        other.join()


def test_one_that_is_silent_is_taken_for_dead_and_said(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SILENCE_S", 0.8)
    sign(remote, elsewhere())
    said: list[str] = []
    with leased(remote, said.append) as token:
        check_lease(remote, token)
    assert len(said) == 1
    assert "was left by process 41 on node-7" in said[0]


def test_a_dead_process_of_this_machine_is_taken_over_at_once(remote: Remote) -> None:
    sign(remote, replace(this_process(), pid=2**22 + 1))
    said: list[str] = []
    with leased(remote, said.append):
        assert said == []


def test_the_workers_of_a_search_that_lost_its_hold_write_nothing_more(remote: Remote) -> None:
    sign(remote, elsewhere())
    with pytest.raises(LostHoldError, match="another search holds"):
        check_lease(remote, "mine")


def test_a_search_whose_study_was_taken_over_is_interrupted(remote: Remote) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt), leased(remote, SAID.append) as mine:
            # Again where this search, just about to, has signed over it.
            wait_for(lambda: (now := lease_of(remote)) and now.token == mine and sign(remote, elsewhere()))
    finally:
        signal.signal(signal.SIGINT, before)
    now = lease_of(remote)
    assert now is not None
    assert now.pid == 41, "the other's hold stays"


def test_an_error_lets_go_too(remote: Remote) -> None:
    with pytest.raises(ValueError, match="no study"), leased(remote, SAID.append):
        raise ValueError("no study")
    assert lease_of(remote) is None
