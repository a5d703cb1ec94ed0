"""Three nodes of a real cluster on this machine: what is told of them before anything trains."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from spine_ray.tune import node_check
from spine_ray.tune.node_check import (
    NodeReport,
    check_nodes,
    versions,
)
from spine_ray.workers.spec import WorkerSpec

pytestmark = pytest.mark.timeout(240)
CPUS = len(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head that runs no trials, a worker that claims a GPU, and one that was started with a single thread."""
    cluster = Cluster(
        initialize_head=True,
        connect=False,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "labels": {"tier": "head"}},
    )
    for tier, gpus, threads in (("heavy", 1, CPUS), ("light", 0, 1)):
        limit = {"OMP_NUM_THREADS": str(threads)}
        cluster.add_node(num_cpus=CPUS, num_gpus=gpus, labels={"tier": tier}, env_vars=limit)
    cluster.wait_for_nodes()
    code = str(Path(node_check.__file__).parents[2])
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": code}}, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> WorkerSpec:
    folder = tmp_path_factory.mktemp("nodes")
    file = folder / "test_vit.safetensors"
    file.write_bytes(b"weights")
    return WorkerSpec(
        study=folder / "study",
        holder="",
        pixels=folder,
        seed=0,
        weights=(("test_vit", file, "0" * 64),),
        device="cpu",
        threads=CPUS,
    )


@pytest.fixture(scope="module")
def reports(cluster: Cluster, spec: WorkerSpec, tmp_path_factory: pytest.TempPathFactory) -> tuple[NodeReport, ...]:
    data = tmp_path_factory.mktemp("data")
    (data / "cat").mkdir()
    return check_nodes(spec, str(data))


def of_tier(reports: tuple[NodeReport, ...], tier: str) -> NodeReport:
    (found,) = [report for report in reports if f"({tier})" in report.name]
    return found


def test_there_is_one_line_for_each_node(reports: tuple[NodeReport, ...]) -> None:
    assert len(reports) == 3
    assert all("\n" not in report.line for report in reports)


def test_a_head_without_cpus_needs_no_weights_and_no_threads(reports: tuple[NodeReport, ...]) -> None:
    head = of_tier(reports, "head")
    assert head.problems == ()
    assert head.line.startswith("node ")
    assert {"no trials", "data read", "study shared"} <= set(head.seen)
    assert not any("CPUs" in seen or "weights" in seen for seen in head.seen)


def test_a_gpu_that_is_offered_and_not_there_is_the_one_problem_of_its_node(reports: tuple[NodeReport, ...]) -> None:
    heavy = of_tier(reports, "heavy")
    assert heavy.problems == ("offers 1 GPUs, and torch sees 0",)
    assert heavy.line.endswith("NOT ready: offers 1 GPUs, and torch sees 0")
    assert {f"{len(versions())} versions as here", "1 files of weights within reach", f"{CPUS} CPUs"} <= set(heavy.seen)


@pytest.mark.skipif(CPUS < 2, reason="one thread is all there is")
def test_a_node_that_was_started_with_one_thread_is_told(reports: tuple[NodeReport, ...]) -> None:
    light = of_tier(reports, "light")
    assert light.problems == (f"was started with OMP_NUM_THREADS=1, and a worker has {CPUS} threads",)


def test_a_study_at_a_uri_takes_what_every_node_writes(cluster: Cluster, spec: WorkerSpec, tmp_path: Path) -> None:
    told = of_tier(check_nodes(replace(spec, uri=(tmp_path / "far").as_uri()), None), "head")
    assert "study shared" in told.seen
    assert list((tmp_path / "far").iterdir()) == []


def test_the_study_is_left_as_it_was(reports: tuple[NodeReport, ...], spec: WorkerSpec) -> None:
    assert list(spec.study.iterdir()) == []
