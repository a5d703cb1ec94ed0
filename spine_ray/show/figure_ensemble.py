"""The figures of the ensemble: how differently its candidates see, what its size is worth, how sure it may be."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, PercentFormatter

from spine_ray.show.figure import WIDTH, Drawing, house_style, label_text, lay_out
from spine_ray.show.page_style import LIGHT
from spine_ray.show.report import Disagreements, ReliabilityCurve, SizeGain

_WRITTEN = 14
"""Trials up to which the cells of a heat map hold their numbers."""
_STRONGEST = 0.8
"""Opacity of the cell of most disagreement: what is written in it must stay legible."""
_ACROSS = 4
"""Panels of calibration side by side."""
_BY_THREE = (3, 5, 6, 9)
"""Numbers of panels that fill rows of three better."""


def draw_disagreements(found: Disagreements | None) -> Drawing | None:
    """Draw the heat map of disagreement, in the order of families; None where there is nothing to compare."""
    if found is None:
        return None
    count = len(found.names)
    most = max(map(max, found.nats)) or 1.0
    with house_style():
        side = min(WIDTH, 2.6 + 0.52 * count)
        figure = Figure(figsize=(side, side - 0.9), layout="constrained")
        axes = figure.subplots()
        for down, row in enumerate(found.nats):
            for across, nats in enumerate(row):
                cell = Rectangle(
                    (across, down), 1, 1, color=LIGHT["accent"], alpha=_STRONGEST * nats / most, linewidth=0
                )
                axes.add_patch(cell)
                if count <= _WRITTEN and across != down:
                    written = f"{nats:.2f}" if most >= 0.1 else f"{nats:.3f}"
                    axes.text(across + 0.5, down + 0.5, written, ha="center", va="center", fontsize=7.5)
        axes.set(xlim=(0, count), ylim=(count, 0), aspect="equal")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        marked = zip(found.names, found.is_member, strict=True)
        names = [label_text(("* " if is_member else "") + name) for name, is_member in marked]
        middles = [place + 0.5 for place in range(count)]
        axes.set_xticks(middles, names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(middles, names)
        axes.spines[:].set_visible(False)
        _part_families(axes, found.families)
        lay_out(figure)
    return Drawing(name="disagreement", title="Disagreement of trials, two by two, nats", figure=figure)


def draw_sizes(sizes: Sequence[SizeGain], members: int) -> Drawing | None:
    """Draw the cross-fitted gain by the most members allowed; None where only one was ever chosen.

    Args:
        sizes: In order.
        members: How many the answer has.
    """
    if len(sizes) < 2:
        return None
    with house_style():
        figure = Figure(figsize=(0.6 * WIDTH, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0.0, color=LIGHT["soft"], linewidth=1.0)
        accent = LIGHT["accent"]
        for size in sizes:
            axes.plot([size.members] * 2, [size.low, size.high], color=accent, alpha=0.5, linewidth=2.0)
        axes.plot([size.members for size in sizes], [size.gain for size in sizes], "o-", color=accent, markersize=6)
        for size in sizes:
            if size.members == members:
                axes.plot([size.members], [size.gain], "o", color=LIGHT["ink"], markersize=12, markerfacecolor="none")
        axes.set_xlabel("most members allowed")
        axes.set_ylabel("gain over the best single, nats\n(higher is better)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(visible=False, axis="x")
        lay_out(figure)
    return Drawing(name="sizes", title="Cross-fitted gain by number of members", figure=figure)


def draw_calibration(curves: Sequence[ReliabilityCurve]) -> Drawing | None:
    """Draw the reliability diagram of the answer and of each member; None without an answer."""
    if not curves:
        return None
    across = min(3 if len(curves) in _BY_THREE else _ACROSS, len(curves))
    down = -(-len(curves) // across)
    with house_style():
        figure = Figure(figsize=(2.5 * across + (0.4 if across == 1 else 0.0), 0.4 + 2.6 * down))
        figure.set_layout_engine("constrained", h_pad=0.08, w_pad=0.06)
        panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
        for panel in panels[len(curves) :]:
            panel.set_axis_off()
        for place, (panel, curve) in enumerate(zip(panels, curves, strict=False)):
            _draw_reliability(panel, curve, LIGHT["accent"] if place == 0 else LIGHT["t0"])
            if place % across == 0:
                panel.set_ylabel("share right")
            if place + across >= len(curves):
                panel.set_xlabel("mean confidence")
                panel.tick_params(labelbottom=True)
        lay_out(figure)
    return Drawing(name="calibration", title="Reliability of the answer and of each member", figure=figure)


def _part_families(axes: Axes, families: Sequence[str]) -> None:
    for place in range(1, len(families)):
        if families[place] != families[place - 1]:
            for draw in (axes.axhline, axes.axvline):
                draw(place, color=LIGHT["card"], linewidth=3.0)


def _draw_reliability(panel: Axes, curve: ReliabilityCurve, colour: str) -> None:
    panel.add_line(Line2D([0, 1], [0, 1], color=LIGHT["soft"], linewidth=0.9, linestyle=":"))
    most = max(curve.rows)
    for confidence, share, low, high, rows in zip(
        curve.confidence, curve.accuracy, curve.low, curve.high, curve.rows, strict=True
    ):
        panel.plot([confidence, confidence], [low, high], color=colour, alpha=0.35, linewidth=1.6)
        size = 2.5 + 6.5 * (rows / most) ** 0.5
        panel.plot([confidence], [share], "o", color=colour, markersize=size)
    panel.set_title(f"{label_text(curve.name, 24)}, ECE {100 * curve.error:.1f} %", fontsize=8.5)
    panel.set(xlim=(0, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.set_major_locator(FixedLocator([0.0, 0.25, 0.5, 0.75, 1.0]))
