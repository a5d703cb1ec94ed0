"""The end of a search in the terminal: board, gates, ensemble, test split, answer."""

from rich.console import Console

from spine_ray.show.board import (
    board_table,
    ensemble_table,
    failures_table,
    final_table,
    gates_table,
    print_answer,
)
from spine_ray.show.page import ReportPage


def print_page(console: Console, page: ReportPage) -> None:
    """Print what the report page holds, the answer last."""
    console.print(board_table(page.board))
    if page.gates:
        console.print(gates_table(page.gates))
    if page.ensemble is not None:
        console.print(ensemble_table(page.ensemble))
    if page.final is not None:
        console.print(final_table(page.final))
    if page.failures:
        console.print(failures_table(page.failures))
    print_answer(console, page.answer)
