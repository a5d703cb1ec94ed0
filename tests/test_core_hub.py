import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from spine_ray.core.hub import HubAwayError, HubFile, HubFileError, cached, describe, fetch, fetch_to_cache, is_damaged
from tests.support.loopback_hub import COMMIT, loopback_hub, point_client_at, refusing_hub, repository_of
from tests.support.patience import PATIENCE_S, wait_for

ROOT = Path(__file__).parents[1]
REPOSITORY = repository_of("test_resnet")
CONTENT = bytes(range(256)) * 800
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FETCH = (
    "from pathlib import Path; from spine_ray.core.hub import describe, fetch; "
    f"fetch(describe('{REPOSITORY}'), Path('there'), Path('there.lock'), print)"
)
"""A process of its own that fetches to its working folder."""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of the client, no proxy on the way to it, and no second between two attempts."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.file_download.time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # else 10 MB, of which a break loses what is not full
    return tmp_path / "hub"


@pytest.fixture
def hub(monkeypatch):
    with loopback_hub({REPOSITORY: CONTENT}) as hub:
        point_client_at(hub.address, monkeypatch)
        yield hub


@pytest.fixture
def place(tmp_path):
    return tmp_path / "weights" / "there"


def fetch_to(place, told=None):
    fetch(describe(REPOSITORY), place, place.with_name("lock"), (told if told is not None else []).append)


def fetching_process(hub, folder):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HUB_DOWNLOAD_TIMEOUT": f"{PATIENCE_S:.0f}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-c", FETCH], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("store", [False, True], ids=["at the hub", "at a store"])
def test_the_hub_says_version_hash_and_size(hub, store):
    hub.store = store
    assert describe(REPOSITORY) == HubFile(repository=REPOSITORY, commit=COMMIT, etag=SHA256, size=len(CONTENT))
    assert [method for method, _, _ in hub.asked] == ["HEAD"]


def test_a_repository_that_has_moved_is_followed(hub):
    hub.moved = {"timm/old_name": REPOSITORY}
    assert describe("timm/old_name").etag == SHA256


@pytest.mark.parametrize("store", [False, True], ids=["at the hub", "at a store"])
def test_a_file_is_fetched_once_and_whole(hub, place, store):
    hub.store = store
    fetch_to(place)
    assert place.read_bytes() == CONTENT
    fetch_to(place)
    assert hub.gets() == [""] * (2 if store else 1)  # at a store: the hub, which sends there, and the store
    assert sorted(path.name for path in place.parent.iterdir()) in (["lock", "there"], ["there"])


