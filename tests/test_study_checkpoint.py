from pathlib import Path

import numpy as np
import pytest

from spine_ray.study.checkpoint import (
    CONTROL,
    Checkpoint,
    read_checkpoint,
    sweep_checkpoints,
    write_checkpoint,
)
from spine_ray.study.depot import Depot
from spine_ray.study.hold import LostHoldError, held
from spine_ray.study.paths import StudyPaths, temporary_name

ABOUT = {"seed": 3, "records": [{"log_loss": 0.1 + 0.2}, {"log_loss": float("inf")}]}
ARRAYS = {
    "logits": np.array([[1.0, np.nan], [0.5, -2.0]], np.float32),
    "steps": np.arange(6).reshape(2, 3).T,  # not in the order of rows
    "count": np.array(7, np.int64),
    "none": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    return StudyPaths(tmp_path / "study")


def write(paths: StudyPaths, name: str = "a") -> None:
    with held(paths) as hold:
        write_checkpoint(Depot(paths, hold.token, None), name, Checkpoint(ABOUT, ARRAYS))


def test_a_checkpoint_comes_back_bit_by_bit(paths: StudyPaths) -> None:
    write(paths)
    found = read_checkpoint(paths, "a")
    assert found is not None
    assert found.about == ABOUT
    assert found.arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        assert found.arrays[name].tobytes() == array.tobytes()


def test_a_newer_checkpoint_takes_the_place_of_the_older_and_leaves_nothing_else(paths: StudyPaths) -> None:
    write(paths)
    write(paths)
    assert list(paths.checkpoints.iterdir()) == [paths.checkpoint("a")]


def test_a_trial_without_a_checkpoint_has_none(paths: StudyPaths) -> None:
    assert read_checkpoint(paths, "a") is None
    sweep_checkpoints(paths, set())


def test_damage_at_any_place_is_found(paths: StudyPaths) -> None:
    write(paths)
    path = paths.checkpoint("a")
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ValueError) as caught:
            read_checkpoint(paths, "a")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_checkpoint_that_is_cut_short_is_refused(paths: StudyPaths, length: int) -> None:
    write(paths)
    path = paths.checkpoint("a")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="it cannot be read"):
        read_checkpoint(paths, "a")


def test_who_lost_the_hold_replaces_nothing(paths: StudyPaths) -> None:
    with held(paths) as hold:
        pass
    write(paths)
    before = paths.checkpoint("a").read_bytes()
    with pytest.raises(LostHoldError, match="another search holds"):
        write_checkpoint(Depot(paths, hold.token, None), "a", Checkpoint({}, ARRAYS))
    assert paths.checkpoint("a").read_bytes() == before
    assert list(paths.checkpoints.iterdir()) == [paths.checkpoint("a")]


def test_what_the_dead_left_is_swept_and_the_unfinished_stays(paths: StudyPaths) -> None:
    for name in ("over", "unfinished", CONTROL):
        write(paths, name)
    temporary_name(paths.checkpoint("unfinished")).write_bytes(b"half")
    sweep_checkpoints(paths, {"unfinished"})
    assert {path.stem for path in paths.checkpoints.iterdir()} == {"unfinished", CONTROL}
