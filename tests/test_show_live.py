import io
from dataclasses import replace

import pytest
from rich.console import Console

from spine_ray.show.live import LiveProgress, PlainProgress, make_progress
from spine_ray.show.progress import TierProgress
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, TrialEnded, TrialStarted


def started(resolution=32, total_steps=9):
    config = TrialConfig(backbone="resnet18.a1_in1k", resolution=resolution, freeze=0.0, recipe=start_recipe("random"))
    return TrialStarted(
        trial_id=config.trial_id,
        tier="light",
        config=config,
        family="resnet",
        is_start=True,
        total_steps=total_steps,
        params=11,
        macs=18,
        weights_source="random",
        licence="apache-2.0",
        data_version="rows",
        time=0.0,
    )


def epoch(trial_id, step, seconds=2.0):
    return EpochDone(
        trial_id=trial_id,
        step=step,
        fold=(step - 1) // 3,
        epoch=(step - 1) % 3 + 1,
        train_loss=1.0,
        log_loss=0.5,
        accuracy=0.875,
        seconds=seconds,
        train_images=200,
        train_images_s=1.0,
        score_images_s=1.0,
        peak_mb=1.0,
        views=10,
        micro_batch=32,
        note="",
    )


def ended(trial_id, status="completed", reason="", log_loss=0.25, time=1.0):
    return TrialEnded(
        trial_id=trial_id,
        status=status,
        reason=reason,
        step=9,
        log_loss=log_loss,
        accuracy=0.9,
        seconds=18.0,
        time=time,
    )


@pytest.fixture
def paper():
    return Console(file=io.StringIO(), width=80)


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=100, height=30, force_terminal=True, color_system=None, _environ={})


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines_of(console):
    return console.file.getvalue().splitlines()


def test_a_file_gets_plain_lines_and_a_terminal_a_table(paper, terminal):
    assert isinstance(make_progress(paper), PlainProgress)
    assert isinstance(make_progress(terminal), LiveProgress)


def test_time_left_is_the_trial_s_own_mean_pace():
    start = started(total_steps=9)
    tier = TierProgress(name="light", question="", planned=1).after(start)
    assert tier.trials[start.trial_id].left_seconds is None
    tier = tier.after(epoch(start.trial_id, 1, seconds=2.0)).after(epoch(start.trial_id, 2, seconds=4.0))
    assert tier.trials[start.trial_id].left_seconds == 7 * 3.0
    assert tier.after(ended(start.trial_id)).trials[start.trial_id].left_seconds == 0.0


def test_a_resumed_trial_is_measured_anew_and_keeps_its_steps():
    start = started(total_steps=9)
    tier = TierProgress(name="light", question="", planned=1)
    for event in (start, epoch(start.trial_id, 1, 100.0), start, epoch(start.trial_id, 2, 2.0)):
        tier = tier.after(event)
    assert tier.trials[start.trial_id].step == 2
    assert tier.trials[start.trial_id].left_seconds == 7 * 2.0


def test_an_event_of_an_unknown_trial_changes_nothing():
    tier = TierProgress(name="light", question="", planned=1)
    assert tier.after(epoch("nobody", 1)) == tier


def test_the_best_is_the_lowest_completed_trial():
    one, two, three = started(32), started(64), started(96)
    tier = TierProgress(name="light", question="", planned=3)
    ends = [ended(one.trial_id), ended(two.trial_id, log_loss=0.2), ended(three.trial_id, "stopped", log_loss=0.1)]
    for event in (one, two, three, *ends):
        tier = tier.after(event)
    assert tier.best is not None
    assert tier.best.started == two


def test_plain_lines_are_one_for_each_start_and_end(paper):
    clock = Clock()
    progress = PlainProgress(paper, clock=clock)
    start = started()
    progress.tier_started("light", "which families?", 2)
    progress.event(start)
    for step in range(1, 10):
        progress.event(epoch(start.trial_id, step))
    progress.event(ended(start.trial_id, "failed", "out of memory [CUDA]"))
    progress.tier_ended("light")
    progress.close()
    lines = lines_of(paper)
    assert len(lines) == 4
    assert lines[0] == "light: which families? (2 trials)"
    assert "started" in lines[1] and start.trial_id in lines[1]
    assert lines[2].endswith("log-loss 0.2500, accuracy 90.0 %, 9 of 9 epochs in 18 s: out of memory [CUDA]")
    assert lines[3] == "light: 1 failed"


