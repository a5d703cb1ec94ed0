import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from spine_ray.study.hold import LostHoldError, held, publishing
from spine_ray.study.paths import StudyPaths


def hold(root: Path, is_held: Event) -> None:
    with held(StudyPaths(root)):
        is_held.set()
        signal.pause()


def test_a_study_that_is_held_is_refused_and_free_again_when_its_holder_is_killed(tmp_path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    is_held = spawning.Event()
    process = spawning.Process(target=hold, args=(tmp_path, is_held))
    process.start()
    assert is_held.wait(30)
    with (
        pytest.raises(ValueError, match=r"another search is writing to .* \(it holds study\.lock\)"),
        held(StudyPaths(tmp_path)),
    ):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with held(StudyPaths(tmp_path)):
        pass


def test_files_are_put_in_place_under_the_name_of_the_hold_alone(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    with held(paths) as earlier, publishing(paths, earlier):
        pass
    with held(paths) as later:
        assert later != earlier
        with publishing(paths, later):
            pass
        with pytest.raises(LostHoldError), publishing(paths, earlier):
            raise AssertionError("never reached")


def test_a_study_that_nobody_ever_held_takes_nothing(tmp_path: Path) -> None:
    with pytest.raises(LostHoldError), publishing(StudyPaths(tmp_path), ""):
        pass
