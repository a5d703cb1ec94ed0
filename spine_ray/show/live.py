"""Progress of a search: a live table on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spine_ray.data.counted import counted
from spine_ray.show.progress import TierProgress, TrialProgress
from spine_ray.show.words import duration_text, fold_text, freeze_text, loss_text, one_line, share_text
from spine_ray.study.events import EpochDone, Event, Status, TrialEnded, TrialResumed, TrialStarted

STATUS_STYLE: dict[Status, str] = {"completed": "green", "stopped": "yellow", "failed": "red"}
PLAIN_PAUSE_S = 10.0
"""Least time between two progress lines where there is no terminal, s."""
PLAIN_WIDTH = 120
"""Columns of tables where there is no terminal."""
DRAW_PAUSE_S = 0.1
"""Least time between two drawings of the live table, s."""


class Progress(Protocol):
    """What a search tells the person who watches it."""

    def say(self, line: str) -> None:
        """Show one line that stays."""

    def rows_done(self, done: int, rows: int) -> None:
        """Show how many rows of the data are done; called again and again, to the last row."""

    def tier_started(self, name: str, question: str, trials_planned: int) -> None:
        """Show that a tier begins."""

    def event(self, event: Event) -> None:
        """Show what happened to a trial."""

    def tier_ended(self, name: str) -> None:
        """Show how the tier went."""

    def close(self) -> None:
        """Leave the terminal as it was; safe to call twice."""


def make_console() -> Console:
    """Return the console of a command: as wide as the terminal, or `PLAIN_WIDTH` where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


def make_progress(console: Console | None = None) -> Progress:
    """Return a live table for a terminal, plain lines for anything else, such as a log file."""
    chosen = console or Console()
    if chosen.is_terminal and not chosen.is_dumb_terminal:
        return LiveProgress(chosen)
    return PlainProgress(chosen)


def tell(console: Console, lines: Iterable[str]) -> None:
    """Print lines as they are, each on a line of its own, never wrapped."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


class PlainProgress:
    """One line for each trial that starts or ends, and at most one line on progress every ten seconds."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to a console; `clock` gives seconds."""
        self._console, self._clock = console, clock
        self._tier = TierProgress(name="", question="", planned=0)
        self._last_line = clock()

    def say(self, line: str) -> None:
        """Write the line, never wrapped."""
        # A Text is not searched for markup, so that brackets in paths and class names stay.
        self._console.print(Text(one_line(line)), soft_wrap=True)

    def rows_done(self, done: int, rows: int) -> None:
        """Write nothing: a line has said what is being done."""

    def tier_started(self, name: str, question: str, trials_planned: int) -> None:
        """Write the tier's name, its question and how many trials are planned."""
        self._tier = TierProgress(name=name, question=question, planned=trials_planned)
        self._last_line = self._clock()
        trials = counted(trials_planned, "trial", "trials")
        self.say(f"{name}: {question} ({trials})")

    def event(self, event: Event) -> None:
        """Write starts and ends at once, epochs only now and then."""
        self._tier = self._tier.after(event)
        trial = self._tier.trials.get(event.trial_id)
        if trial is None:
            return
        if isinstance(event, TrialStarted):
            self.say(_started_line(event))
        elif isinstance(event, TrialResumed):
            self.say(resumed_line(event))
        elif isinstance(event, TrialEnded):
            self.say(_ended_line(trial, event))
        elif self._clock() - self._last_line >= PLAIN_PAUSE_S:
            self._last_line = self._clock()
            self.say(f"  {tier_line(self._tier)}; {_epoch_line(trial, event)}")

    def tier_ended(self, name: str) -> None:
        """Write how many trials ended in which way, and the best."""
        self.say(f"{name}: {summary_line(self._tier)}")

    def close(self) -> None:
        """Do nothing: lines are already written."""


