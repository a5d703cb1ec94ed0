"""The MLflow UI on this machine alone, at the runs of one study."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO
from urllib.parse import unquote, urlsplit

from spine_ray.track.client import ENVIRONMENT, STUDY_TAG
from spine_ray.track.mlflow_log import public_uri
from spine_ray.track.view import comparison_address

START_S = 180.0


def is_server(uri: str) -> bool:
    """Say whether a store is a server already, so that its runs can be looked at without starting one."""
    return uri.startswith(("http://", "https://"))


def address_at(uri: str, study_id: str) -> str:
    """Return the address at which a server shows a study's comparison.

    Raises:
        ValueError: If the server has no experiment of the study.
        ConnectionError: If it does not answer.
    """
    return _address(public_uri(uri).rstrip("/"), study_id, _password(uri))


@contextmanager
def serve(uri: str, study_id: str, port: int = 5000) -> Iterator[str]:
    """Run a server of a database's runs, bound to 127.0.0.1, until the block is left.

    Args:
        uri: MLflow's tracking URI.
        study_id: What tells the study's experiment from others.
        port: Port of the server, 1 to 65535.

    Yields:
        The address of the study's comparison.

    Raises:
        ValueError: If the store has no experiment of the study.
        ConnectionError: If the server does not come up.
    """
    base = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryDirectory() as folder:
        process = _start(uri, port, folder, output)
        try:
            _wait(base, process, output)
            yield _address(base, study_id, {})
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(uri: str, port: int, folder: str, output: IO[str]) -> subprocess.Popen[str]:
    """Start the server in a folder of its own: it leaves files where it runs."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**ENVIRONMENT, **os.environ}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment, cwd=folder)


def check_port(port: int) -> None:
    """Refuse a port that another program listens on.

    Raises:
        ValueError: If it is taken or no port.
    """
    if not 0 < port < 65536:
        raise ValueError(f"--port {port}: a port is a number from 1 to 65535")
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ValueError(f"port {port} of this machine is taken; name another with --port")


def _wait(base: str, process: subprocess.Popen[str], output: IO[str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            output.seek(0)
            last = (output.read().strip().splitlines() or ["no output"])[-1]
            raise ConnectionError(f"the MLflow server did not start: {last}")
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise ConnectionError(f"the MLflow server did not answer within {START_S:g} s")


def _password(uri: str) -> dict[str, str]:
    """Return the header for the name and password in a URI, which urllib itself does not read."""
    parts = urlsplit(uri)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _address(base: str, study_id: str, headers: Mapping[str, str]) -> str:
    body = {"filter": f"tags.`{STUDY_TAG}` = '{study_id}'", "max_results": 1}
    request = urllib.request.Request(
        f"{base}/api/2.0/mlflow/experiments/search",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            found = json.load(answer).get("experiments", [])
    except urllib.error.HTTPError as error:
        with error:
            raise ConnectionError(f"MLflow at {base} answers {error.code}") from error
    except OSError as error:
        raise ConnectionError(f"MLflow at {base} cannot be reached: {error}") from error
    if not found:
        raise ValueError(f"MLflow at {base} has no runs of this study")
    return comparison_address(base, found[0]["experiment_id"])
