"""A search in one process that is killed, and then interrupted, ends as the one that was left in peace."""

import random
import signal

import pytest

from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from tests.support.deaths import WORDS, Story, check_that_they_are_one, live_and_die, two_studies
from tests.support.tiny_search import run_here

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    story, rng = two_studies(tmp_path_factory.mktemp("deaths"), workers="0", trials=3, epochs=8), random.Random(0)
    for signals in ((signal.SIGKILL,), (signal.SIGTERM,)):
        assert live_and_die(story, signals, rng), (story.folder / "output").read_text()
        if signals == (signal.SIGKILL,):  # a death in the middle of a line
            with StudyPaths(story.killed).ledger.open("ab") as ledger:
                ledger.write(b'{"event": "epoch", "trial_id": "tes')
    story.last = run_here(story.folder, *WORDS, "--workers", "0", "--study", "killed", "--resume")
    return story


def test_a_search_that_was_killed_ends_as_the_one_that_was_not(story: Story) -> None:
    assert story.last is not None
    assert story.last.returncode == 0, story.last.stdout + story.last.stderr
    check_that_they_are_one(story)


def test_interrupted_trials_were_gone_on_from_and_not_begun_anew(story: Story) -> None:
    trials = trials_from_events(read_ledger(StudyPaths(story.killed).ledger))
    resumed = [each for trial in trials.values() for each in trial.resumed]
    assert resumed
    assert all(each.step > 0 for each in resumed)


def test_an_interrupted_search_stops_in_time_says_how_to_go_on_and_can(story: Story) -> None:
    killed, polite = story.deaths
    assert killed.returncode == -signal.SIGKILL
    assert polite.returncode == 130, polite.output
    assert polite.was_in_time, (polite.seconds, polite.breath)
    last = polite.output.splitlines()[-1]
    assert last == "interrupted; the same command again goes on from here, with --finish it answers from what is there"
    assert "Traceback" not in polite.output


def test_a_torn_last_line_is_dropped_and_told(story: Story) -> None:
    told = "ends in a line that was cut short when its search died: it is dropped"
    assert [death.output.count(told) for death in story.deaths] == [0, 1]