class LiveProgress:
    """A bar of rows, then a table of running and lately finished trials, drawn again with the events."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Draw on a console that is a terminal; `clock` gives seconds."""
        self._console, self._clock = console, clock
        self._tier = TierProgress(name="", question="", planned=0)
        self._live: Live | None = None
        self._drawn = 0.0

    def say(self, line: str) -> None:
        """Write the line above the table."""
        self._console.print(Text(one_line(line)))

    def rows_done(self, done: int, rows: int) -> None:
        """Draw a bar, ten times a second at most; it goes away with the last row."""
        now = self._clock()
        if done >= rows:
            self.close()
        elif self._live is None:
            self._drawn = now
            self._open(rows_bar(done, rows))
        elif now - self._drawn >= DRAW_PAUSE_S:
            self._drawn = now
            self._live.update(rows_bar(done, rows), refresh=True)

    def tier_started(self, name: str, question: str, trials_planned: int) -> None:
        """Write the question and open an empty table."""
        self.close()
        self._tier = TierProgress(name=name, question=question, planned=trials_planned)
        self._console.print(Text.assemble((name, "bold cyan"), "  ", question))
        self._open(self._table())

    def event(self, event: Event) -> None:
        """Draw the table again, ten times a second at most; ends are always drawn."""
        self._tier = self._tier.after(event)
        now = self._clock()
        if isinstance(event, EpochDone) and now - self._drawn < DRAW_PAUSE_S:
            return
        self._drawn = now
        if isinstance(event, TrialResumed):
            self._console.print(Text(resumed_line(event), style="yellow"))
        if isinstance(event, TrialEnded) and event.status == "failed":
            self._console.print(Text(one_line(f"{event.trial_id} failed: {event.reason}"), style="red"))
        if self._live is not None:
            self._live.update(self._table(), refresh=True)

    def tier_ended(self, name: str) -> None:
        """Take the table away and write how the tier went."""
        self.close()
        self._console.print(Text.assemble((name, "bold cyan"), "  ", summary_line(self._tier)))

    def close(self) -> None:
        """Take the table away and give the cursor back."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _open(self, drawing: RenderableType) -> None:
        # Drawn by hand and not by Rich's thread, so that nothing changes while it is drawn.
        self._live = Live(drawing, console=self._console, auto_refresh=False, transient=True)
        self._live.start(refresh=True)

    def _table(self) -> RenderableType:
        return progress_table(self._tier, rows=max(4, self._console.height - 8))


def rows_bar(done: int, rows: int) -> RenderableType:
    """Draw how many rows are done."""
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total=rows, completed=done, width=40), Text(f"{done} of {rows}"))
    return bar


def progress_table(tier: TierProgress, *, rows: int) -> RenderableType:
    """Draw a tier: the running trials first, then the latest that ended, `rows` at most."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("backbone", max_width=26, no_wrap=True, overflow="ellipsis")
    for name in ("px", "freeze"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("trial", no_wrap=True)
    table.add_column("progress", width=10)
    table.add_column("", no_wrap=True)
    for name in ("log-loss", "accuracy", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    running = tier.running[:rows]
    room = rows - len(running)
    for trial in [*running, *reversed(tier.finished[-room:] if room else [])]:
        table.add_row(*_cells(trial))
    return Group(table, Text(tier_line(tier), style="dim"))


def tier_line(tier: TierProgress) -> str:
    """Say in one line how far a tier is."""
    ended, running = len(tier.finished), len(tier.running)
    best = tier.best
    lowest = f", best log-loss {loss_text(best.ended.log_loss)}" if best and best.ended else ""
    return f"{tier.name}: {ended} of {counted(tier.planned, 'trial', 'trials')} ended, {running} running{lowest}"


def summary_line(tier: TierProgress) -> str:
    """Say in one line how a tier's trials ended and which was best."""
    statuses = [trial.ended.status for trial in tier.finished if trial.ended]
    counts = [f"{statuses.count(name)} {name}" for name in STATUS_STYLE if name in statuses]
    best = tier.best
    if best is None or best.ended is None:
        return ", ".join(counts) or "no trial was run"
    lowest = f"{loss_text(best.ended.log_loss)} by {best.started.trial_id}"
    return f"{', '.join(counts)}; best log-loss {lowest}"


def resumed_line(event: TrialResumed) -> str:
    """Say that a trial lost its process and goes on."""
    whence = f"goes on after epoch {event.step}" if event.step else "begins anew"
    return f"  resumed   {event.trial_id}  {whence}: {event.reason}"


def _cells(trial: TrialProgress) -> list[RenderableType]:
    config, last, ended = trial.started.config, trial.last, trial.ended
    where = Text(f"{fold_text(last.fold)} epoch {last.epoch}" if last else "starting", style="dim")
    left = Text(duration_text(trial.left_seconds))
    if ended is not None:
        where = Text("")
        left = Text(ended.status, style=STATUS_STYLE[ended.status])
    return [
        Text(config.backbone),
        Text(str(config.resolution)),
        Text(freeze_text(config.freeze)),
        Text(trial.started.trial_id[-8:], style="dim"),
        ProgressBar(total=max(1, trial.started.total_steps), completed=trial.step, width=10),
        where,
        Text(loss_text(last.log_loss if last else None)),
        Text(share_text(last.accuracy if last else None)),
        left,
    ]


def _started_line(event: TrialStarted) -> str:
    config = event.config
    which = "start recipe, " if event.is_start else ""
    shape = f"{config.resolution} px, freeze {freeze_text(config.freeze)}"
    epochs = counted(event.total_steps, "epoch", "epochs")
    return f"  started   {event.trial_id}  {config.backbone}, {shape}, {which}{epochs}"


def _ended_line(trial: TrialProgress, event: TrialEnded) -> str:
    numbers = f"log-loss {loss_text(event.log_loss)}, accuracy {share_text(event.accuracy)}"
    done = f"{event.step} of {counted(trial.started.total_steps, 'epoch', 'epochs')} in {duration_text(event.seconds)}"
    why = f": {event.reason}" if event.reason else ""
    return f"  {event.status:<9} {event.trial_id}  {numbers}, {done}{why}"


def _epoch_line(trial: TrialProgress, event: EpochDone) -> str:
    where = f"{fold_text(event.fold)} epoch {event.epoch}, {event.step} of {trial.started.total_steps}"
    return f"{event.trial_id} {where}, log-loss {loss_text(event.log_loss)}, {duration_text(trial.left_seconds)} left"
