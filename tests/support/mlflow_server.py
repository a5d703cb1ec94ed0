"""A real MLflow server on this machine, and a proxy that makes its answers late."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from spine_ray.track.client import ENVIRONMENT
from tests.support.patience import PATIENCE_S


class MlflowServer:
    """A server on a port of its own, with its database and artifacts in a folder; it can be killed and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, where it does not run already, and return once it answers."""
        if self._process is not None:
            return
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self._folder / 'server.db'}"]
        with (self._folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env={**ENVIRONMENT, **os.environ},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                assert time.monotonic() < end, (self._folder / "server.log").read_text()
                time.sleep(0.2)

    def kill(self) -> None:
        """End it, and whatever it started, at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


class SlowProxy:
    """Hands every request on to a server after a while, and none while `goes_on` is not set; the address is `uri`.

    Args:
        server: Where requests go.
        seconds: The while.
        late_runs: So many requests that make a run are carried out and answered too late: whoever asked has given up.
    """

    def __init__(self, server: MlflowServer, *, seconds: float = 0.0, late_runs: int = 0) -> None:
        self.asked, self.answered, self.late_runs = 0, 0, late_runs
        self.goes_on = threading.Event()
        self.goes_on.set()
        proxy = self

        class Slowly(BaseHTTPRequestHandler):
            def hand_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.asked += 1
                time.sleep(seconds)
                proxy.goes_on.wait()
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                request = urllib.request.Request(server.uri + self.path, body or None, headers, method=self.command)
                try:
                    with urllib.request.urlopen(request, timeout=60) as answer:
                        told, content = answer.status, answer.read()
                except urllib.error.HTTPError as error:
                    with error:
                        told, content = error.code, error.read()
                except urllib.error.URLError:
                    self.close_connection = True
                    return
                # Whoever has asked may give up at any time.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    if proxy.late_runs and self.path.endswith("/runs/create"):
                        self.connection.recv(1)  # returns when the connection ends
                        proxy.late_runs -= 1
                    self.send_response(told)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    proxy.answered += 1

            do_GET = do_POST = do_PATCH = do_PUT = hand_on  # noqa: N815

            def log_message(self, *parts: object) -> None:
                pass

        self._listening = ThreadingHTTPServer(("127.0.0.1", 0), Slowly)
        self.uri = f"http://127.0.0.1:{self._listening.server_address[1]}"
        threading.Thread(target=self._listening.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.goes_on.set()
        self._listening.shutdown()
        self._listening.server_close()
