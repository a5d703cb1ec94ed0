import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted
from spine_ray.study.ledger import append_event, mend_ledger, open_ledger, read_ledger
from spine_ray.study.paths import copy_of

CONFIG = TrialConfig(backbone="resnet18", resolution=64, freeze=0.5, recipe=start_recipe("pretrained"))
STARTED = TrialStarted(
    trial_id="a", tier="light", config=CONFIG, family="resnet", is_start=True, total_steps=30, params=11,
    macs=1_800, weights_source="hub", licence="apache-2.0", data_version="rows", time=5.0,
)  # fmt: skip
EPOCH = EpochDone(
    trial_id="a", step=1, fold=0, epoch=1, train_loss=1.5, log_loss=0.1 + 0.2, accuracy=0.6, seconds=2.0,
    train_images=200, train_images_s=100.0, score_images_s=300.0, peak_mb=512.0, views=10, micro_batch=16, note="",
)  # fmt: skip
ENDED = TrialEnded(
    trial_id="a", status="failed", reason="größer als\nder Speicher", step=1, log_loss=None, accuracy=None,
    seconds=2.0, time=9.0,
)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def write(ledger: Path, *events: Event) -> None:
    for event in events:
        append_event(ledger, event)


def test_a_ledger_that_was_never_written_is_empty(ledger: Path) -> None:
    assert read_ledger(ledger) == []
    ledger.touch()
    assert read_ledger(ledger) == []


def test_every_kind_of_event_comes_back_equal_and_in_order(ledger: Path) -> None:
    events = [STARTED, EPOCH, replace(EPOCH, step=2), ENDED, replace(ENDED, status="completed", reason="")]
    write(ledger, *events)
    assert read_ledger(ledger) == events
    assert ledger.read_text().count("\n") == len(events)  # an event is one line, whatever its reason says


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_survives(ledger: Path, loss: float) -> None:
    write(ledger, STARTED, replace(EPOCH, log_loss=loss), replace(ENDED, log_loss=loss))
    _, epoch, ended = read_ledger(ledger)
    assert isinstance(epoch, EpochDone)
    assert isinstance(ended, TrialEnded)
    assert repr(epoch.log_loss) == repr(ended.log_loss) == repr(loss)


