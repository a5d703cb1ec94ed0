import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from spine_ray.track.serve import address_at, check_port, is_server
from spine_ray.track.view import comparison_address


class Answers(BaseHTTPRequestHandler):
    """Knows one experiment, as an MLflow server would answer for it."""

    authorization: str | None = None

    def do_POST(self) -> None:
        Answers.authorization = self.headers.get("Authorization")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = self.path == "/api/2.0/mlflow/experiments/search" and "'known'" in asked["filter"]
        body = json.dumps({"experiments": [{"experiment_id": "7"}]} if is_known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *parts: object) -> None:
        pass


@contextmanager
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def test_a_server_that_runs_already_is_pointed_at() -> None:
    with server() as base:
        assert address_at(base + "/", "known") == comparison_address(base, "7")
    assert is_server(base)
    assert not is_server("sqlite:///mlflow.db")


def test_a_study_without_runs_is_refused() -> None:
    with server() as base, pytest.raises(ValueError, match="no runs of this study"):
        address_at(base, "other")


def test_a_name_and_password_are_sent_and_not_shown() -> None:
    with server() as base:
        Answers.authorization = None
        assert address_at(base.replace("http://", "http://me:s%40cret@"), "known").startswith(base)
        # base64 of `me:s@cret`
        assert Answers.authorization == "Basic bWU6c0BjcmV0"


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    with pytest.raises(ConnectionError, match=r"MLflow at http://127\.0\.0\.1:9 cannot") as raised:
        address_at("http://me:secret@127.0.0.1:9", "known")
    assert "secret" not in str(raised.value)


def test_a_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ValueError, match="taken"):
        check_port(other.getsockname()[1])


def test_a_number_that_is_no_port_is_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        check_port(70_000)
