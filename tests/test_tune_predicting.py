"""Predictions on a cluster: those of this machine, in the same order, whatever node says them."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

from spine_ray.data.albums import listed_album
from spine_ray.predict import main
from spine_ray.tune.predicting import AlbumSource, Layout

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize(
    ("nodes", "layout"),
    [
        ([{"CPU": 0.0}, {"CPU": 16.0}, {"CPU": 16.0}], Layout(2, 16, 0)),
        ([{"CPU": 16.0}, {"CPU": 4.0}], Layout(5, 4, 0)),
        ([{"CPU": 16.0}, {"CPU": 8.0, "GPU": 1.0}], Layout(1, 8, 1)),
        ([{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}], Layout(5, 8, 1)),
        ([{"CPU": 2.0, "GPU": 4.0}], Layout(2, 1, 1)),
    ],
)
def test_actors_fill_the_cluster(nodes: list[dict[str, float]], layout: Layout) -> None:
    assert Layout.of(nodes) == layout


def test_a_cluster_without_cores_predicts_nothing() -> None:
    with pytest.raises(ValueError, match="no machine that predicts"):
        Layout.of([{"CPU": 0.0}, {}])


def test_pictures_are_read_in_one_task_and_travel_in_parcels() -> None:
    (task,) = AlbumSource(listed_album([b"x"] * 600)).get_read_tasks(200)
    assert [block.num_rows for block in task()] == [1, 1, 1]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that predicts nothing and two nodes of one core."""
    found = Cluster(initialize_head=True, connect=False, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        found.add_node(num_cpus=1)
    yield found
    ray.shutdown()
    found.shutdown()


def test_the_table_is_that_of_this_machine(shipped_study, cluster, tmp_path) -> None:
    pictures = tmp_path / "pictures"
    for number in range(7):  # more than one parcel
        for name in shipped_study.names:
            path = pictures / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((shipped_study.pictures / name).read_bytes())
    (pictures / "3" / "broken.png").write_bytes(b"no picture")
    tables = []
    for place, words in (("here", []), ("there", ["--address", cluster.address])):
        out = tmp_path / f"{place}.parquet"
        command = [sys.executable, "-m", "spine_ray.predict", str(shipped_study.root), "--images", str(pictures)]
        command += ["--out", str(out), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert done.returncode == 0, done.stderr
        assert "Actor with class name" not in done.stderr
        tables.append(pq.read_table(out))
    here, there = tables
    assert len(here) > 256
    assert here.schema == there.schema
    for name in ("sample", "class", "members", "error"):
        assert here[name].to_pylist() == there[name].to_pylist(), name
    for name in here.schema.names:
        if name.startswith("p_"):
            a, b = (np.array(table[name].to_pylist(), float) for table in tables)
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_address_where_nobody_answers_is_one_line(shipped_study, tmp_path, capfd) -> None:
    words = [str(shipped_study.root), "--images", str(shipped_study.pictures), "--out", str(tmp_path / "x.csv")]
    assert main([*words, "--address", "127.0.0.1:1"]) == 2
    assert "no Ray cluster answers there" in capfd.readouterr().err
    assert not (tmp_path / "x.csv").exists()
