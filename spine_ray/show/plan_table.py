"""What a search will take, as tables: one for each way the gates can decide."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine_ray.data.counted import counted
from spine_ray.ladder.prediction import EffortSpan, Outcome, Prediction, Span
from spine_ray.show.words import count_text, duration_text

DEVICE = {"cpu": "CPU", "cuda": "GPU"}
HEADS = ("trials", "epochs", "images", "device-hours", "wall time", "disk", "memory")


def print_plan(console: Console, plan: Prediction) -> None:
    """Print every outcome by tier, then what holds for all."""
    kind = DEVICE.get(plan.device, plan.device)
    workers = counted(plan.workers, f"{kind} worker", f"{kind} workers")
    console.print(Text(f"What it will take on {workers}; nothing was trained", style="bold"))
    for outcome in plan.outcomes:
        console.print()
        console.print(outcome_table(outcome))
    console.print()
    for line in plan_lines(plan):
        console.print(Text(line))


def outcome_table(outcome: Outcome) -> Table:
    """Draw one outcome: a row a tier, and the whole."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, title_justify="left")
    table.title, table.title_style = outcome.name, "bold"
    table.add_column("", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for tier, effort in outcome.tiers:
        table.add_row(tier, *_cells(effort))
    table.add_row("in all", *_cells(outcome.whole), style="bold")
    return table


def plan_lines(plan: Prediction) -> list[str]:
    """Return what holds for all outcomes, a sentence each."""
    wall = plan.wall_seconds
    lines = [
        f"Over all outcomes {_span(wall, duration_text)}; {duration_text(plan.spent_seconds)} of it are over: start, "
        f"decoding, measuring. Decoded pictures take {plan.pixels_mb:.0f} MB on disk.",
        "Ranges hold nine of ten rehearsals: measured costs off by -20 to +30 %, early stopping and suggestions by "
        "chance. The same command without --plan goes on from here, and compares at its end.",
    ]
    return [*lines, f"NOTE: {plan.note}."] if plan.note else lines


def _cells(effort: EffortSpan) -> list[str]:
    return [
        _span(effort.trials, lambda value: f"{value:.0f}"),
        _span(effort.epochs, lambda value: f"{value:.0f}"),
        _span(effort.images, count_text),
        _span(effort.device_seconds, lambda value: f"{value / 3600:.2g}"),
        _span(effort.wall_seconds, duration_text),
        _span(effort.disk_mb, lambda value: f"{value:.0f} MB"),
        _span(effort.peak_mb, lambda value: f"{value / 1000:.1f} GB"),
    ]


def _span(span: Span, text: Callable[[float], str]) -> str:
    low, high = text(span.low), text(span.high)
    return low if low == high else f"{low} to {high}"
