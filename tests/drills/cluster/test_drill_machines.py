"""A cluster that grows while it is waited for, and workers that share a GPU. Ray is real, GPUs are only said to be."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray.cluster_utils import Cluster

from spine_ray.tune.machines import alive_nodes, await_machines
from spine_ray.tune.ray_pool import RayPool, ray_pool
from spine_ray.workers.layout import PoolLayout, divide
from spine_ray.workers.request import WorkerRequest

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head that trains nothing."""
    found = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield found
    ray.shutdown()
    found.shutdown()


def join(cluster: Cluster) -> None:
    ray.init(address=cluster.address, log_to_driver=False)


def test_machines_are_asked_for_and_waited_for(cluster: Cluster) -> None:
    join(cluster)
    said = list[str]()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(await_machines, WorkerRequest(3, "cpu"), said.append, 60.0)
        time.sleep(2.0)
        assert not waiting.done()
        cluster.add_node(num_cpus=3)
        assert waiting.result() == WorkerRequest(3, "cpu")
    assert said == []  # the first word would come after a minute
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 3  # nothing is kept back for the question


def test_fewer_machines_have_to_do_and_none_is_an_error(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2)
    join(cluster)
    said = list[str]()
    assert await_machines(WorkerRequest(4, "cpu"), said.append, wait_s=1.0) == WorkerRequest(2, "cpu")
    assert said[-1].endswith("2 of 4 CPUs are there: going on with those")
    with pytest.raises(ValueError, match=r"--workers 4xGPU: .*no machine with a GPU"):
        await_machines(WorkerRequest(4, "cuda"), said.append, wait_s=1.0)


def test_a_cluster_without_workers_says_how_to_ask_for_some(cluster: Cluster) -> None:
    with (
        pytest.raises(ValueError, match=r"no machine that trains; --workers 4xGPU or 16xCPU asks"),
        ray_pool(cluster.address, None),
    ):
        pass


def test_workers_on_one_gpu_are_hired_anew_to_share_it(cluster: Cluster) -> None:
    cluster.add_node(num_cpus=2, num_gpus=1)
    join(cluster)
    whole = divide(alive_nodes(), None)
    assert whole == PoolLayout(count=1, cpus=2, gpus=1.0)
    pool = RayPool(whole, print, has_other_nodes=False)
    (alone,) = pool.actors
    ray.get(alone.__ray_ready__.remote())
    pool.resize(whole.sharing(2))
    assert pool.layout == PoolLayout(count=2, cpus=1, gpus=0.5)
    ray.get([actor.__ray_ready__.remote() for actor in pool.actors])  # they have room: the one of before is gone
    assert ray.available_resources().get("GPU", 0.0) == 0.0
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(alone.__ray_ready__.remote())
