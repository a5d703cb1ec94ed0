import json
from collections.abc import Callable
from pathlib import Path

import pytest

from spine_ray.study import remote
from spine_ray.study.events import EpochDone
from spine_ray.study.ledger import append_event
from spine_ray.study.paths import StudyPaths
from spine_ray.study.remote import Mirror, Remote, is_remote
from tests.support.object_store import ObjectStore


def event(step: int) -> EpochDone:
    return EpochDone(
        trial_id="t", step=step, fold=0, epoch=step, train_loss=1.0, log_loss=1.0, accuracy=0.5, seconds=1.0,
        train_images=1, train_images_s=1.0, score_images_s=1.0, peak_mb=1.0, views=1, micro_batch=1, note="",
    )  # fmt: skip


def steps_in(ledger: Path) -> list[int]:
    return [json.loads(line)["step"] for line in ledger.read_text().splitlines()]


@pytest.fixture(params=["s3", "file"])
def open_mirror(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Mirror]:
    """Return what opens the same URI from machines of different names."""
    if request.param == "s3":
        store: ObjectStore = request.getfixturevalue("object_store")
        uri = f"s3://{store.make_bucket()}/studies/one/"
    else:
        uri = (tmp_path / "there").as_uri()

    def open_at(machine: str) -> Mirror:
        (tmp_path / machine).mkdir(exist_ok=True)
        return Mirror(Remote.at(uri), tmp_path / machine)

    return open_at


def test_a_uri_is_told_from_a_folder() -> None:
    assert is_remote("s3://bucket/study")
    assert is_remote("gs://bucket/study")
    assert not is_remote("studies/smoke")
    assert not is_remote("C:/studies/smoke")


def test_what_nothing_opens_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"sftp://host/study cannot be opened: .*allowed: s3://"):
        Remote.at("sftp://host/study")


def test_a_uri_without_a_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="s3: names no folder"):
        Remote.at("s3:")


def test_another_machine_finds_what_was_sent(open_mirror: Callable[[str], Mirror]) -> None:
    here, there = open_mirror("here"), open_mirror("there-too")
    paths = StudyPaths(here.folder)
    paths.oof("a").parent.mkdir(parents=True)
    paths.oof("a").write_bytes(b"logits")
    paths.record.write_text("{}")
    append_event(paths.ledger, event(1))
    here.send()
    append_event(paths.ledger, event(2))
    paths.record.write_text('{"seed": 1}')
    here.send()
    there.fetch()
    found = StudyPaths(there.folder)
    assert found.oof("a").read_bytes() == b"logits"
    assert found.record.read_text() == '{"seed": 1}'
    assert steps_in(found.ledger) == [1, 2]


def unsent(here: Mirror) -> None:
    """Let a machine die with an event and the file that it names unsent."""
    paths = StudyPaths(here.folder)
    append_event(paths.ledger, event(1))
    here.send()
    append_event(paths.ledger, event(2))
    paths.oof("b").parent.mkdir(parents=True)
    paths.oof("b").write_bytes(b"unsent")


def test_a_machine_that_comes_back_sends_what_it_could_not(open_mirror: Callable[[str], Mirror]) -> None:
    unsent(open_mirror("here"))
    again, there = open_mirror("here"), open_mirror("there-too")
    again.fetch()
    again.send()
    there.fetch()
    found = StudyPaths(there.folder)
    assert steps_in(found.ledger) == [1, 2]
    assert found.oof("b").read_bytes() == b"unsent"


def test_where_another_machine_went_on_the_uri_is_what_counts(open_mirror: Callable[[str], Mirror]) -> None:
    unsent(open_mirror("here"))
    there = open_mirror("there-too")
    there.fetch()
    append_event(StudyPaths(there.folder).ledger, event(3))
    there.send()
    again = open_mirror("here")
    again.fetch()
    paths = StudyPaths(again.folder)
    assert steps_in(paths.ledger) == [1, 3]
    assert not paths.oof("b").exists()


def test_the_ledger_goes_on_where_another_machine_left_it(open_mirror: Callable[[str], Mirror]) -> None:
    here = open_mirror("here")
    append_event(StudyPaths(here.folder).ledger, event(1))
    here.send()
    there = open_mirror("there-too")
    there.fetch()
    append_event(StudyPaths(there.folder).ledger, event(2))
    there.send()
    last = open_mirror("third")
    last.fetch()
    assert steps_in(StudyPaths(last.folder).ledger) == [1, 2]


