"""What preflight found, as a table: errors first, each with the rows it is about."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine_ray.data.findings import LEVELS, Audit, Finding, Level
from spine_ray.show.words import one_line

LEVEL_STYLE: dict[Level, str] = {"error": "bold red", "warning": "yellow", "fact": "dim"}
_SHOWN = 3
"""Rows named in the table; all of them are in `audit.json`."""


def audit_table(audit: Audit, paths: Mapping[str, str]) -> Table:
    """Draw the findings, errors first.

    Args:
        audit: What was found.
        paths: Of the pictures, by sample id: what a reader can open.
    """
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("level", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    for level in LEVELS:
        for finding in audit.of(level):
            table.add_row(Text(level, style=LEVEL_STYLE[level]), Text(finding.kind), Text(_told(finding, paths)))
    return table


def verdict_line(audit: Audit) -> str:
    """Say in one line what the findings mean."""
    errors, warnings = len(audit.of("error")), len(audit.of("warning"))
    if errors:
        return f"{_count(errors, 'error')}: mend the data before anything is trained on it."
    if warnings:
        return f"{_count(warnings, 'warning')} and no error: training can begin; read the warnings first."
    return "No error and no warning: training can begin."


def print_audit(console: Console, audit: Audit, paths: Mapping[str, str], files: tuple[str, ...]) -> None:
    """Print the findings, what they mean, and where the files are."""
    console.print(audit_table(audit, paths))
    console.print()
    console.print(Text(verdict_line(audit), style="bold"))
    for file in files:
        console.print(Text(f"  {file}"), soft_wrap=True)


def _told(finding: Finding, paths: Mapping[str, str]) -> str:
    if not finding.rows:
        return one_line(finding.message)
    named = ", ".join(paths.get(row, row) for row in finding.rows[:_SHOWN])
    more = f" and {len(finding.rows) - _SHOWN} more" if len(finding.rows) > _SHOWN else ""
    return f"{one_line(finding.message)}\n  {one_line(named)}{more}"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"
