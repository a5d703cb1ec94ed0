"""What listens while a search runs or its runs are looked at: pages on this machine alone, the rest behind a token."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from spine_ray.study.ledger import append_event
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tracking import keep_tracking
from spine_ray.track.mlflow_log import deliver, sqlite_uri
from spine_ray.track.serve import serve
from tests.support.tracked import started, whole_trial

LOCAL = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print('joined')"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets"),
]


def descendants() -> set[int]:
    """This process and all that it started."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def addresses() -> dict[str, tuple[str, int]]:
    """Address and port of every TCP socket that listens, by inode."""
    found = {}
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            cells = line.split()
            host, _, port = cells[1].partition(":")
            words = bytes.fromhex(host)
            raw = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
            if cells[3] == "0A":
                found[cells[9]] = (socket.inet_ntop(family, raw), int(port, 16))
    return found


def listening() -> Iterator[tuple[str, str, int]]:
    """Command, address and port of each socket on which this process or one that it started listens."""
    table = addresses()
    for pid in descendants():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            targets = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        for inode in re.findall(r"socket:\[(\d+)\]", " ".join(targets)):
            if inode in table:
                yield command, *table[inode]


@pytest.mark.timeout(120)
def test_the_mlflow_ui_listens_on_this_machine_alone(tmp_path, monkeypatch):
    paths = StudyPaths(tmp_path / "study")
    for event in whole_trial(started()):
        append_event(paths.ledger, event)
    uri, tracking = sqlite_uri(paths.tracking), keep_tracking(paths, None)
    deliver(uri, paths)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serve(uri, tracking.study_id, port) as address:
        assert address.startswith(f"http://127.0.0.1:{port}/")
        found = [(host, at) for command, host, at in listening() if "mlflow" in command]
        assert ("127.0.0.1", port) in found
        assert {host for host, _ in found} <= LOCAL


@pytest.mark.timeout(180)
def test_no_dashboard_of_rays_listens_and_nobody_joins_without_the_token(tmp_path, one_ray_worker):
    pages = [(command, host) for command, host, _ in listening() if "dashboard/dashboard.py" in command]
    assert {host for _, host in pages} <= LOCAL
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((ray.util.get_node_ip_address(), 8265), timeout=5).close()
    address = ray.get_runtime_context().gcs_address
    stranger = {**os.environ, "HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", JOIN, address]
    joined = subprocess.run(command, env=stranger, capture_output=True, text=True, timeout=100, check=False)
    assert "joined" not in joined.stdout
    assert "AuthenticationError" in joined.stderr
