"""An S3-compatible server on loopback that counts what it is asked."""

import itertools
import logging
import threading
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from spine_ray.study.remote import Mirror, Remote


@dataclass(frozen=True)
class Asked:
    method: str
    path: str


@dataclass
class ObjectStore:
    requests: list[Asked] = field(default_factory=list)
    """In order, since it was started or cleared."""

    def __post_init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._names = itertools.count(1)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()

    def make_bucket(self) -> str:
        name = f"bucket{next(self._names)}"
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=10):
            pass
        return name

    def _answer(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.requests.append(Asked(environment["REQUEST_METHOD"], environment["PATH_INFO"]))
        answer: Iterable[bytes] = self._app(environment, start)
        return answer


def bring_home(uri: str, folder: Path) -> Path:
    """Fetch a study at a URI into a folder."""
    Mirror(Remote.at(uri), folder).fetch()
    return folder
