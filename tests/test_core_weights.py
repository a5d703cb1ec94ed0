import hashlib
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save

from spine_ray.core.backbone import make_model
from spine_ray.core.weights import (
    RANDOM,
    WeightsOutOfReachError,
    weights_from_folder,
    weights_from_hub,
)

TAGGED = "resnet50.a1_in1k"
COMMIT = "0123456789abcdef" * 2 + "01234567"
HUB_FILE = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"


def test_random_weights_have_no_files():
    assert (RANDOM.kind, RANDOM.source, RANDOM.files, RANDOM.hashes()) == ("random", "random", {}, {})


@pytest.mark.parametrize(
    "name",
    [
        "resnet50.a1_in1k.safetensors",
        "resnet50.safetensors",
        "resnet50.a1_in1k/model.safetensors",
        "resnet50/model.safetensors",
    ],
)
def test_a_folder_may_name_its_files_in_four_ways(tmp_path, name):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"tensors")
    weights = weights_from_folder(tmp_path, [TAGGED])
    assert weights.kind == "pretrained"
    assert weights.source == str(tmp_path)
    assert weights.files == {TAGGED: file}
    assert weights.hashes() == {TAGGED: hashlib.sha256(b"tensors").hexdigest()}


def test_the_file_with_the_tag_goes_before_the_one_without(tmp_path):
    for name in ("resnet50.safetensors", "resnet50.a1_in1k.safetensors", "resnet50.a2_in1k.safetensors"):
        (tmp_path / name).write_bytes(b"")
    files = weights_from_folder(tmp_path, [TAGGED, "resnet50"]).files
    assert [file.name for file in files.values()] == ["resnet50.a1_in1k.safetensors", "resnet50.safetensors"]


def test_a_folder_that_lacks_files_is_refused_with_all_of_them(tmp_path):
    (tmp_path / "test_vit.safetensors").write_bytes(b"")
    (tmp_path / "resnet50.a2_in1k.safetensors").write_bytes(b"")  # of another tag
    with pytest.raises(ValueError, match=r"lacks resnet50\.a1_in1k\.safetensors, test_resnet\.safetensors$"):
        weights_from_folder(tmp_path, [TAGGED, "test_vit", "test_resnet"])


@pytest.mark.parametrize("name", ["nowhere", "a file"])
def test_what_is_no_folder_is_refused_with_what_is_allowed(tmp_path, name):
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a folder \(allowed: auto, pretrained, random, or a folder\)"):
        weights_from_folder(tmp_path / name, [TAGGED])


