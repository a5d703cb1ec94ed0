"""The end of a search in the terminal: board, gates, ensemble, test split, answer."""

from collections.abc import Sequence

from rich.console import Console

from spine_ray.data.counted import counted
from spine_ray.show.board import (
    EnsembleBoard,
    board_table,
    ensemble_table,
    failures_table,
    final_table,
    front_table,
    gates_table,
    print_answer,
)
from spine_ray.show.report import ReportPage


def print_ensemble(console: Console, ensemble: EnsembleBoard, wishes: Sequence[str], not_fitted: Sequence[str]) -> None:
    """Print a chosen ensemble, what every cost buys, and what is still to do."""
    console.print(ensemble_table(ensemble))
    if len(ensemble.front) > 1:
        console.print()
        console.print(front_table(ensemble.front))
    for line in wishes:
        console.print(line, style="dim", markup=False, highlight=False)
    if not_fitted:
        members = counted(len(not_fitted), "member is", "members are")
        console.print(
            f"{members} not fitted on all dev rows yet: the search's own command, again, does it", style="dim"
        )


def print_page(console: Console, page: ReportPage) -> None:
    """Print what the report page holds, the answer last."""
    console.print(board_table(page.board))
    if page.gates:
        console.print(gates_table(page.gates))
    if page.ensemble is not None:
        console.print(ensemble_table(page.ensemble))
    if page.final is not None:
        console.print(final_table(page.final))
    changed = [*page.changed, *([page.timing.line] if page.timing and page.timing.line else [])]
    if changed:
        console.print("What this search changed", style="bold")
    for line in changed:
        console.print(f"  {line}", markup=False, highlight=False)
    if page.failures:
        console.print(failures_table(page.failures))
    print_answer(console, page.answer)
