"""The figure of the report: log-loss against measured cost, as SVG text without anything from outside."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from spine_ray.show.board import BoardRow
from spine_ray.show.words import interval_text, loss_text, minutes_text, one_line

WIDTH, HEIGHT = 960, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 20, 52
COLOURS = 6
"""Tiers with a colour of their own; more share them in turn."""
CHARACTER_PX = 6.2
"""Mean width of a character of a label, px."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Maps values to pixels, straight or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return the pixel of a value, kept inside the axis."""
        low, high, at = (math.log10(part) if self.is_log else part for part in (self.low, self.high, value))
        share = min(1.0, max(0.0, (at - low) / (high - low)))
        return self.start + share * (self.end - self.start)


def html_text(text: str) -> str:
    """Write a text of the user's in a page: on one line, and nothing in it is markup."""
    return escape(one_line(text))


def tier_class(tier: str, tiers: Sequence[str]) -> str:
    """Return the style class of a tier: its place among the tiers gives the colour."""
    return f"t{tiers.index(tier) % COLOURS}"


def tiers_of(rows: Sequence[BoardRow]) -> list[str]:
    """Return the tiers of the rows, each once, in order of appearance."""
    return list(dict.fromkeys(row.tier for row in rows))


def cost_figure(rows: Sequence[BoardRow], members: Collection[str]) -> str:
    """Draw each scored trial at its minutes (logarithmic) and log-loss (lower is better).

    Bars are intervals, hollow points are start recipes, rings mark members of the ensemble.

    Args:
        rows: The board; rows without a log-loss are left out, as is a second row of the same trial.
        members: Trial ids inside the ensemble.
    """
    # The first row of a trial stays, so that a start recipe that is also the best found keeps its hollow point.
    shown = list({row.trial_id: row for row in reversed(rows) if row.log_loss is not None}.values())[::-1]
    if not shown:
        return ""
    x, y = _axes(shown)
    tiers = tiers_of(rows)
    parts = [
        f'<svg class="figure" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Log-loss of each trial against its measured minutes">',
        *_x_grid(x),
        *_y_grid(y),
        *(_point(row, x, y, tier_class(row.tier, tiers), row.trial_id in members) for row in shown),
        *_labels(shown, x, y, members),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(rows: Sequence[BoardRow]) -> str:
    """Explain colours and marks of the figure."""
    tiers = tiers_of(rows)
    items = [f'<span><i class="dot {tier_class(tier, tiers)}"></i>{html_text(tier)}</span>' for tier in tiers]
    items += ['<span><i class="dot hollow"></i>start recipe</span>', '<span><i class="dot ring"></i>member</span>']
    return f'<p class="legend">{"".join(items)}</p>'


def whisker(row: BoardRow, low: float, high: float, style: str) -> str:
    """Draw one row's log-loss and interval on the scale `low` to `high`, to stand in a table's cell."""
    if row.log_loss is None:
        return ""
    axis = Axis(low=low, high=high, start=4, end=116)
    bar = ""
    if row.low is not None and row.high is not None:
        bar = f'<line x1="{axis.place(row.low):.1f}" x2="{axis.place(row.high):.1f}" y1="7" y2="7"/>'
    point = f'<circle cx="{axis.place(row.log_loss):.1f}" cy="7" r="3.2"/>'
    frame = 'viewBox="0 0 120 14" width="120" height="14" aria-hidden="true"'
    return f'<svg class="whisker {style}" {frame}>{bar}{point}</svg>'


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


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round values from `low` to `high`, about `wanted` of them."""
    raw = (high - low) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten from `low` to `high`, only the powers where those are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    found = [factor * 10.0**power for power in powers for factor in factors]
    return [value for value in found if low <= value <= high]


def _axes(rows: Sequence[BoardRow]) -> tuple[Axis, Axis]:
    minutes = [_minutes(row) for row in rows]
    x = Axis(low=min(minutes) / 1.4, high=max(minutes) * 1.6, start=LEFT, end=WIDTH - RIGHT, is_log=True)
    low, high = loss_range(rows)
    return x, Axis(low=low, high=high, start=HEIGHT - BOTTOM, end=TOP)


def _minutes(row: BoardRow) -> float:
    # A logarithmic axis has no zero; 0.06 s is less than any trial takes.
    return max(row.minutes, 1e-3)


def _x_grid(axis: Axis) -> list[str]:
    base = HEIGHT - BOTTOM
    parts = [f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>']
    for value in log_ticks(axis.low, axis.high):
        at = axis.place(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{base}"/>')
        parts.append(f'<text class="tick" x="{at:.1f}" y="{base + 18}" text-anchor="middle">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    name = "measured minutes of the trial (logarithmic)"
    return [*parts, f'<text class="axis" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{name}</text>']


def _y_grid(axis: Axis) -> list[str]:
    parts = []
    for value in ticks(axis.low, axis.high):
        at = axis.place(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {middle})"'
    name = "OOF log-loss (lower is better)"
    return [*parts, f'<text class="axis" x="14" y="{middle}" text-anchor="middle" {turned}>{name}</text>']


def _point(row: BoardRow, x: Axis, y: Axis, style: str, is_member: bool) -> str:
    across, down = x.place(_minutes(row)), y.place(row.log_loss or 0.0)
    bar = ring = ""
    if row.low is not None and row.high is not None:
        ends = f'y1="{y.place(row.low):.1f}" y2="{y.place(row.high):.1f}"'
        bar = f'<line class="bar" x1="{across:.1f}" x2="{across:.1f}" {ends}/>'
    if is_member:
        ring = f'<circle class="ring" cx="{across:.1f}" cy="{down:.1f}" r="9.5"/>'
    hollow = " hollow" if row.role == "start" else ""
    point = f'<circle class="point{hollow}" cx="{across:.1f}" cy="{down:.1f}" r="5"/>'
    numbers = f"log-loss {loss_text(row.log_loss)} ({interval_text(row.low, row.high)})"
    hint = f"{row.tier}: {row.backbone}, {row.trial_id}, {numbers}, {minutes_text(row.minutes)} min"
    return f'<g class="{style}"><title>{html_text(hint)}</title>{bar}{point}{ring}</g>'


def _labels(rows: Sequence[BoardRow], x: Axis, y: Axis, members: Collection[str]) -> list[str]:
    """Name points, members and the best first, wherever there is room."""
    taken = [(x.place(_minutes(row)) - 6, y.place(row.log_loss or 0.0) - 6, 12.0, 12.0) for row in rows]
    parts = []
    for row in sorted(rows, key=lambda row: (row.trial_id not in members, row.log_loss or 0.0)):
        name = row.backbone.partition(".")[0]
        across, down = x.place(_minutes(row)), y.place(row.log_loss or 0.0)
        size = CHARACTER_PX * len(name)
        for start, anchor in ((across + 13, "start"), (across - 13 - size, "end")):
            box = (start, down - 7, size, 14.0)
            inside = start >= LEFT and start + size <= WIDTH - RIGHT
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                at = start if anchor == "start" else start + size
                text = f'<text class="label" x="{at:.1f}" y="{down + 4:.1f}" text-anchor="{anchor}">'
                parts.append(f"{text}{html_text(name)}</text>")
                break
    return parts


def _overlap(one: tuple[float, float, float, float], two: tuple[float, float, float, float]) -> bool:
    apart_x = one[0] + one[2] <= two[0] or two[0] + two[2] <= one[0]
    apart_y = one[1] + one[3] <= two[1] or two[1] + two[3] <= one[1]
    return not (apart_x or apart_y)
