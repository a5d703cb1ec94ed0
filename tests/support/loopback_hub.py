"""A hub on this machine's loopback, which answers the hub client as the real one does, and misbehaves when told to."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from huggingface_hub import constants

COMMIT = "0123456789abcdef" * 2 + "01234567"
FILE = "model.safetensors"
_CHUNK = 2**16


@dataclass
class Hub:
    """What the hub holds, how it answers, and what it was asked."""

    files: dict[str, bytes]
    """By repository."""
    address: str = ""
    status: int = 200
    """Of every answer about a file, unless it is 200."""
    store: bool = False
    """Files lie at another host, to which the client is sent, as those of large files do."""
    moved: dict[str, str] = field(default_factory=dict)
    """Repositories with a new name: asked for the old one, the hub answers with a relative redirect."""
    ranges: bool = True
    """Whether a part of a file may be asked for; if not, the whole is sent."""
    cut: int | None = None
    """Bytes after which a transfer breaks off, connection closed."""
    cuts: int = 10**6
    """How many transfers break off."""
    stall: float = 0.0
    """Seconds of silence before each chunk."""
    silent_at: int | None = None
    """Bytes after which a transfer falls silent until `goes_on`."""
    goes_on: threading.Event = field(default_factory=threading.Event)
    sent: dict[str, bytes] = field(default_factory=dict)
    """What is sent in place of a file."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and range of each request."""
    tokens: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and authorization of each request."""

    def gets(self) -> list[str]:
        """The ranges of the transfers asked for."""
        return [part for method, _, part in self.asked if method == "GET"]


@contextmanager
def loopback_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """Serve files until the block is left."""
    hub = Hub(files)
    handler = type("Answers", (_Answers,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield hub
        hub.goes_on.set()
        server.shutdown()
        thread.join()


@contextmanager
def refusing_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Point the client at an address where nobody listens; yields the addresses that this process connects to."""
    asked: list[Any] = []
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        asked.append(address)
        connect(self, address)

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets it, and it refuses
        point_client_at(f"http://127.0.0.1:{held.getsockname()[1]}", monkeypatch)
        monkeypatch.setattr(socket.socket, "connect", noted)
        # Who waited as long as this would not be overlooked.
        monkeypatch.setattr("spine_ray.core.hub.HUB_TIMEOUT_S", 3600.0)
        yield asked


def point_client_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does, which the client reads only when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


def repository_of(backbone: str) -> str:
    """Return the repository of one of timm's test models."""
    return f"timm/{backbone}.r160_in1k"


class _Answers(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.hub
        if self.path.startswith("/api/"):  # what the client wants to know for itself
            self._send(404)
            return
        hub.asked.append((self.command, self.path, self.headers.get("Range", "")))
        hub.tokens.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith("/store/"):
            repository = self.path.removeprefix("/store/").partition("?")[0]
            self._send_file(repository) if self.command == "GET" else self._send(403)
            return
        repository, _, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if hub.status != 200:
            self._send(hub.status)
        elif repository in hub.moved:
            self._send(307, {"Location": f"/{hub.moved[repository]}/resolve/{rest}"})
        elif repository not in hub.files or name != FILE or revision not in ("main", COMMIT):
            self._send(404, {"X-Error-Code": "EntryNotFound" if repository in hub.files else "RepoNotFound"})
        elif hub.store:
            port = hub.address.rpartition(":")[2]
            # The same server by another name, so another host to the client.
            self._send(
                302, {**self._about(repository), "Location": f"http://localhost:{port}/store/{repository}?signed"}
            )
        else:
            self._send_file(repository)

    def _about(self, repository: str) -> dict[str, str]:
        content = self.hub.files[repository]
        return {
            "X-Repo-Commit": COMMIT,
            "X-Linked-ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Accept-Ranges": "bytes",
        }

    def _send_file(self, repository: str) -> None:
        hub = self.hub
        content = hub.sent.get(repository, hub.files[repository])
        wanted = self.headers.get("Range")
        begin = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted and hub.ranges else 0
        if begin >= len(content):
            self._send(416)
            return
        headers = {**self._about(repository), "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if wanted and hub.ranges:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        self._send(206 if wanted and hub.ranges else 200, headers, length=len(content) - begin)
        if self.command == "GET":
            self._send_body(content[begin:])

    def _send_body(self, content: bytes) -> None:
        hub = self.hub
        is_cut = hub.cut is not None and hub.cuts > 0
        if is_cut:
            hub.cuts -= 1
            content = content[: hub.cut]
        try:
            for start in range(0, len(content), _CHUNK):
                if hub.silent_at is not None and start >= hub.silent_at:
                    hub.goes_on.wait()
                time.sleep(hub.stall)
                self.wfile.write(content[start : start + _CHUNK])
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked has died, which some tests are about
        self.close_connection = True

    def _send(self, status: int, headers: dict[str, str] | None = None, length: int = 0) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, *parts: object) -> None:
        """Say nothing."""
