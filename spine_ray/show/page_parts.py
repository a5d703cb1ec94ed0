"""What the sections of the page are built from: safe text, tables, sections, bars."""

from collections.abc import Sequence
from html import escape

from spine_ray.show.board import BoardRow
from spine_ray.show.figure import Drawing
from spine_ray.show.words import one_line

MOST_NAME = 60
"""Characters of a class name or a path that the page shows; the rest is in its hint."""


def text(value: str) -> str:
    """Return what others named as safe HTML, on one line."""
    return escape(one_line(value))


def name(value: str) -> str:
    """Return a name as safe HTML: cut where it is long, whole in its hint."""
    cut = one_line(value, MOST_NAME)
    if cut == one_line(value):
        return escape(cut)
    return f'<span title="{text(value)}">{escape(cut)}</span>'


def section(title: str, *parts: str) -> str:
    """Return a section under its title; nothing where it has no content."""
    inside = "".join(parts)
    return f'<section id="{anchor(title)}"><h2>{escape(title)}</h2>{inside}</section>' if inside else ""


def anchor(title: str) -> str:
    """Return the name under which a section can be linked to."""
    return title.lower().replace(" ", "-")


def figure(drawing: Drawing | None, caption: str) -> str:
    """Return a figure with its caption, which is HTML; nothing where nothing was drawn."""
    if drawing is None:
        return ""
    return f'<figure><div class="drawn" tabindex="0">{drawing.svg()}</div><figcaption>{caption}</figcaption></figure>'


def table(heads: Sequence[str], rows: Sequence[str], *, is_tall: bool = False) -> str:
    """Build a table; a head that begins with # stands over numbers. A tall one scrolls by itself on a screen."""
    cells = (f'<th class="n">{head[1:]}</th>' if head.startswith("#") else f"<th>{head}</th>" for head in heads)
    inside = f"<thead><tr>{''.join(cells)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll{" tall" if is_tall else ""}" tabindex="0"><table>{inside}</table></div>'


def number(value: str) -> str:
    """Return a cell that holds a number."""
    return f'<td class="n">{text(value)}</td>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Return names and values as a row of labels; nothing where there are none."""
    items = "".join(f"<li><b>{text(label)}</b>{text(value)}</li>" for label, value in pairs)
    return f'<ul class="facts">{items}</ul>' if items else ""


def hint(words: str) -> str:
    """Return a line of explanation; the words are HTML."""
    return f'<p class="hint">{words}</p>'


def bar(low: float | None, high: float | None, at: float | None, scale: tuple[float, float], style: str = "") -> str:
    """Draw a range and a point on a scale, to stand in a table's cell."""
    parts = ""
    if low is not None and high is not None:
        start, end = _percent(low, scale), _percent(high, scale)
        parts += f'<b style="left: {start:.1f}%; width: {max(end - start, 0.5):.1f}%"></b>'
    if at is not None:
        parts += f'<u style="left: {_percent(at, scale):.1f}%"></u>'
    return f'<i class="range {style}" aria-hidden="true">{parts}</i>'


def share_bar(share: float) -> str:
    """Draw a share from 0 to 1 as a bar, to stand in a table's cell."""
    return f'<i class="share" style="width: {100 * min(1.0, max(0.0, share)):.0f}px" aria-hidden="true"></i>'


def loss_range(rows: Sequence[BoardRow]) -> tuple[float, float]:
    """Return the range of log-losses that shows all points, and intervals as far as they do not drown them."""
    losses = [row.log_loss for row in rows if row.log_loss is not None]
    if not losses:
        return 0.0, 1.0
    low, high = min(losses), max(losses)
    spread = max(high - low, 0.05 * high, 1e-3)
    lows = [row.low for row in rows if row.low is not None]
    highs = [row.high for row in rows if row.high is not None]
    bottom = max(min([low, *lows]), low - 0.5 * spread)
    top = min(max([high, *highs]), high + 0.5 * spread)
    return max(0.0, bottom - 0.06 * spread), top + 0.06 * spread


def _percent(value: float, scale: tuple[float, float]) -> float:
    low, high = scale
    return 100.0 * min(1.0, max(0.0, (value - low) / (high - low)))
