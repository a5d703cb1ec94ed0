from dataclasses import replace
from pathlib import Path

from test_study_ledger import ENDED, EPOCH, STARTED

from spine_ray.study.ledger import append_event
from spine_ray.study.paths import StudyPaths
from spine_ray.track.database import begin_database, entries_of
from spine_ray.track.spool import Spool

EVENTS = [STARTED, EPOCH, replace(EPOCH, step=2), ENDED]


def test_a_history_is_tracked_at_the_times_at_which_it_happened() -> None:
    entries = list(entries_of(EVENTS))
    assert [entry.content for entry in entries] == EVENTS
    assert [entry.at_ms for entry in entries] == [5_000, 7_000, 9_000, 9_000]


def test_all_that_the_ledger_tells_waits_for_a_new_database_once(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    for event in EVENTS:
        append_event(paths.ledger, event)
    Spool(paths.spool).append(entries_of(EVENTS[:2]))
    assert begin_database(paths) == len(EVENTS)
    entries, _ = Spool(paths.spool).read()
    assert [entry.content for entry in entries] == EVENTS


def test_a_study_without_trials_has_nothing_waiting(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    assert begin_database(paths) == 0
    assert not paths.spool.exists()
