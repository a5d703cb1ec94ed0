import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from spine_ray.track.serve import serve


class Answers(BaseHTTPRequestHandler):
    """Knows one experiment, as an MLflow server would answer for it."""

    authorization = None

    def do_GET(self):
        Answers.authorization = self.headers.get("Authorization")
        parts = urlsplit(self.path)
        name = parse_qs(parts.query).get("experiment_name", [""])[0]
        is_known = parts.path == "/api/2.0/mlflow/experiments/get-by-name" and name == "my study/1"
        body = json.dumps({"experiment": {"experiment_id": "7", "name": name}} if is_known else {}).encode()
        self.send_response(200 if is_known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *parts):
        pass


@contextmanager
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


def test_a_server_that_runs_already_is_pointed_at():
    with server() as base, serve(base + "/", "my study/1") as address:
        assert address == f"{base}/#/experiments/7/runs?compareRunsMode=CHART"


def test_a_study_without_runs_is_refused():
    with server() as base, pytest.raises(ValueError, match="'other'"), serve(base, "other"):
        pass


def test_a_name_and_password_are_sent_and_not_shown():
    with server() as base:
        Answers.authorization = None
        uri = base.replace("http://", "http://me:s%40cret@")
        with serve(uri, "my study/1") as address:
            assert address.startswith(base)
        # base64 of `me:s@cret`
        assert Answers.authorization == "Basic bWU6c0BjcmV0"


def test_a_server_that_is_away_is_named_without_its_password():
    away = serve("http://me:secret@127.0.0.1:9", "study")
    with pytest.raises(RuntimeError, match=r"MLflow at http://127\.0\.0\.1:9 cannot") as raised, away:
        pass
    assert "secret" not in str(raised.value)


def test_a_taken_port_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=str(port)), serve("sqlite:///unused.db", "study", port):
            pass
