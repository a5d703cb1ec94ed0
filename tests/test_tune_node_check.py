"""What a node finds wrong with itself, and what only the driver can judge."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from spine_ray.tune.node_check import Findings, NodeNeeds, NodeProbe, _compare_clock, _see_what_it_wrote, versions
from spine_ray.tune.ray_pool import RayPool

pytestmark = pytest.mark.long
CPUS = len(os.sched_getaffinity(0))
NODE = "a" * 56


def needs(folder: Path, **changes: object) -> NodeNeeds:
    plain = NodeNeeds(
        token=b"token", study=str(folder), data=None, driver="", weights=(), versions=versions(), threads=1
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def problems(given: NodeNeeds, **resources: float) -> list[str]:
    return NodeProbe().look(given, NODE, {"CPU": 1.0, **resources}).problems


def test_a_study_that_a_node_keeps_for_itself_is_told(tmp_path: Path) -> None:
    found = Findings(has_written=True)  # into a folder of the same name, on its own machine
    _see_what_it_wrote(NODE, needs(tmp_path), found)
    assert found.problems == [
        f"what it writes to the study does not arrive here: {tmp_path} is a folder of this machine alone; name s3://, "
        "gs:// or a folder that all machines mount"
    ]


def test_a_clock_that_is_far_off_is_told(one_ray_worker: RayPool) -> None:
    class Clock:  # here, so that it travels by value: a node cannot import the tests
        def __init__(self, late: float) -> None:
            self._late = late

        def time(self) -> float:
            return time.time() + self._late

    for late, expected in ((0.0, []), (-100.0, ["its clock is -100 s off"])):
        found = Findings()
        probe = ray.remote(Clock).options(num_cpus=0).remote(late)
        ray.get(probe.time.remote())  # the first call waits for the process
        _compare_clock(probe, found)
        assert found.problems == expected


def test_a_node_that_has_everything_has_no_problem(tmp_path: Path) -> None:
    assert problems(needs(tmp_path)) == []
    assert (tmp_path / f".{NODE}.token").read_bytes() == b"token"


def test_other_versions_are_told_with_the_drivers(tmp_path: Path) -> None:
    given = needs(tmp_path, versions={**versions(), "timm": "0.1", "spine_ray": "ffffffff"})
    assert problems(given) == [
        f"timm {versions()['timm']} where the driver has 0.1",
        f"spine_ray {versions()['spine_ray']} where the driver has ffffffff",
    ]


def test_a_study_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (told,) = problems(needs(tmp_path / "file"))
    assert told.startswith("write token: ")
    assert str(tmp_path / "file") in told


def test_data_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert problems(needs(tmp_path, data=str(tmp_path / "empty"))) == [f"there is nothing at {tmp_path / 'empty'}"]
    (told,) = problems(needs(tmp_path, data=str(tmp_path / "nowhere.csv")))
    assert told.startswith("read data: FileNotFoundError")
    (told,) = problems(needs(tmp_path, data="nosuch://bucket/images"))
    assert "nosuch" in told


def test_weights_that_do_not_arrive_from_the_driver_are_told(one_ray_worker: RayPool, tmp_path: Path) -> None:
    driver, file = ray.get_runtime_context().get_node_id(), tmp_path / "there.safetensors"
    file.write_bytes(b"1234")
    given = needs(tmp_path, driver=driver, weights=(("test_vit", file, 5),))
    assert problems(given) == ["the weights of test_vit are not the driver's: 4 bytes arrive, not 5"]
    file.unlink()
    (told,) = problems(given)
    assert told.startswith("find weights: ")
    assert str(file) in told


def test_more_processors_than_there_are_and_too_few_for_a_worker_are_told(tmp_path: Path) -> None:
    assert problems(needs(tmp_path), CPU=CPUS + 1) == [f"offers {CPUS + 1} CPUs, but its processes may use {CPUS}"]
    assert "offers 1 CPUs, and a worker needs 2" in problems(needs(tmp_path, threads=2))
