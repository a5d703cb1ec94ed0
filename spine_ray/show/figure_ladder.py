"""The figure of the ladder: what every completed trial reaches, against what it costs to use and to find."""

from collections.abc import Callable, Collection, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spine_ray.show.board import EnsembleBoard
from spine_ray.show.figure import (
    WIDTH,
    Drawing,
    Spot,
    house_style,
    label_text,
    lay_out,
    loss_axis,
    name_spots,
    plain_log,
    tier_colour,
)
from spine_ray.show.page_style import LIGHT
from spine_ray.show.report import TrialPoint
from spine_ray.show.words import freeze_text, interval_text, loss_text, minutes_text

Price = Callable[[TrialPoint], float | None]
_RING, _DOT = 13.0, 6.5
"""Sizes of a member's ring and of a trial's point, points."""
_LEAST = 1e-3
"""A logarithmic axis has no zero: less than any trial costs."""


def draw_ladder(
    points: Sequence[TrialPoint], members: Collection[str], ensemble: EnsembleBoard | None, tiers: Sequence[str]
) -> Drawing | None:
    """Draw each completed trial twice: against its inference time, and against the time it took.

    Args:
        points: The trials; None is drawn without any.
        members: Trial ids inside the ensemble; they are ringed.
        ensemble: Drawn with what every cost buys, where it has more than one member.
        tiers: Of the study, for the colours.
    """
    if not points:
        return None
    with house_style():
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        to_use, to_find = figure.subplots(1, 2, sharey=True)
        pooled = ensemble if ensemble is not None and len(ensemble.members) > 1 else None
        loss_axis(to_use, [*_reach(points), *((pooled.low, pooled.high) if pooled else ())], "OOF log-loss")
        limits = to_use.get_ylim()
        _panel(to_use, points, cost_ms, tiers, members)
        _panel(to_find, points, minutes, tiers, members)
        if pooled is not None:
            _draw_pooled(to_use, pooled)
        for axes in (to_use, to_find):
            axes.set_ylim(limits)
            axes.margins(x=0.12)
            axes.autoscale(axis="x")
            axes.set_xscale("log")
            plain_log(axes, "x")
        to_use.set_title("to use: inference of one image")
        to_use.set_xlabel("measured ms an image (lower is cheaper)")
        to_find.set_title("to find: training over all folds")
        to_find.set_xlabel("measured minutes of the trial (lower is cheaper)")
        figure.legend(handles=_legend(points, tiers, members, pooled), loc="outside lower center", ncols=4)
        renderer = lay_out(figure)
        for axes, price in ((to_use, cost_ms), (to_find, minutes)):
            spots = _named_first(sorted(points, key=lambda point: point.log_loss), price, members)
            name_spots(axes, renderer, spots, [(spot.x, spot.y) for spot in spots])
    hints = {f"{kind}-{place}": _hint(point) for place, point in enumerate(points) for kind in ("use", "find")}
    return Drawing(name="ladder", title="OOF log-loss of each trial against its cost", figure=figure, hints=hints)


def cost_ms(point: TrialPoint) -> float | None:
    """Return what a trial's model costs to use, ms an image."""
    return point.cost_ms


def minutes(point: TrialPoint) -> float | None:
    """Return what a trial cost to train, min."""
    return point.minutes


def pareto_front(points: Sequence[TrialPoint], price: Price) -> list[tuple[float, float]]:
    """Return (cost, log-loss) of the trials that no other beats in one without losing in the other, cheapest first."""
    priced = sorted((max(cost, _LEAST), point.log_loss) for point in points if (cost := price(point)) is not None)
    front: list[tuple[float, float]] = []
    for cost, loss in priced:
        if not front or loss < front[-1][1]:
            front.append((cost, loss))
    return front


def _reach(points: Sequence[TrialPoint]) -> list[float]:
    """Return the log-losses and the ends of their intervals, as far as those do not drown the points."""
    losses = [point.log_loss for point in points]
    low, high = min(losses) / 3.0, 1.5 * max(losses)
    ends = [end for point in points for end in (point.low, point.high) if end is not None]
    return [*losses, *(min(max(end, low), high) for end in ends)]


