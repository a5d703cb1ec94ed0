"""Who may write to a study: real processes, real locks, and entries of another machine's."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from spine_ray.search import main as search
from spine_ray.study import hold
from spine_ray.study.hold import Holder, LostHoldError, held, holder_of, publishing
from spine_ray.study.paths import StudyPaths
from tests.support.patience import PATIENCE_S, overtime, wait_for

HOLDS = """
import sys
from pathlib import Path
from spine_ray.study.hold import held
from spine_ray.study.paths import StudyPaths
with held(StudyPaths(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = Holder(host="node7", pid=4711, since="2026-11-25T10:00:00+00:00", machine="another kernel", token="t")


def other(paths: StudyPaths) -> subprocess.Popen[str]:
    """Start another process that holds the study until its input ends."""
    command = [sys.executable, "-c", HOLDS, str(paths.root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").touch()
    return StudyPaths(tmp_path / "study")


def enter_elsewhere(paths: StudyPaths, beats: int = 0) -> None:
    """Enter a holder on another machine, at one stroke: an entry that is being written says nobody."""
    entry = paths.lock.with_name("entry")
    entry.write_text(json.dumps(asdict(replace(ELSEWHERE, beats=beats))))
    entry.replace(paths.lock)


@pytest.fixture(autouse=True)
def quick_and_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew entries often, and take nobody for dead within any test: however busy the machine, the living live."""
    monkeypatch.setattr(hold, "BEAT_S", 0.1)
    monkeypatch.setattr(hold, "SILENCE_S", 10 * PATIENCE_S)


def test_a_second_writer_is_refused_with_host_process_and_time_of_the_first(paths: StudyPaths) -> None:
    with other(paths) as process:
        with pytest.raises(ValueError, match="is being written to by") as refusal, held(paths):
            pass
        process.communicate("")
    told = str(refusal.value)
    assert f"process {process.pid} on {socket.gethostname()}, since 20" in told
    assert "\n" not in told
    with held(paths) as mine:
        assert mine.before is None, "it let go"


def test_a_second_search_is_one_line_and_exit_code_2(paths: StudyPaths, capsys: pytest.CaptureFixture[str]) -> None:
    with other(paths) as process:
        assert search(["--space", "smoke", "--study", str(paths.root)]) == 2
        assert process.poll() is None, "it waited for the first one's end"
        process.communicate("")
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert f"error: {paths.root} is being written to by process {process.pid}" in lines[0]


def test_the_hold_of_a_killed_process_is_taken_over_at_once_and_it_is_named(paths: StudyPaths) -> None:
    with other(paths) as process:
        process.kill()
    with held(paths) as mine:  # at once: a silence is longer than any test
        assert mine.before is not None
        assert mine.before.pid == process.pid
        now = holder_of(paths)
        assert now is not None
        assert (now.pid, now.token) == (os.getpid(), mine.token)
    assert holder_of(paths) is None


def test_a_stopped_process_still_holds(paths: StudyPaths) -> None:
    with other(paths) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ValueError, match=f"process {process.pid}"), held(paths):
            pass
        process.kill()


def test_a_holder_on_another_machine_that_renews_its_entry_is_believed(paths: StudyPaths) -> None:
    # What a shared mount shows of a holder whose lock this kernel does not know.
    ended = threading.Event()

    def beat() -> None:
        beats = 0
        while not ended.wait(0.1):
            beats += 1
            enter_elsewhere(paths, beats)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        wait_for(lambda: holder_of(paths) is not None)
        with pytest.raises(ValueError, match="process 4711 on node7, since 2026-11-25"), held(paths):
            pass
    finally:
        ended.set()
        thread.join()


def test_a_holder_on_another_machine_that_is_silent_is_taken_over_after_the_silence(
    paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "SILENCE_S", 0.6)
    enter_elsewhere(paths)
    began = time.monotonic()
    with held(paths) as mine:
        seconds = time.monotonic() - began
        assert mine.before == ELSEWHERE
    assert 0.6 <= seconds < 0.6 + overtime()


def test_a_holder_renews_its_entry(paths: StudyPaths) -> None:
    with held(paths):
        first = holder_of(paths)
        assert first is not None
        later = wait_for(lambda: now if (now := holder_of(paths)) and now.beats > first.beats else None)
    assert replace(later, beats=0) == replace(first, beats=0)


def test_a_holder_that_was_taken_over_is_interrupted_and_leaves_the_new_entry(paths: StudyPaths) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt), held(paths):
            enter_elsewhere(paths)
            time.sleep(PATIENCE_S)
    finally:
        signal.signal(signal.SIGINT, before)
    assert holder_of(paths) == ELSEWHERE


def test_a_file_system_without_locks_is_held_by_the_entry_alone(
    paths: StudyPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "_lock", lambda lock: None)  # what ENOLCK comes to
    monkeypatch.setattr(hold, "SETTLE_S", 0.1)
    with held(paths), pytest.raises(ValueError, match=f"process {os.getpid()}"), held(paths):
        pass
    with held(paths) as mine:
        assert mine.before is None


def test_an_entry_that_is_being_written_says_nobody_and_breaks_nothing(paths: StudyPaths) -> None:
    for content in ("", "{", "[]", '{"host": "a"}', "null"):
        paths.lock.write_text(content)
        assert holder_of(paths) is None
        with held(paths) as mine:
            assert mine.before is None


def test_a_study_that_was_not_begun_leaves_no_folder(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path / "studies" / "new")
    with pytest.raises(RuntimeError), held(paths):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with held(paths):
        paths.record.touch()
    assert {path.name for path in paths.root.iterdir()} == {"study.json", "study.lock", "study.fence", "study.holder"}


def test_files_are_put_in_place_under_the_name_of_the_hold_alone(paths: StudyPaths) -> None:
    with held(paths) as earlier, publishing(paths, earlier.token):
        paths.record.touch()
    with held(paths) as later:
        assert later.token != earlier.token
        with publishing(paths, later.token):
            pass
        with pytest.raises(LostHoldError), publishing(paths, earlier.token):
            raise AssertionError("never reached")


def test_a_study_that_nobody_ever_held_takes_nothing(paths: StudyPaths) -> None:
    with pytest.raises(LostHoldError), publishing(paths, ""):
        pass
