"""What a node of a cluster lacks it gets, once: real nodes on this machine, each with a cache of its own."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spine_ray.data.digits import digits_source
from spine_ray.tune import node
from spine_ray.tune.driver_files import DriverFiles
from spine_ray.tune.node import serve_files
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.worker_data import DecodeRequest

pytestmark = pytest.mark.timeout(240)
ROWS = 5
SPEC = WorkerSpec(study=Path("study"), holder="", pixels=Path("pixels"), seed=0, weights=(), device="cpu", threads=1)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The id and the cache of a second node; the driver is on the first."""
    cache = tmp_path_factory.mktemp("node")
    cluster = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 1, "include_dashboard": False})
    there = cluster.add_node(num_cpus=1, env_vars={"SPINE_RAY_CACHE": str(cache)})
    cluster.wait_for_nodes()
    code = str(Path(node.__file__).parents[2])
    ray.init(address=cluster.address, runtime_env={"env_vars": {"PYTHONPATH": code}}, log_to_driver=False)
    yield there.node_id, cache
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def files(nodes: tuple[str, Path]) -> DriverFiles:
    source = digits_source()
    names = tuple(source.rows[row].path for row in range(ROWS))
    request = DecodeRequest(source=source, rows=np.arange(ROWS), content=names, side=12)
    served = serve_files(SPEC, request).files
    assert isinstance(served, DriverFiles)
    return served


def on(nodes: tuple[str, Path], work: Any, *given: Any) -> Any:
    there = NodeAffinitySchedulingStrategy(nodes[0], soft=False)
    return ray.get(ray.remote(work).options(num_cpus=1, scheduling_strategy=there).remote(*given))


def test_pictures_are_decoded_on_the_node_once_and_are_those_of_the_driver(
    nodes: tuple[str, Path], files: DriverFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path))
    here = ray.get(files.pictures).decode()

    def look(pixels: Path, files: DriverFiles) -> tuple[Path, list[bytes]]:
        found = files.pixels(pixels)
        return found.folder, [found.picture(row).tobytes() for row in range(ROWS)]

    folder, pictures = on(nodes, look, here.folder, files)
    assert folder.parent == nodes[1] / "pixels"
    assert folder.name == here.folder.name
    assert pictures == [here.picture(row).tobytes() for row in range(ROWS)]
    index = folder / "index.npz"
    before = index.stat().st_mtime_ns
    on(nodes, look, here.folder, files)
    assert index.stat().st_mtime_ns == before, "not decoded again"


def test_weights_travel_from_the_driver_piece_by_piece(
    nodes: tuple[str, Path], files: DriverFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, content = tmp_path / "a.safetensors", np.random.default_rng(0).bytes(1000)
    file.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()

    def fetch(file: Path, digest: str, files: DriverFiles) -> tuple[Path, bytes]:
        node._PIECE = 300
        found = files.weights(file, digest)
        return found, found.read_bytes()

    path, arrived = on(nodes, fetch, file, digest, files)
    assert path.is_relative_to(nodes[1] / "weights")
    assert arrived == content
    file.unlink()
    assert on(nodes, fetch, file, digest, files) == (path, content), "it is there by now"


def test_weights_that_do_not_arrive_whole_are_refused(
    nodes: tuple[str, Path], files: DriverFiles, tmp_path: Path
) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"other")

    def fetch(file: Path, files: DriverFiles) -> None:
        files.weights(file, "0" * 64)

    with pytest.raises(ValueError, match="did not arrive whole"):
        on(nodes, fetch, file, files)
    assert not list((nodes[1] / "weights").glob("0*/*"))


def test_the_drivers_node_uses_its_own_files(nodes: tuple[str, Path], files: DriverFiles, tmp_path: Path) -> None:
    assert files.weights(tmp_path / "a", "0" * 64) == tmp_path / "a"