class Hub(BaseHTTPRequestHandler):
    """Serves one file as the hub does, or answers everything with one status.

    With status 302 it sends the client to a store, which hands out files and, to a signed address, nothing else.
    """

    body = b""
    status = 200
    is_cut = False
    asked: tuple = ()
    store = ""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        if self.answer():
            self.wfile.write(self.body[: len(self.body) // 2] if self.is_cut else self.body)

    def answer(self):
        if self.path.startswith("/timm/"):
            Hub.asked += ((self.command, self.path),)
        status = self.status
        if self.path == "/store":
            status = 200 if self.command == "GET" else 403
        elif status == 200 and self.path != HUB_FILE:
            status = 404
        digest = hashlib.sha256(self.body).hexdigest()
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{digest}"')
        if status == 302:
            self.send_header("Location", self.store)
            self.send_header("X-Linked-ETag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(self.body)))
        self.send_header("Content-Length", str(len(self.body) if status == 200 else 0))
        self.end_headers()
        return status == 200

    def log_message(self, *parts):
        pass


def point_client_at(address, monkeypatch):
    """Do what HF_ENDPOINT does, which the client reads only when it is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub's client, and no proxy on the way to it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    return tmp_path / "hub"


@pytest.fixture
def hub(cache, monkeypatch):
    torch.manual_seed(3)
    state = timm.create_model("test_resnet").state_dict()
    monkeypatch.setattr(Hub, "body", save({name: tensor.contiguous() for name, tensor in state.items()}))
    monkeypatch.setattr(Hub, "asked", ())
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        port = listening.server_address[1]
        point_client_at(f"http://127.0.0.1:{port}", monkeypatch)
        monkeypatch.setattr(Hub, "store", f"http://localhost:{port}/store")
        yield Hub
        listening.shutdown()
        thread.join()


@pytest.fixture
def closed_port(cache, monkeypatch):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: nobody else gets it, and it refuses
        point_client_at(f"http://127.0.0.1:{held.getsockname()[1]}", monkeypatch)
        yield


def test_weights_come_from_the_hub_once_and_then_from_the_cache(hub, cache):
    weights = weights_from_hub(["test_resnet"])
    assert (weights.kind, weights.source) == ("pretrained", "hub")
    file = weights.files["test_resnet"]
    assert file.is_relative_to(cache)
    assert file.read_bytes() == Hub.body
    assert weights.hashes() == {"test_resnet": hashlib.sha256(Hub.body).hexdigest()}
    assert Hub.asked == (("HEAD", HUB_FILE), ("HEAD", HUB_FILE), ("GET", HUB_FILE))
    assert weights_from_hub(["test_resnet"]) == weights
    assert len(Hub.asked) == 3


def test_a_hub_that_sends_the_client_on_to_a_store_is_there(hub, monkeypatch):
    monkeypatch.setattr(Hub, "status", 302)
    assert weights_from_hub(["test_resnet"]).files["test_resnet"].read_bytes() == Hub.body


def test_what_the_hub_gives_can_be_built_from(hub):
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet").layer4[0].conv1.weight
    file = weights_from_hub(["test_resnet"]).files["test_resnet"]
    assert torch.equal(make_model("test_resnet", 32, 10, weights=file).layer4[0].conv1.weight, expected)


def test_cached_weights_need_no_hub(hub, monkeypatch):
    weights = weights_from_hub(["test_resnet"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert weights_from_hub(["test_resnet"]) == weights


def test_one_backbone_out_of_reach_is_all_out_of_reach_and_is_named(hub):
    with pytest.raises(WeightsOutOfReachError, match="the weights of test_vit cannot be fetched"):
        weights_from_hub(["test_resnet", "test_vit"])


def test_a_hub_that_is_not_there_is_found_out_at_once_and_asked_once(closed_port):
    began = time.perf_counter()
    with pytest.raises(WeightsOutOfReachError, match=r"the hub does not answer within 5 s .*refused"):
        weights_from_hub(["test_resnet", "test_vit", "resnet50"])
    assert time.perf_counter() - began < 2


def test_a_hub_that_says_nothing_is_given_up(cache, monkeypatch):
    monkeypatch.setattr("spine_ray.core.weights.HUB_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_client_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(WeightsOutOfReachError, match=r"does not answer within 0\.2 s \(timed out\)"):
            weights_from_hub(["test_resnet"])


def test_a_hub_that_is_ill_is_out_of_reach(hub, monkeypatch):
    monkeypatch.setattr(Hub, "status", 503)
    with pytest.raises(WeightsOutOfReachError, match="the hub answers with status 503"):
        weights_from_hub(["test_resnet"])
    assert Hub.asked == (("HEAD", HUB_FILE),)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_hub_that_does_not_give_the_file_is_not_called_absent(hub, status, monkeypatch):
    monkeypatch.setattr(Hub, "status", status)
    with pytest.raises(WeightsOutOfReachError, match="the weights of test_resnet cannot be fetched: "):
        weights_from_hub(["test_resnet"])


def test_a_download_that_breaks_off_is_out_of_reach(hub, monkeypatch):
    monkeypatch.setattr(Hub, "is_cut", True)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(WeightsOutOfReachError, match="the weights of test_resnet cannot be fetched: "):
        weights_from_hub(["test_resnet"])


def test_offline_means_that_the_hub_is_not_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsOutOfReachError, match="HF_HUB_OFFLINE is set"):
        weights_from_hub(["test_resnet"])
    assert Hub.asked == ()


def test_a_backbone_without_weights_on_the_hub_is_refused(closed_port):
    with pytest.raises(ValueError, match="gcvit_tiny has no pretrained weights on the hub") as refusal:
        weights_from_hub(["gcvit_tiny"])
    assert not isinstance(refusal.value, WeightsOutOfReachError)
