import pytest

from spine_ray.workers.layout import PoolLayout, divide
from spine_ray.workers.request import WorkerRequest


@pytest.mark.parametrize(
    ("resources", "workers", "expected"),
    [
        ({"CPU": 2.0}, None, PoolLayout(2, 1, 0.0)),
        ({"CPU": 8.0}, None, PoolLayout(8, 1, 0.0)),
        ({"CPU": 8.0}, 1, PoolLayout(1, 8, 0.0)),
        ({"CPU": 8.0}, 3, PoolLayout(3, 2, 0.0)),
        ({}, None, PoolLayout(1, 1, 0.0)),
        ({"CPU": 0.0}, None, PoolLayout(1, 1, 0.0)),
        ({"CPU": 16.0, "GPU": 1.0}, None, PoolLayout(1, 16, 1.0)),
        ({"CPU": 64.0, "GPU": 8.0}, None, PoolLayout(8, 8, 1.0)),
        ({"CPU": 64.0, "GPU": 8.0}, 4, PoolLayout(4, 16, 1.0)),
        ({"CPU": 16.0, "GPU": 1.0}, 2, PoolLayout(2, 8, 0.5)),
        ({"CPU": 16.0, "GPU": 2.0}, 3, PoolLayout(3, 5, 0.5)),  # one GPU holds two of them, so both are halved
        ({"CPU": 4.0, "GPU": 8.0}, None, PoolLayout(4, 1, 1.0)),  # a worker needs a core, so four GPUs stay idle
    ],
)
def test_what_there_is_is_shared(resources: dict[str, float], workers: int | None, expected: PoolLayout) -> None:
    assert divide([resources], workers and WorkerRequest(workers)) == expected


HEAD, LIGHT, HEAVY = {"CPU": 0.0}, {"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([HEAD, LIGHT, LIGHT], None, PoolLayout(32, 1, 0.0)),
        ([HEAD, LIGHT, LIGHT, LIGHT], 4, PoolLayout(4, 8, 0.0)),  # 12 cores each would leave one worker without a node
        ([HEAD, HEAVY, HEAVY], None, PoolLayout(2, 8, 1.0)),
        ([HEAD, LIGHT, HEAVY], None, PoolLayout(1, 8, 1.0)),  # not 24 cores, which no node has
        ([HEAD, HEAVY, {"CPU": 8.0, "GPU": 4.0}], None, PoolLayout(5, 2, 1.0)),
        ([{"CPU": 2.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}], 5, PoolLayout(5, 1, 1 / 3)),
        ([{"CPU": 1.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}], 5, PoolLayout(5, 1, 1 / 4)),
    ],
)
def test_a_worker_lies_on_one_node(nodes: list[dict[str, float]], workers: int | None, expected: PoolLayout) -> None:
    assert divide(nodes, workers and WorkerRequest(workers)) == expected


def test_all_workers_fit_at_once_whatever_is_asked_for() -> None:
    for cpus in range(1, 20):
        for gpus in range(5):
            for count in range(1, cpus + 1):
                found = divide([{"CPU": cpus, "GPU": gpus}], WorkerRequest(count))
                assert found.count == count
                assert found.cpus * count <= cpus
                # A share cannot lie on two GPUs, so what counts is how many fit on each.
                assert not gpus or int(1 / found.gpus + 1e-9) * gpus >= count


def test_more_workers_than_cores_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--workers must be 0 to 8 .*not 9"):
        divide([{"CPU": 8.0, "GPU": 1.0}], WorkerRequest(9))


def test_gpus_or_cores_are_taken_as_asked_for() -> None:
    mixed = [HEAD, LIGHT, HEAVY, HEAVY]
    assert divide(mixed, WorkerRequest(2, "cuda")) == PoolLayout(2, 8, 1.0)
    assert divide(mixed, WorkerRequest(32, "cpu")) == PoolLayout(32, 1, 0.0)
    with pytest.raises(ValueError, match="--workers 3xGPU: there are 2 GPUs"):
        divide(mixed, WorkerRequest(3, "cuda"))


def test_workers_share_a_gpu_as_far_as_its_cores_go() -> None:
    assert PoolLayout(2, 8, 1.0).sharing(3) == PoolLayout(6, 2, 1 / 3)
    assert PoolLayout(2, 2, 1.0).sharing(4) == PoolLayout(4, 1, 0.5)
    assert PoolLayout(2, 8, 1.0).sharing(1) == PoolLayout(2, 8, 1.0)


def test_this_process_has_what_one_worker_of_ray_would_have() -> None:
    for node in ({"CPU": 2.0}, {"CPU": 16.0, "GPU": 1.0}):
        assert divide([node], WorkerRequest(0)) == divide([node], WorkerRequest(1))


def test_a_worker_trains_on_a_gpu_where_it_has_a_share_of_one() -> None:
    assert PoolLayout(1, 1, 0.5).device == "cuda"
    assert PoolLayout(1, 1, 0.0).device == "cpu"
