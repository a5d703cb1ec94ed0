import logging

from spine_ray.track.records import Entry, ensemble_chosen
from spine_ray.track.spool import Spool


def entry(at_ms: int) -> Entry:
    return Entry(at_ms=at_ms, content=ensemble_chosen({"n": at_ms}))


def test_entries_come_back_in_the_order_of_their_times(tmp_path):
    spool = Spool(tmp_path / "deep" / "spool.jsonl")
    spool.append([entry(2), entry(3)])
    spool.append([entry(1)])
    assert spool.read() == ([entry(1), entry(2), entry(3)], 3)


def test_dropping_keeps_what_came_later_and_the_last_line_takes_the_file(tmp_path):
    spool = Spool(tmp_path / "spool.jsonl")
    spool.append([entry(1), entry(2)])
    spool.append([entry(3)])
    spool.drop(2)
    assert spool.read() == ([entry(3)], 1)
    spool.drop(1)
    assert spool.is_empty()
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_short_is_left_out_with_a_warning(tmp_path, caplog):
    spool = Spool(tmp_path / "spool.jsonl")
    spool.append([entry(1)])
    with spool.path.open("a") as file:
        file.write('{"at_ms": 2, "cont')
    with caplog.at_level(logging.WARNING):
        assert spool.read() == ([entry(1)], 2)
    assert "cannot be read" in caplog.text


def test_nothing_waits_where_no_file_is(tmp_path):
    spool = Spool(tmp_path / "spool.jsonl")
    spool.append([])
    assert spool.is_empty()
    assert spool.read() == ([], 0)
    spool.drop(1)
