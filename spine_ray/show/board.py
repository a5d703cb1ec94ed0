"""The board of a study: the values that are shown, and how a terminal shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.words import (
    change_text,
    count_text,
    freeze_text,
    interval_text,
    loss_text,
    minutes_text,
    name_text,
    number_text,
    one_line,
    share_text,
    times_text,
)

Role = Literal["probe", "start", "best", "earlier"]
ROLE_TITLE: dict[Role, str] = {
    "probe": "Every backbone by its probe: a linear head on frozen features, not a fine-tune",
    "start": "Every backbone at its start recipe",
    "best": "The best found",
    "earlier": "Trained before the data changed",
}
VERDICT_STYLE = {
    "climb": "green",
    "again": "cyan",
    "climb_frozen_first": "cyan",
    "climb_frozen_only": "cyan",
    "stop": "yellow",
}
BEST_ARE_STARTS = "The best found of every backbone is among the rows above."
MAX_SENTENCES = 3
FRONT_TITLE = "What each cost buys, by OOF log-loss on the rows it was chosen on (optimistic)"


@dataclass(frozen=True, kw_only=True, slots=True)
class BoardRow:
    """One trial on the board. Losses are OOF; lower is better."""

    tier: str
    backbone: str
    family: str
    resolution: int
    freeze: float
    trial_id: str
    role: Role
    log_loss: float | None
    low: float | None
    """Lower end of the interval of the log-loss."""
    high: float | None
    behind: float | None = None
    """Log-loss minus that of the best row of the same role, on the same rows."""
    margin: float | None = None
    """Half the width of the interval of `behind`, which holds for all pairs of the role at once."""
    accuracy: float | None
    minutes: float
    """Measured time of training and scoring, min."""
    train_images_s: float | None
    macs: int
    note: str = ""
    """What a reader must know, such as `within noise of X`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberRow:
    """One member's part in the ensemble. Losses are OOF after calibration; lower is better."""

    trial_id: str
    backbone: str
    family: str
    weight: float
    """Share in the pool; all members' shares sum to 1."""
    temperature: float
    log_loss: float
    """The member's own."""
    rise: float
    """By how much the ensemble's log-loss rises without the member."""
    disagreement: float
    """Mean KL divergence to the pool, nats."""
    cost_ms: float | None
    """Measured inference time of one image in what ships, ms; what members share is shared out."""
    brings: float | None = None
    """Its Shapley value: its part of what the ensemble gains over the class frequencies, nats; more is better."""
    chosen_in: float | None = None
    """In which share of the folds the selection on the other folds chose it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontRow:
    """What an amount of cost can buy at best, by OOF log-loss on the rows it was chosen on."""

    cost_ms: float
    members: tuple[str, ...]
    """Their backbones."""
    log_loss: float
    single: str
    """Backbone of the best single model that costs no more."""
    single_log_loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EnsembleBoard:
    """The chosen ensemble, or the single trial that none could beat."""

    pool: str
    """How the members are combined."""
    log_loss: float
    low: float
    high: float
    accuracy: float
    single: str
    """Trial id of the best single."""
    gain: float
    """Cross-fitted log-loss of the best single minus the ensemble's; above 0 is better."""
    gain_low: float
    gain_high: float
    cost_ms: float | None
    """Measured inference time of one image of the shipped set, ms."""
    members: tuple[MemberRow, ...]
    front: tuple[FrontRow, ...] = ()
    """From the cheapest model to the best ensemble."""
    judged: str = ""
    """How it does by the metric that the user asked for, if that is not log-loss."""
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse an ensemble without members."""
        if not self.members:
            raise ValueError("an ensemble must have at least one member")


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalResult:
    """What one artefact says on the test split."""

    artefact: str
    """What was measured, such as `ensemble of 3 members, refitted`."""
    rows: int
    log_loss: float
    low: float
    high: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalBoard:
    """The results on the test split and how often it was opened."""

    results: tuple[FinalResult, ...]
    opened: int

    def __post_init__(self) -> None:
        """Refuse results of a split that was never opened."""
        if self.results and self.opened < 1:
            raise ValueError(f"results of a test split that was opened {self.opened} times")


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureRow:
    """A trial that failed, and why."""

    trial_id: str
    tier: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the search found, in at most three sentences, and what to do next."""

    sentences: tuple[str, ...]
    commands: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse none, or too many to be an answer."""
        if not 1 <= len(self.sentences) <= MAX_SENTENCES:
            raise ValueError(f"an answer has 1 to {MAX_SENTENCES} sentences, not {len(self.sentences)}")


def board_table(rows: Sequence[BoardRow]) -> RenderableType:
    """Draw the board: probes first, then start recipes, then the best; lowest log-loss first in each; notes below.

    100 columns wide at most. `trial` is the end of the trial id.
    """
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    parts: list[RenderableType] = []
    for role, title in ROLE_TITLE.items():
        chosen = [row for row in rows if row.role == role]
        if role == "best" and best_are_starts(rows):
            parts += [Text(BEST_ARE_STARTS), Text("")]
        elif chosen:
            parts += [Text(title, style="bold"), _role_table(sorted(chosen, key=loss_order), notes), Text("")]
    parts += [Text(f"{place:>2}  {note}", style="dim") for place, note in enumerate(notes, 1)]
    return Group(*parts) if parts else Text("No trial has completed.")


def best_are_starts(rows: Sequence[BoardRow]) -> bool:
    """Say whether one table above holds the best found of every backbone: then its own would say nothing new."""
    best = {row.trial_id for row in rows if row.role == "best"}
    above = [{row.trial_id for row in rows if row.role == role} for role in ("probe", "start")]
    return bool(best) and any(best <= trials for trials in above)


def loss_order(row: BoardRow) -> tuple[bool, float, int, str]:
    """Order rows by log-loss, then by MACs, then by name; those that were not compared, or have none, come last."""
    loss = float("inf") if row.log_loss is None else row.log_loss
    return (row.behind is None, loss, row.macs, row.trial_id)


def behind_text(row: BoardRow) -> str:
    """Write how far a row is behind the best of its role, with half the width of the interval."""
    if row.behind is None or row.margin is None:
        return "-"
    return "best" if row.behind == 0.0 else f"{row.behind:+.3f} ±{row.margin:.3f}"


def gates_table(decisions: Sequence[GateDecision]) -> RenderableType:
    """Draw each decision with its reason, its findings and its numbers."""
    parts: list[RenderableType] = []
    for decision in decisions:
        verdict = (name_text(decision.verdict), VERDICT_STYLE[decision.verdict])
        head = Text.assemble((f"{decision.gate} after {decision.after}: ", "bold"), verdict)
        numbers = ", ".join(f"{name_text(name)} {number_text(value)}" for name, value in decision.numbers.items())
        parts += [head, Text(f"  {one_line(decision.reason)}")]
        parts += [Text(f"  {one_line(finding)}", style="yellow") for finding in decision.findings]
        if numbers:
            parts.append(Text(f"  {numbers}", style="dim"))
    return Group(*parts) if parts else Text("No gate was reached.")


def ensemble_table(ensemble: EnsembleBoard) -> RenderableType:
    """Draw the ensemble and each member's part in it."""
    table = _table()
    table.add_column("member", max_width=44, overflow="fold")
    table.add_column("family", max_width=14, overflow="fold")
    for name in ("weight", "log-loss", "rise", "brings", "disagr.", "folds", "ms/image"):
        table.add_column(name, justify="right", no_wrap=True)
    for member in ensemble.members:
        table.add_row(
            Text(member.trial_id),
            Text(member.family),
            f"{member.weight:.3f}",
            loss_text(member.log_loss),
            change_text(member.rise),
            loss_text(member.brings),
            loss_text(member.disagreement),
            "-" if member.chosen_in is None else f"{member.chosen_in:.0%}",
            "-" if member.cost_ms is None else f"{member.cost_ms:.2f}",
        )
    lines = [Text(line) for line in ensemble_lines(ensemble)]
    return Group(table, *lines)


