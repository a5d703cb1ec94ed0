"""What workers put into a study, and find there, in a folder and at a URI."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from spine_ray.study.depot import Depot
from spine_ray.study.hold import LostHoldError, held, this_process
from spine_ray.study.paths import StudyPaths, replace_bytes
from spine_ray.study.remote import LEASE, Remote
from tests.support.object_store import ObjectStore


@pytest.fixture
def far(object_store: ObjectStore, tmp_path: Path) -> Depot:
    """A worker's way to a study at a URI that a search holds."""
    uri, holder = f"s3://{object_store.make_bucket()}/study", this_process()
    Remote.at(uri).put(LEASE, json.dumps(asdict(holder)).encode())
    return Depot(StudyPaths(tmp_path / "node"), holder.token, uri)


def test_what_is_put_in_a_folder_lies_there(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    with held(paths) as hold:
        depot = Depot(paths, hold.token, None)
        with depot.publishing(paths.oof("a")):
            replace_bytes(paths.oof("a"), b"logits")
        depot.fetch(paths.oof("a"))
        assert paths.oof("a").read_bytes() == b"logits"
        depot.remove(paths.oof("a"))
        assert not paths.oof("a").exists()


def test_what_is_put_at_a_uri_lies_there_alone(far: Depot) -> None:
    path = far.paths.oof("a")
    with far.publishing(path):
        replace_bytes(path, b"logits")
    assert not path.exists()
    far.fetch(path)
    assert path.read_bytes() == b"logits"


def test_a_node_never_goes_on_from_what_another_has_removed(far: Depot) -> None:
    path = far.paths.checkpoint("a")
    replace_bytes(path, b"old")
    far.fetch(path)
    assert not path.exists()


def test_removing_is_for_everybody_and_removing_nothing_is_no_error(far: Depot) -> None:
    path = far.paths.checkpoint("a")
    with far.publishing(path):
        replace_bytes(path, b"state")
    far.remove(path)
    far.remove(path)
    far.fetch(path)
    assert not path.exists()


def test_a_worker_of_a_search_that_lost_the_study_puts_nothing_there(far: Depot) -> None:
    path, late = far.paths.oof("a"), Depot(far.paths, "an earlier hold", far.uri)
    with pytest.raises(LostHoldError), late.publishing(path):
        replace_bytes(path, b"late")
    far.fetch(path)
    assert not path.exists()


def test_a_file_is_put_there_in_one_request_after_one_look_at_the_holder(far: Depot, object_store: ObjectStore) -> None:
    object_store.requests.clear()
    with far.publishing(far.paths.oof("a")):
        replace_bytes(far.paths.oof("a"), b"logits")
    assert [each.method for each in object_store.requests] == ["HEAD", "GET", "PUT"]
