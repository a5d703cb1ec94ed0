"""A search that is killed again and again, and a search that is not, are one search."""

import random
import signal

import pytest

from spine_ray.study.events import TrialStarted
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from tests.support.deaths import (
    WORDS,
    Story,
    check_that_they_are_one,
    live_and_die,
    outlived,
    two_studies,
)
from tests.support.tiny_search import run

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Killed three times, interrupted politely once and impatiently once."""
    told, luck = two_studies(tmp_path_factory.mktemp("deaths"), workers="1", trials=3, epochs=8), random.Random(0)
    kill, term, interrupt = (signal.SIGKILL,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGTERM)
    for signals in (kill, term, kill, interrupt, kill):
        if signals == kill and told.deaths:  # a death in the middle of a line
            with StudyPaths(told.killed).ledger.open("ab") as ledger:
                ledger.write(b'{"event": "epoch", "trial_id": "tes')
        assert live_and_die(told, signals, luck), (told.folder / "output").read_text()
    told.last = run(told.folder, *WORDS, "--workers", "1", "--study", "killed", "--resume")
    return told


def test_a_search_killed_again_and_again_ends_as_the_one_that_was_not(story: Story) -> None:
    assert story.last is not None
    assert story.last.returncode == 0, story.last.stdout + story.last.stderr
    check_that_they_are_one(story)


def test_interrupted_trials_were_gone_on_from_and_not_begun_anew(story: Story) -> None:
    trials = trials_from_events(read_ledger(StudyPaths(story.killed).ledger))
    resumed = [each for trial in trials.values() for each in trial.resumed]
    assert resumed
    assert all(each.step > 0 for each in resumed)


def test_an_interrupted_search_stops_in_time_says_how_to_go_on_and_can(story: Story) -> None:
    polite = [death for death in story.deaths if signal.SIGKILL not in death.signals]
    assert len(polite) == 2
    for death in polite:
        assert death.returncode == 130, death.output
        assert death.was_in_time, (death.seconds, death.breath)
        assert death.output.splitlines()[-1].startswith("interrupted; the same command again goes on from here")
        assert "Traceback" not in death.output


def test_no_process_outlives_its_search(story: Story) -> None:
    assert outlived(story.deaths, 120.0) == []


def test_a_torn_last_line_is_dropped_and_told(story: Story) -> None:
    told = [
        death.output.count("ends in a line that was cut short when its search died: it is dropped")
        for death in story.deaths
    ]
    assert told == [0, 0, 1, 0, 1]


def test_each_trial_was_started_once_a_life_at_most(story: Story) -> None:
    events = read_ledger(StudyPaths(story.killed).ledger)
    starts = [event.trial_id for event in events if isinstance(event, TrialStarted)]
    assert all(starts.count(name) <= 1 + len(story.deaths) for name in starts)
