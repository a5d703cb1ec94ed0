from pathlib import Path

import pytest

from spine_ray.study.paths import StudyPaths
from spine_ray.study.remote import Mirror, Remote
from spine_ray.study.sender import NotSentError, Sender
from tests.support.patience import wait_for


def mirror_of(tmp_path: Path, there: str) -> Mirror:
    (tmp_path / "here").mkdir()
    return Mirror(Remote.at((tmp_path / there).as_uri()), tmp_path / "here")


def test_what_changes_is_sent_while_the_search_goes_on(tmp_path: Path) -> None:
    mirror = mirror_of(tmp_path, "there")
    sender = Sender(mirror, pause_s=0.05)
    StudyPaths(mirror.folder).record.write_text("{}")
    wait_for((tmp_path / "there" / "study.json").exists)
    sender.close()


def test_closing_sends_the_rest(tmp_path: Path) -> None:
    mirror = mirror_of(tmp_path, "there")
    sender = Sender(mirror, pause_s=1000.0)
    StudyPaths(mirror.folder).record.write_text("{}")
    sender.close()
    assert (tmp_path / "there" / "study.json").read_text() == "{}"


def test_a_uri_that_does_not_take_the_study_is_said_at_the_end_with_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    mirror = mirror_of(tmp_path, "taken/study")
    StudyPaths(mirror.folder).record.write_text("{}")
    sender = Sender(mirror, pause_s=1000.0)
    with pytest.raises(NotSentError, match=r"lacks the last of the study .*whole in .*here"):
        sender.close()


def test_a_uri_that_comes_back_gets_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "taken").write_text("in the way for now")
    mirror = mirror_of(tmp_path, "taken")
    StudyPaths(mirror.folder).record.write_text("{}")
    sender = Sender(mirror, pause_s=0.05)
    wait_for(lambda: "does not take the study" in caplog.text)
    (tmp_path / "taken").unlink()
    sender.close()
    assert (tmp_path / "taken" / "study.json").exists()
