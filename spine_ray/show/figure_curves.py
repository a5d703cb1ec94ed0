"""The figures of trials among themselves: how they learnt, and what resolution and freeze depth did to them."""

from collections.abc import Callable, Collection, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from spine_ray.show.figure import (
    WIDTH,
    Drawing,
    Spot,
    house_style,
    label_text,
    lay_out,
    loss_axis,
    name_spots,
    tier_colour,
)
from spine_ray.show.page_style import LIGHT
from spine_ray.show.report import Curve, TrialPoint
from spine_ray.show.words import freeze_text, loss_text

Setting = Callable[[TrialPoint], float]
_ACROSS = 3
"""Panels side by side."""


def draw_curves(curves: Sequence[Curve], members: Collection[str], tiers: Sequence[str]) -> Drawing | None:
    """Draw every trial's log-loss, epoch by epoch, a panel a tier.

    Args:
        curves: The trials; None is drawn without any.
        members: Trial ids inside the ensemble; their lines are strong.
        tiers: Of the study, for panels and colours.
    """
    if not curves:
        return None
    shown = [tier for tier in tiers if any(curve.tier == tier for curve in curves)]
    across = min(_ACROSS, len(shown))
    down = -(-len(shown) // across)
    with house_style():
        figure = Figure(figsize=(WIDTH, 0.5 + 2.9 * down), layout="constrained")
        panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
        loss_axis(panels[0], [loss for curve in curves for loss in curve.log_losses], "held-out log-loss")
        for panel in panels[len(shown) :]:
            panel.set_axis_off()
        for place, (tier, panel) in enumerate(zip(shown, panels, strict=False)):
            if place % across == 0:
                panel.set_ylabel(panels[0].get_ylabel())
            panel.set_title(label_text(tier))
            panel.set_xlabel("epochs so far, over all folds")
            panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            for number, curve in enumerate(curves):
                if curve.tier == tier:
                    _draw_curve(panel, curve, number, tier_colour(tier, tiers), curve.trial_id in members)
        figure.legend(handles=_curve_legend(curves, members), loc="outside lower center", ncols=5)
        _name_curves(figure, list(zip(shown, panels, strict=False)), curves, members)
    hints = {f"trial-{number}": _curve_hint(curve) for number, curve in enumerate(curves)}
    return Drawing(name="curves", title="Log-loss of each trial, epoch by epoch", figure=figure, hints=hints)


def draw_settings(points: Sequence[TrialPoint], tiers: Sequence[str]) -> Drawing | None:
    """Draw what completed trials reach at each resolution and freeze depth; None where neither was varied."""
    settings: list[tuple[str, str, Setting]] = [
        ("resolution", "resolution, px", lambda point: float(point.resolution)),
        ("freeze depth", "freeze depth: 0.00 all trained, 1.00 head only", lambda point: point.freeze),
    ]
    varied = [each for each in settings if len({each[2](point) for point in points}) > 1]
    if not varied:
        return None
    with house_style():
        figure = Figure(figsize=(WIDTH if len(varied) > 1 else 0.6 * WIDTH, 3.6), layout="constrained")
        panels = figure.subplots(1, len(varied), sharey=True, squeeze=False).ravel()
        loss_axis(panels[0], [point.log_loss for point in points], "OOF log-loss")
        for (title, name, setting), panel in zip(varied, panels, strict=True):
            panel.set_title(title)
            panel.set_xlabel(name)
            _draw_setting(panel, points, setting, tiers)
        used = [tier for tier in tiers if any(point.tier == tier for point in points)]
        marks = [
            Line2D([], [], marker="o", linestyle="", color=tier_colour(tier, tiers), label=label_text(tier))
            for tier in used
        ]
        marks.append(Line2D([], [], color=LIGHT["soft"], linewidth=1.2, label="best of one backbone"))
        figure.legend(handles=marks, loc="outside lower center", ncols=4)
        renderer = lay_out(figure)
        for (_, _, setting), panel in zip(varied, panels, strict=True):
            values = sorted({setting(point) for point in points})
            at = [(float(values.index(setting(point))), point.log_loss) for point in points]
            pairs = sorted(zip(at, points, strict=True), key=lambda pair: pair[1].log_loss)
            spots = [Spot(*where, label_text(point.backbone.partition(".")[0], 28)) for where, point in pairs]
            name_spots(panel, renderer, spots, at)
    return Drawing(name="settings", title="OOF log-loss by resolution and by freeze depth", figure=figure)


def _draw_curve(panel: Axes, curve: Curve, number: int, colour: str, is_member: bool) -> None:
    is_done = curve.status == "completed"
    width, alpha = (2.0, 1.0) if is_member else (1.2, 0.75) if is_done else (1.0, 0.6)
    shown = LIGHT["bad"] if curve.status == "failed" else colour if is_done else LIGHT["soft"]
    (line,) = panel.plot(
        curve.steps, curve.log_losses, color=shown, linewidth=width, alpha=alpha, zorder=3 if is_done else 2
    )
    line.set_gid(f"trial-{number}")
    if not is_done:
        panel.plot(
            curve.steps[-1:], curve.log_losses[-1:], "x", color=shown, markersize=6, markeredgewidth=1.5, zorder=4
        )
    elif len(curve.steps) == 1:
        panel.plot(curve.steps, curve.log_losses, "o", color=shown, markersize=4)


def _name_curves(
    figure: Figure, panels: Sequence[tuple[str, Axes]], curves: Sequence[Curve], members: Collection[str]
) -> None:
    """Name the ends of the members' curves, then of the best, as far as there is room."""
    renderer = lay_out(figure)
    for tier, panel in panels:
        own = sorted(
            (curve for curve in curves if curve.tier == tier and curve.status == "completed"),
            key=lambda curve: (curve.trial_id not in members, curve.log_losses[-1]),
        )
        ends = [
            Spot(curve.steps[-1], curve.log_losses[-1], label_text(curve.backbone.partition(".")[0], 28))
            for curve in own
        ]
        lines = [pair for curve in curves if curve.tier == tier for pair in _along(curve)]
        name_spots(panel, renderer, ends, lines, free=2.5)


def _along(curve: Curve) -> list[tuple[float, float]]:
    """Return points so close on a curve that no name fits between them."""
    steps = np.linspace(curve.steps[0], curve.steps[-1], 60)
    return list(zip(steps.tolist(), np.interp(steps, curve.steps, curve.log_losses).tolist(), strict=True))


def _curve_legend(curves: Sequence[Curve], members: Collection[str]) -> list[Line2D]:
    soft, bad, ink = LIGHT["soft"], LIGHT["bad"], LIGHT["ink"]
    found = {curve.status for curve in curves}
    lines = [Line2D([], [], color=ink, linewidth=2.0, label="member")] if members else []
    lines += [Line2D([], [], color=ink, linewidth=1.2, alpha=0.75, label="completed")] if "completed" in found else []
    if "stopped" in found:
        lines.append(Line2D([], [], color=soft, marker="x", linewidth=1.0, label="stopped early"))
    if "failed" in found:
        lines.append(Line2D([], [], color=bad, marker="x", linewidth=1.0, label="failed"))
    if None in found:
        lines.append(Line2D([], [], color=soft, marker="x", linewidth=1.0, label="without an end yet"))
    return lines


def _curve_hint(curve: Curve) -> str:
    end = f"log-loss {loss_text(curve.log_losses[-1])} after {curve.steps[-1]} epochs"
    return f"{curve.backbone}, {curve.trial_id}: {curve.status or 'without an end'}, {end}"


def _draw_setting(panel: Axes, points: Sequence[TrialPoint], setting: Setting, tiers: Sequence[str]) -> None:
    """Draw the trials at the places of their values, evenly apart, and join the best of each backbone."""
    values = sorted({setting(point) for point in points})
    place = {value: at for at, value in enumerate(values)}
    whole = all(value >= 2 for value in values)
    panel.set_xticks(range(len(values)), [f"{value:g}" if whole else freeze_text(value) for value in values])
    panel.set_xlim(-0.5, len(values) - 0.5)
    panel.grid(visible=False, axis="x")
    for backbone in dict.fromkeys(point.backbone for point in points):
        best: dict[float, float] = {}
        own = [point for point in points if point.backbone == backbone]
        for point in own:
            best[setting(point)] = min(point.log_loss, best.get(setting(point), np.inf))
        if len(best) > 1:
            line = sorted(best.items())
            colour = tier_colour(own[0].tier, tiers)
            panel.plot(
                [place[value] for value, _ in line], [loss for _, loss in line], color=colour, alpha=0.5, linewidth=1.2
            )
    for point in points:
        colour = tier_colour(point.tier, tiers)
        panel.plot([place[setting(point)]], [point.log_loss], "o", color=colour, markersize=5.5, alpha=0.7)