def test_plain_progress_comes_every_ten_seconds_at_most(paper):
    clock = Clock()
    progress = PlainProgress(paper, clock=clock)
    start = started(total_steps=60)
    progress.tier_started("light", "which families?", 2)
    progress.event(start)
    for step in range(1, 26):
        clock.now = float(step)
        progress.event(epoch(start.trial_id, step))
    later = lines_of(paper)[2:]
    assert len(later) == 2
    assert "0 of 2 trials ended, 1 running" in later[0]
    assert "10 of 60, log-loss 0.5000, 1 min 40 s left" in later[0]


def test_a_trial_of_all_folds_at_once_says_so(paper, terminal):
    start = started(total_steps=9)
    at_once = replace(epoch(start.trial_id, 6), fold=-1, epoch=2)
    clock = Clock()
    for progress in (PlainProgress(paper, clock=clock), LiveProgress(terminal, clock=clock)):
        progress.tier_started("light", "which families?", 1)
        progress.event(start)
        clock.now += 11.0
        progress.event(at_once)
        progress.close()
    assert "all folds epoch 2, 6 of 9, log-loss 0.5000" in paper.file.getvalue()
    assert "all folds epoch 2" in terminal.file.getvalue()


def test_plain_lines_keep_brackets_and_are_not_wrapped(paper):
    line = "[bold]class[/bold] " + "x" * 200
    make_progress(paper).say(line)
    assert lines_of(paper) == [line]


def test_the_live_table_shows_trials_and_goes_away(terminal):
    clock = Clock()
    progress = LiveProgress(terminal, clock=clock)
    start, other = started(32), started(64)
    progress.tier_started("light", "which families?", 2)
    for event in (start, other, epoch(start.trial_id, 4)):
        clock.now += 1.0
        progress.event(event)
    progress.event(ended(other.trial_id))
    shown = terminal.file.getvalue()
    assert "fold 2 epoch 1" in shown
    assert "87.5 %" in shown
    assert "10 s" in shown
    assert "completed" in shown
    progress.say("a path [here]")
    progress.tier_ended("light")
    progress.close()
    progress.close()
    assert "a path [here]" in terminal.file.getvalue()
    assert lines_of(terminal)[-1].endswith(f"1 completed; best log-loss 0.2500 by {other.trial_id}")


def test_the_live_table_is_not_drawn_for_every_epoch(terminal):
    progress = LiveProgress(terminal, clock=Clock())
    start = started(total_steps=500)
    progress.tier_started("light", "which families?", 1)
    progress.event(start)
    before = len(terminal.file.getvalue())
    for step in range(1, 400):
        progress.event(epoch(start.trial_id, step))
    assert len(terminal.file.getvalue()) == before
    progress.close()


def test_rows_are_a_bar_that_goes_away_with_the_last(terminal):
    clock = Clock()
    progress = LiveProgress(terminal, clock=clock)
    for done in range(1, 301):
        clock.now += 1 / 64
        progress.rows_done(done, 300)
    shown = terminal.file.getvalue()
    assert "━" in shown
    assert [row for row in range(300) if f" {row} of 300" in shown] == list(range(1, 300, 7))  # ten a second
    assert shown.endswith("\x1b[1A\x1b[2K")  # the bar's line is wiped
    progress.tier_started("light", "which families?", 1)
    progress.close()


def test_rows_are_no_line_in_a_file(paper):
    progress = make_progress(paper)
    for done in range(1, 301):
        progress.rows_done(done, 300)
    assert lines_of(paper) == []


def test_a_failure_stays_on_the_terminal(terminal):
    progress = LiveProgress(terminal)
    start = started()
    progress.tier_started("light", "which families?", 1)
    progress.event(start)
    progress.event(ended(start.trial_id, "failed", "NaN in step 3"))
    assert f"{start.trial_id} failed: NaN in step 3" in terminal.file.getvalue()
    progress.close()


@pytest.mark.parametrize("kind", [PlainProgress, LiveProgress])
def test_a_line_said_stays_one_line_and_commands_nothing(kind):
    file = io.StringIO()
    kind(Console(file=file, width=200, force_terminal=False)).say("class \x1b]0;owned\x07 of\ntwo lines")
    assert file.getvalue() == "class \\x1b]0;owned\\x07 of\\ntwo lines\n"
