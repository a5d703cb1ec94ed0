"""What ships, where it ships to: an environment with five packages, and a server that answers over HTTP."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spine_ray.export import main
from tests.support.fresh_environment import FreshEnvironment

ROOT = Path(__file__).parents[3]
NEEDED = ("torch", "timm", "numpy", "pillow", "safetensors")


@pytest.fixture(scope="module")
def exported(shipped_study, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "out"
    assert main([str(shipped_study.root), "--out", str(out)]) == 0
    return out


@pytest.mark.timeout(1500)
def test_a_fresh_environment_with_five_packages_predicts(exported, shipped_study, tmp_path) -> None:
    environment = FreshEnvironment(tmp_path)
    environment.install(*NEEDED)
    out = tmp_path / "found.csv"
    command = ["-m", "spine_ray.predict", str(exported), "--images", str(shipped_study.pictures)]
    command += ["--labels", str(shipped_study.labels), "--out", str(out)]
    done = environment.run("python", *command, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stderr
    check = "import importlib.util as u; print([n for n in ('ray', 'mlflow', 'pyarrow', 'rich') if u.find_spec(n)])"
    assert environment.run("python", "-c", check, cwd=tmp_path).stdout == "[]\n"
    lines = [line.split(",") for line in out.read_text().splitlines()]
    rows = {line[0]: [float(cell) for cell in line[5:15]] for line in lines[1:]}
    probs = np.array([rows[name] for name in shipped_study.names])
    np.testing.assert_allclose(probs, np.exp(shipped_study.log_probs), atol=1e-5)


@pytest.mark.timeout(300)
def test_a_server_answers_over_http_as_the_search_measured(exported, shipped_study, tmp_path) -> None:
    contents = [(shipped_study.pictures / name).read_bytes() for name in shipped_study.names]
    rows = [[base64.b64encode(content).decode()] for content in contents]
    with _served(exported / "mlflow", tmp_path) as address:
        found = _ask(address, {"dataframe_split": {"columns": ["image"], "data": rows}})["predictions"]
        broken = _ask(address, {"dataframe_split": {"columns": ["image"], "data": [["AAAA"]]}})["predictions"]
    probs = np.array([[row[f"p_digit {digit}"] for digit in range(10)] for row in found])
    np.testing.assert_allclose(probs, np.exp(shipped_study.log_probs), atol=1e-5)
    assert broken[0]["error"] == "not a picture of a known kind"


@contextlib.contextmanager
def _served(model: Path, folder: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    command += ["--port", str(port), "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 200
            while not _is_up(address):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "server.log").read_text()
                time.sleep(0.5)
            yield address
        finally:
            os.killpg(process.pid, 15)
            process.wait(20)


def _is_up(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=2) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def _ask(address: str, body: dict) -> dict:
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=100) as answer:
        return json.loads(answer.read())