def test_half_a_line_waits_for_its_end(open_mirror: Callable[[str], Mirror]) -> None:
    here = open_mirror("here")
    ledger = StudyPaths(here.folder).ledger
    append_event(ledger, event(1))
    with ledger.open("a") as file:
        file.write('{"torn')
    here.send()
    there = open_mirror("there-too")
    there.fetch()
    assert steps_in(StudyPaths(there.folder).ledger) == [1]


def test_what_belongs_to_one_machine_stays_there(open_mirror: Callable[[str], Mirror]) -> None:
    here = open_mirror("here")
    paths = StudyPaths(here.folder)
    paths.ray.mkdir(parents=True)
    (paths.ray / "big").write_bytes(b"state")
    for path in (paths.lock, paths.holder, paths.tracking, here.folder / ".study.json.1.part"):
        path.write_bytes(b"mine")
    here.send()
    assert here.remote.sizes() == {}


def test_what_an_event_names_is_sent_before_the_event(object_store: ObjectStore, tmp_path: Path) -> None:
    here = Mirror(Remote.at(f"s3://{object_store.make_bucket()}/one"), tmp_path)
    paths = StudyPaths(here.folder)
    append_event(paths.ledger, event(1))
    paths.oof("a").parent.mkdir()
    paths.oof("a").write_bytes(b"logits")
    object_store.requests.clear()
    here.send()
    written = [each.path.rpartition("one/")[2] for each in object_store.requests if each.method == "PUT"]
    assert written == ["oof/a.parquet", "ledger/000000000000000.jsonl"]


def test_a_small_file_is_one_request_and_what_has_not_changed_is_none(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    here = Mirror(Remote.at(f"s3://{object_store.make_bucket()}/one"), tmp_path)
    paths = StudyPaths(here.folder)
    paths.oof("a").parent.mkdir()
    for number in range(3):
        paths.oof(f"t{number}").write_bytes(bytes(1000))
    object_store.requests.clear()
    here.send()
    assert len(object_store.requests) == 3
    here.send()
    assert len(object_store.requests) == 3


def test_a_file_that_another_machine_sent_is_fetched_when_it_is_needed(open_mirror: Callable[[str], Mirror]) -> None:
    here = open_mirror("here")
    here.remote.put("oof/a.parquet", b"logits")
    wanted = StudyPaths(here.folder).oof("a")
    here.fetch_missing([wanted])
    assert wanted.read_bytes() == b"logits"
    with pytest.raises(OSError, match=r"oof/b\.parquet"):
        here.fetch_missing([StudyPaths(here.folder).oof("b")])


def test_many_segments_become_one_and_say_the_same(
    open_mirror: Callable[[str], Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MOST_SEGMENTS", 3)
    here = open_mirror("here")
    for step in range(5):
        append_event(StudyPaths(here.folder).ledger, event(step))
        here.send()
    assert sum(name.startswith("ledger/") for name in here.remote.sizes()) == 5
    there = open_mirror("there-too")
    there.fetch()
    assert sum(name.startswith("ledger/") for name in here.remote.sizes()) == 1
    assert steps_in(StudyPaths(there.folder).ledger) == [0, 1, 2, 3, 4]


def test_a_segment_that_stands_in_an_earlier_one_is_not_read_twice(open_mirror: Callable[[str], Mirror]) -> None:
    here = open_mirror("here")
    ledger = StudyPaths(here.folder).ledger
    for step in range(2):
        append_event(ledger, event(step))
        here.send()
    here.remote.put("ledger/000000000000000.jsonl", ledger.read_bytes())  # made one, and died before the other went
    there = open_mirror("there-too")
    there.fetch()
    assert steps_in(StudyPaths(there.folder).ledger) == [0, 1]


def test_checkpoints_of_trials_that_are_over_are_swept_and_none_is_fetched(
    open_mirror: Callable[[str], Mirror],
) -> None:
    here = open_mirror("here")
    for name in ("over", "running"):
        here.remote.put(f"checkpoints/{name}.safetensors", b"state")
    here.fetch()
    assert not StudyPaths(here.folder).checkpoints.exists()
    here.sweep(["running"])
    assert list(here.remote.sizes()) == ["checkpoints/running.safetensors"]
