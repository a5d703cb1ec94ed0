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
from urllib.parse import quote, unquote, urlsplit

from spine_ray.track.mlflow_log import public_uri
from spine_ray.track.runs import ENVIRONMENT

START_S = 60.0


@contextmanager
def serve(uri: str, study: str, port: int = 5000) -> Iterator[str]:
    """Show a store's runs: yields the address of the study's experiment in the compare view.

    For a store that is a database, a server bound to 127.0.0.1 runs until the block is left. For a store that
    is a server already, nothing is started.

    Args:
        uri: MLflow's tracking URI.
        study: Name of the experiment.
        port: Port of the server to start, 1 to 65535.

    Raises:
        ValueError: If the port is taken or the store has no experiment of that name.
        RuntimeError: If the server does not come up.
    """
    if uri.startswith(("http://", "https://")):
        yield _address(public_uri(uri).rstrip("/"), study, _password(uri))
        return
    base = f"http://127.0.0.1:{port}"
    _refuse_taken(port)
    with tempfile.TemporaryFile("w+") as output:
        process = _start(uri, port, output)
        try:
            _wait(base, process, output)
            yield _address(base, study, {})
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(uri: str, port: int, output: IO[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {**ENVIRONMENT, **os.environ}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True, env=environment)


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ValueError(f"port {port} of this machine is taken; name another with --port")


def _wait(base: str, process: subprocess.Popen[str], output: IO[str]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if process.poll() is not None:
            output.seek(0)
            last = (output.read().strip().splitlines() or ["no output"])[-1]
            raise RuntimeError(f"the MLflow server did not start: {last}")
        try:
            with urllib.request.urlopen(f"{base}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the MLflow server did not answer within {START_S:g} s")


def _password(uri: str) -> dict[str, str]:
    """Return the header for the name and password in a URI, which urllib itself does not read."""
    parts = urlsplit(uri)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}


def _address(base: str, study: str, headers: Mapping[str, str]) -> str:
    query = f"{base}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(study, safe='')}"
    try:
        with urllib.request.urlopen(urllib.request.Request(query, headers=dict(headers)), timeout=10) as answer:
            experiment = json.load(answer)["experiment"]["experiment_id"]
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 404:
                raise RuntimeError(f"MLflow at {base} answers {error.code}") from error
        raise ValueError(f"MLflow at {base} has no runs of study {study!r}") from None
    except OSError as error:
        raise RuntimeError(f"MLflow at {base} cannot be reached: {error}") from error
    return f"{base}/#/experiments/{experiment}/runs?compareRunsMode=CHART"