def front_table(front: Sequence[FrontRow]) -> RenderableType:
    """Draw what every amount of cost can buy, the cheapest first, beside the best single model for as much."""
    table = _table()
    table.add_column("ms/image", justify="right", no_wrap=True)
    table.add_column("log-loss", justify="right", no_wrap=True)
    table.add_column("members", max_width=50, overflow="fold")
    table.add_column("best single", max_width=26, overflow="fold")
    table.add_column("log-loss", justify="right", no_wrap=True)
    for row in front:
        table.add_row(
            f"{row.cost_ms:.2f}",
            loss_text(row.log_loss),
            Text(", ".join(row.members)),
            Text("the same" if row.members == (row.single,) else row.single),
            loss_text(row.single_log_loss),
        )
    return Group(Text(FRONT_TITLE, style="bold"), table)


def ensemble_lines(ensemble: EnsembleBoard) -> list[str]:
    """Say what the ensemble reaches, what it gains over the best single, and what it costs."""
    reach = f"{loss_text(ensemble.log_loss)} ({interval_text(ensemble.low, ensemble.high)})"
    gained = f"{change_text(ensemble.gain)} ({change_text(ensemble.gain_low)} to {change_text(ensemble.gain_high)})"
    lines = [
        f"Pooled by {ensemble.pool}: OOF log-loss {reach}, accuracy {share_text(ensemble.accuracy)}.",
        f"Cross-fitted gain over the best single, {ensemble.single}: {gained}.",
        "OOF numbers are somewhat optimistic: trials were chosen on them.",
    ]
    if ensemble.cost_ms is not None:
        lines.insert(2, f"What ships takes {ensemble.cost_ms:.2f} ms an image, measured as a set.")
    first = [ensemble.judged] if ensemble.judged else []
    return [*first, *lines, *([ensemble.note] if ensemble.note else [])]