def _panel(
    axes: Axes, points: Sequence[TrialPoint], price: Price, tiers: Sequence[str], members: Collection[str]
) -> None:
    kind = "use" if axes.get_subplotspec().is_first_col() else "find"  # type: ignore[union-attr]
    front = pareto_front(points, price)
    if len(front) > 1:
        axes.step(*zip(*front, strict=True), where="post", color=LIGHT["soft"], linewidth=1.0, zorder=1.5)
    for place, point in enumerate(points):
        cost = price(point)
        if cost is None:
            continue
        at, colour = max(cost, _LEAST), tier_colour(point.tier, tiers)
        if point.low is not None and point.high is not None:
            axes.plot([at, at], [point.low, point.high], color=colour, alpha=0.45, linewidth=1.8, zorder=2)
        fill = LIGHT["card"] if point.is_start else colour
        (mark,) = axes.plot(
            [at], [point.log_loss], "o", color=colour, markersize=_DOT, markerfacecolor=fill, markeredgewidth=1.5,
            zorder=3,
        )  # fmt: skip
        mark.set_gid(f"{kind}-{place}")
        if point.trial_id in members:
            axes.plot(
                [at], [point.log_loss], "o", color=LIGHT["ink"], markersize=_RING, markerfacecolor="none", zorder=2.5,
                markeredgewidth=1.2,
            )  # fmt: skip


def _draw_pooled(axes: Axes, ensemble: EnsembleBoard) -> None:
    """Draw what ensembles of every cost reach, and the chosen one with its interval."""
    steps = [(row.cost_ms, row.log_loss) for row in ensemble.front if len(row.members) > 1]
    colour = LIGHT["accent"]
    if len(steps) > 1:
        axes.step(*zip(*steps, strict=True), where="post", color=colour, linewidth=1.2, linestyle="--", zorder=1.6)
    if ensemble.cost_ms is None:
        return
    axes.plot([ensemble.cost_ms] * 2, [ensemble.low, ensemble.high], color=colour, alpha=0.5, linewidth=2.0, zorder=3)
    axes.plot([ensemble.cost_ms], [ensemble.log_loss], "D", color=colour, markersize=7.5, zorder=4)


def _legend(
    points: Sequence[TrialPoint], tiers: Sequence[str], members: Collection[str], pooled: EnsembleBoard | None
) -> list[Line2D]:
    used = [tier for tier in tiers if any(point.tier == tier for point in points)]
    marks = [
        Line2D([], [], marker="o", linestyle="", color=tier_colour(tier, tiers), label=label_text(tier))
        for tier in used
    ]
    ink, soft = LIGHT["ink"], LIGHT["soft"]
    marks.append(
        Line2D([], [], marker="o", linestyle="", color=soft, markerfacecolor=LIGHT["card"], label="start recipe")
    )
    if members:
        marks.append(
            Line2D(
                [],
                [],
                marker="o",
                linestyle="",
                color=ink,
                markerfacecolor="none",
                markersize=10,
                label="member" if pooled else "the answer",
            )
        )
    if max(len(pareto_front(points, price)) for price in (cost_ms, minutes)) > 1:
        marks.append(Line2D([], [], color=soft, linewidth=1.0, label="best single for the cost"))
    if pooled is not None:
        accent = LIGHT["accent"]
        marks.append(Line2D([], [], color=accent, linestyle="--", linewidth=1.2, label="best ensemble for the cost"))
        marks.append(Line2D([], [], marker="D", linestyle="", color=accent, label="the ensemble"))
    return marks


def _named_first(points: Sequence[TrialPoint], price: Price, members: Collection[str]) -> list[Spot]:
    """Return the trials with their names: members first, then the front, then the best."""
    front = set(pareto_front(points, price))
    priced = [(max(cost, _LEAST), point) for point in points if (cost := price(point)) is not None]
    priced.sort(key=lambda each: (each[1].trial_id not in members, (each[0], each[1].log_loss) not in front))
    return [Spot(cost, point.log_loss, label_text(point.backbone.partition(".")[0], 28)) for cost, point in priced]


def _hint(point: TrialPoint) -> str:
    cost = "not measured" if point.cost_ms is None else f"{point.cost_ms:.2f} ms an image"
    reach = loss_text(point.log_loss) + ("" if point.low is None else f" ({interval_text(point.low, point.high)})")
    return (
        f"{point.tier}: {point.backbone}, {point.resolution} px, freeze {freeze_text(point.freeze)}, "
        f"{point.trial_id}: log-loss {reach}, {cost}, {minutes_text(point.minutes)} min"
    )