def test_a_line_torn_at_any_byte_is_taken_from_the_copy_and_without_one_it_is_dropped(ledger: Path) -> None:
    write(ledger, STARTED, EPOCH)
    whole = ledger.read_bytes()
    write(ledger, ENDED)
    last = ledger.read_bytes()[len(whole) :]
    for length in (1, len(last) // 2, last.index(b"gr") + 8, len(last) - 1):
        ledger.write_bytes(whole + last[:length])
        assert read_ledger(ledger) == [STARTED, EPOCH, ENDED]
        copy_of(ledger).write_bytes(whole + last[:length])
        found = open_ledger(ledger)
        assert found.events == (STARTED, EPOCH)
        assert (found.torn, found.restored, found.lost) == (True, 0, 0)
        copy_of(ledger).write_bytes(whole + last)


def test_the_next_append_cuts_a_torn_line(ledger: Path) -> None:
    write(ledger, STARTED, EPOCH)
    whole = ledger.read_bytes()
    for path in (ledger, copy_of(ledger)):
        path.write_bytes(whole + b'{"event": "ended", "tri')
    write(ledger, ENDED)
    assert read_ledger(ledger) == [STARTED, EPOCH, ENDED]
    assert ledger.read_bytes().startswith(whole)
    assert not open_ledger(ledger).torn


def test_a_torn_first_line_leaves_an_empty_ledger_to_append_to(ledger: Path) -> None:
    ledger.write_bytes(b'{"event"')
    assert read_ledger(ledger) == []
    write(ledger, STARTED)
    assert read_ledger(ledger) == [STARTED]


def test_a_copy_that_is_one_line_ahead_is_a_death_between_two_writes_and_no_damage(ledger: Path) -> None:
    write(ledger, STARTED, EPOCH)
    before = ledger.read_bytes()
    write(ledger, ENDED)
    ledger.write_bytes(before)
    found = open_ledger(ledger)
    assert found.events == (STARTED, EPOCH, ENDED)
    assert found.is_ahead
    mend_ledger(ledger, found)
    assert ledger.read_bytes() == copy_of(ledger).read_bytes()
    assert not open_ledger(ledger).is_ahead


def test_a_ledger_cut_short_and_appended_to_is_put_together_from_both_in_order(ledger: Path) -> None:
    write(ledger, STARTED, EPOCH, replace(EPOCH, step=2), replace(EPOCH, step=3))
    whole = ledger.read_bytes()
    ledger.write_bytes(whole[: len(whole) // 2])
    write(ledger, ENDED)
    copy = copy_of(ledger).read_bytes().splitlines(keepends=True)
    copy_of(ledger).write_bytes(b"".join([copy[0], b"torn\n", *copy[2:]]))
    found = open_ledger(ledger)
    mend_ledger(ledger, found)
    steps = [event.step for event in found.events if isinstance(event, EpochDone)]
    assert steps[-2:] == [2, 3]
    assert found.events[0] == STARTED
    assert found.events[-1] == ENDED
    assert open_ledger(ledger).events == found.events
    assert open_ledger(ledger).restored == 0


def test_appending_does_not_touch_what_is_there(ledger: Path) -> None:
    write(ledger, STARTED, EPOCH)
    before = ledger.read_bytes()
    write(ledger, ENDED)
    assert ledger.read_bytes().startswith(before)


@pytest.mark.parametrize(
    "damaged",
    [
        '{"event": "epoch", "tri',
        "",
        "3",
        "null",
        "[]",
        '"epoch"',
        '{"event": "paused"}',
        '{"event": "started"}',
        "\0" * 9,
    ],
)
def test_a_damaged_inner_line_costs_itself_alone(ledger: Path, damaged: str) -> None:
    write(ledger, STARTED, EPOCH, ENDED)
    lines = ledger.read_text().splitlines()
    lines[1] = damaged
    ledger.write_text("\n".join(lines) + "\n")
    assert open_ledger(ledger).restored == 1
    assert read_ledger(ledger) == [STARTED, EPOCH, ENDED]
    shutil.copy(ledger, copy_of(ledger))
    found = open_ledger(ledger)
    assert found.events == (STARTED, ENDED)
    assert found.lost == 1


def test_events_of_a_trial_whose_start_is_lost_are_left_out(ledger: Path) -> None:
    write(ledger, STARTED, replace(STARTED, trial_id="b"), EPOCH, replace(ENDED, trial_id="b"))
    lines = ledger.read_text().splitlines()
    for path in (ledger, copy_of(ledger)):
        path.write_text("\n".join(["", *lines[1:]]) + "\n")
    found = open_ledger(ledger)
    assert [event.trial_id for event in found.events] == ["b", "b"]
    assert found.lost == 2


@pytest.mark.parametrize("name", ["../../etc/x", "", "a/b", ".hidden", "a\\nb", "/a"])
def test_a_trial_whose_name_is_a_path_is_refused(ledger: Path, name: str) -> None:
    write(ledger, STARTED)
    for path in (ledger, copy_of(ledger)):
        path.write_text(path.read_text().replace('"trial_id": "a"', f'"trial_id": "{name}"'))
    assert (open_ledger(ledger).events, open_ledger(ledger).lost) == ((), 1)


@pytest.mark.parametrize(("old", "new"), [('"step": 1', '"step": "1"'), ('"log_loss": 0.30', '"log_loss": [0.30')])
def test_an_event_with_a_value_of_another_kind_is_refused(ledger: Path, old: str, new: str) -> None:
    write(ledger, EPOCH)
    text = ledger.read_text().replace(old, new)
    for path in (ledger, copy_of(ledger)):
        path.write_text(text.replace("0.30000000000000004,", "0.30000000000000004],") if "[" in new else text)
    assert open_ledger(ledger).lost == 1