def test_a_token_is_not_sent_on_to_the_store(hub, place, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.store = True
    fetch_to(place)
    sent = {path.startswith("/store/"): token for path, token in hub.tokens}
    assert sent == {False: "Bearer hf_secret", True: None}


def test_a_transfer_that_breaks_off_goes_on_within_the_call(hub, place):
    hub.cut, hub.cuts = 50_000, 2
    fetch_to(place)
    assert place.read_bytes() == CONTENT
    assert hub.gets() == ["", "bytes=50000-", "bytes=100000-"]


def test_a_transfer_that_never_comes_to_its_end_is_kept_and_named(hub, place):
    hub.cut = 0
    fetch_first = HubFile(repository=REPOSITORY, commit=COMMIT, etag=SHA256, size=len(CONTENT))
    with pytest.raises(HubFileError, match=rf"{REPOSITORY}/model\.safetensors broke off at 0 of {len(CONTENT)} bytes"):
        fetch(fetch_first, place, place.with_name("lock"), [].append)
    assert not place.exists()


def test_what_an_earlier_process_has_fetched_is_not_fetched_again(hub, place):
    place.parent.mkdir()
    place.with_name(f"there.{SHA256[:16]}.incomplete").write_bytes(CONTENT[:123_456])
    told = []
    fetch_to(place, told)
    assert place.read_bytes() == CONTENT
    assert hub.gets() == ["bytes=123456-"]
    assert told == [f"fetching {REPOSITORY}: 0.2 MB, 0.1 MB of them are here"]


def test_a_hub_that_sends_the_whole_when_asked_for_the_rest_does_no_harm(hub, place):
    hub.ranges = False
    place.parent.mkdir()
    place.with_name(f"there.{SHA256[:16]}.incomplete").write_bytes(CONTENT[:1000])
    fetch_to(place)
    assert place.read_bytes() == CONTENT


@pytest.mark.parametrize("spoiled", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_spoiled_part_is_fetched_anew(hub, place, spoiled):
    place.parent.mkdir()
    place.with_name(f"there.{SHA256[:16]}.incomplete").write_bytes(spoiled)
    fetch_to(place)
    assert place.read_bytes() == CONTENT
    assert hub.gets()[-1] == ""


def test_a_file_that_is_not_what_the_hub_said_never_takes_its_name(hub, place):
    hub.sent = {REPOSITORY: CONTENT[:-1] + b"x"}
    with pytest.raises(HubFileError, match=rf"{REPOSITORY}/model\.safetensors: the hub sent {len(CONTENT)} bytes that"):
        fetch_to(place)
    assert not [path for path in place.parent.iterdir() if path.name != "lock"]


def test_a_damaged_file_at_the_place_is_replaced(hub, place):
    place.parent.mkdir()
    place.write_bytes(CONTENT[:5])
    fetch_to(place)
    assert place.read_bytes() == CONTENT


def test_a_process_killed_while_fetching_loses_nothing(hub, tmp_path):
    content = CONTENT * 60
    hub.files[REPOSITORY] = content
    etag = hashlib.sha256(content).hexdigest()
    hub.silent_at = 11_000_000  # more than the client writes at once, 10 MB
    first = fetching_process(hub, tmp_path)
    part = tmp_path / f"there.{etag[:16]}.incomplete"
    wait_for(lambda: (part.exists() and part.stat().st_size > 0) or first.poll() is not None)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    there = part.stat().st_size
    assert 0 < there < len(content)
    hub.goes_on.set()
    second = fetching_process(hub, tmp_path)
    second.communicate(timeout=PATIENCE_S)
    assert second.returncode == 0
    assert (tmp_path / "there").read_bytes() == content
    assert hub.gets() == ["", f"bytes={there}-"]


def test_of_two_processes_one_fetches_and_the_other_waits(hub, tmp_path):
    hub.silent_at = 0
    one = fetching_process(hub, tmp_path)
    wait_for(lambda: hub.gets() or one.poll() is not None)
    other = fetching_process(hub, tmp_path)
    assert other.stdout.readline() == f"waiting for another process that fetches {REPOSITORY}\n"
    hub.goes_on.set()
    told, told_by_other = (process.communicate(timeout=PATIENCE_S)[0] for process in (one, other))
    assert [process.returncode for process in (one, other)] == [0, 0]
    assert hub.gets() == [""]
    assert told == f"fetching {REPOSITORY}: 0.2 MB\n"
    assert told_by_other == ""
    assert (tmp_path / "there").read_bytes() == CONTENT


def test_a_slow_hub_is_waited_for(hub, place):
    hub.stall = 0.01
    fetch_to(place)
    assert place.read_bytes() == CONTENT


def test_a_hub_that_falls_silent_is_given_up_and_what_it_sent_is_kept(hub, place, monkeypatch):
    described = describe(REPOSITORY)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.silent_at = 0
    with pytest.raises(HubFileError, match="broke off at 0 of"):
        fetch(described, place, place.with_name("lock"), [].append)


def test_the_clients_own_cache_finds_what_was_fetched_to_it(hub, cache):
    hub.store = True
    path = fetch_to_cache(describe(REPOSITORY), [].append)
    assert path.is_relative_to(cache)
    assert path.name == "model.safetensors"
    assert path.read_bytes() == CONTENT
    assert cached(REPOSITORY) == path
    assert not is_damaged(path)
    assert path.resolve().name == SHA256


def test_a_damaged_file_of_the_cache_is_known_and_replaced(hub):
    path = fetch_to_cache(describe(REPOSITORY), [].append)
    path.resolve().write_bytes(CONTENT[:-1])
    assert is_damaged(path)
    assert fetch_to_cache(describe(REPOSITORY), [].append).read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_to_is_named(hub, cache):
    cache.write_bytes(b"a file")
    with pytest.raises(HubFileError, match=rf"{REPOSITORY}/model\.safetensors cannot be kept in {cache}"):
        fetch_to_cache(describe(REPOSITORY), [].append)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_hub_that_does_not_give_a_file_is_there(hub, status):
    hub.status = status
    with pytest.raises(HubFileError, match=f"answers with status {status} for {REPOSITORY}/model.safetensors"):
        describe(REPOSITORY)


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_that_is_ill_is_away(hub, status):
    hub.status = status
    with pytest.raises(HubAwayError, match=f"the hub answers with status {status}"):
        describe(REPOSITORY)
    assert len(hub.asked) == 1


def test_a_hub_that_refuses_is_found_out_at_once(monkeypatch):
    with refusing_hub(monkeypatch) as asked:
        with pytest.raises(HubAwayError, match=r"the hub does not answer within 3600 s .*refused"):
            describe(REPOSITORY)
        assert len(asked) == 1, "it is neither waited for nor asked again"


def test_a_hub_that_says_nothing_is_given_up(monkeypatch):
    monkeypatch.setattr("spine_ray.core.hub.HUB_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_client_at(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(HubAwayError, match=r"does not answer within 0\.2 s"):
            describe(REPOSITORY)


def test_something_else_that_answers_is_no_hub(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as portal:
        point_client_at(f"http://127.0.0.1:{portal.getsockname()[1]}", monkeypatch)

        def answer():
            connection, _ = portal.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(HubAwayError, match="is no hub"):
            describe(REPOSITORY)
        thread.join()


def test_offline_means_that_the_hub_is_not_asked(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubAwayError, match="HF_HUB_OFFLINE is set"):
        describe(REPOSITORY)
    assert hub.asked == []
