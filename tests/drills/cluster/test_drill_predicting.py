"""Predictions on a cluster: those of this machine, in the same order, whatever node says them."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster

pytestmark = pytest.mark.timeout(600)


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