def final_table(final: FinalBoard) -> RenderableType:
    """Draw the results on the test split, and how often it was opened."""
    table = _table()
    table.add_column("on the test split", max_width=44, overflow="fold")
    table.add_column("rows", justify="right")
    for name in ("log-loss", "interval", "accuracy", "interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in final.results:
        table.add_row(
            Text(result.artefact),
            str(result.rows),
            loss_text(result.log_loss),
            interval_text(result.low, result.high),
            share_text(result.accuracy),
            share_interval(result),
        )
    return Group(table, Text(opened_line(final.opened)))


def share_interval(result: FinalResult) -> str:
    """Write the interval of the accuracy."""
    return f"{100 * result.accuracy_low:.1f} to {share_text(result.accuracy_high)}"


def opened_line(opened: int) -> str:
    """Say how often the test split was opened, and what that means."""
    if opened == 0:
        return "The test split has not been opened."
    clean = "its numbers are clean" if opened == 1 else "each opening after the first makes them more optimistic"
    return f"The test split was opened {times_text(opened)}: {clean}. Intervals cover rows, not seeds."


def failures_table(failures: Sequence[FailureRow]) -> RenderableType:
    """Draw the trials that failed."""
    table = _table()
    table.add_column("failed trial", max_width=40, overflow="fold")
    table.add_column("tier")
    table.add_column("reason", overflow="fold")
    for failure in failures:
        table.add_row(Text(failure.trial_id), Text(failure.tier), Text(one_line(failure.reason)))
    return table if failures else Text("No trial failed.")


def print_answer(console: Console, answer: Answer) -> None:
    """Print the answer, and the commands that come next, each on one line however long, so that it can be copied."""
    console.print(Text(" ".join(answer.sentences), style="bold"))
    if answer.commands:
        console.print(Text("\nNext:", style="dim"))
    for command in answer.commands:
        console.print(Text(f"  {command}"), soft_wrap=True)


def _role_table(rows: Sequence[BoardRow], notes: Sequence[str]) -> Table:
    table = _table()
    table.add_column("tier", max_width=8, overflow="fold")
    table.add_column("backbone", max_width=34, overflow="fold")
    for name in ("px", "freeze"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("trial", style="dim", no_wrap=True)
    for name in ("log-loss", "behind the best", "acc.", "min", "MACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row.tier),
            Text(row.backbone),
            str(row.resolution),
            freeze_text(row.freeze),
            Text(row.trial_id[-8:]),
            loss_text(row.log_loss),
            behind_text(row),
            share_text(row.accuracy),
            minutes_text(row.minutes),
            count_text(row.macs),
            str(notes.index(row.note) + 1) if row.note else "",
            style="bold" if row.behind == 0.0 else None,
        )
    return table


def _table() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
