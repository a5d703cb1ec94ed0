"""How a figure is drawn: once, for the page, where it takes on the page's colours, and for files, as SVG and PNG."""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from spine_ray.show.page_style import LIGHT, TIER_COLOURS
from spine_ray.show.words import one_line

WIDTH, PAGE_PX = 10.0, 1030
"""Of the widest figure, in inches and on the page: 9 points are a good 12 px there."""
PNG_DPI = 160
_PLACES = (
    (9, 0, "left"), (-9, 0, "right"), (0, 12, "center"), (0, -12, "center"), (9, 9, "left"), (9, -9, "left"),
    (2, 9, "right"), (2, -9, "right"),
)  # fmt: skip
"""Where a name may stand beside its point: points to the right and up, and how it is aligned."""
_LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
_RC: dict[Any, object] = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "svg.hashsalt": "spine_ray",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["soft"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": LIGHT["soft"],
    "axes.labelsize": 9.0,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.facecolor": "none",
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.labelcolor": LIGHT["soft"],
    "legend.fontsize": 9.0,
    "xtick.color": LIGHT["soft"],
    "xtick.labelsize": 8.5,
    "ytick.color": LIGHT["soft"],
    "ytick.labelsize": 8.5,
    "ytick.major.size": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure under its name."""

    name: str
    """Of its files, and of its elements on the page."""
    title: str
    """What it shows, for who cannot see it."""
    figure: Figure
    hints: Mapping[str, str] = field(default_factory=dict)
    """What is said of an element, by its id, where the pointer rests on it."""

    def svg(self) -> str:
        """Return it as an SVG element for the page, in the page's colours."""
        text = _svg_text(self.figure, "none")
        text = text[text.index("<svg") :]
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        box = re.search(r'viewBox="[^"]+"', text)
        assert box is not None
        most = round(self.figure.get_figwidth() / WIDTH * PAGE_PX)
        look = f'class="figure" style="--most: {most}px"'
        head = f'<svg {look} {box[0]} role="img" aria-label="{escape(one_line(self.title))}">'
        text = head + text[text.index(">") + 1 :]
        text = re.sub(r"font-family: [^;\"]+;? ?", "", text)
        # Several figures stand on one page: no two of their elements may have one name.
        text = re.sub(r'( id="|href="#|url\(#)', rf"\1{self.name}-", text)
        for element, hint in self.hints.items():
            mark = f'<g id="{self.name}-{element}">'
            text = text.replace(
                mark, f'<g id="{self.name}-{element}" class="mark"><title>{escape(one_line(hint))}</title>'
            )
        return re.sub(r"#[0-9a-f]{6}\b", _variable, text)

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write it to a folder as SVG and as PNG, on white; return both files."""
        vector, raster = folder / f"{self.name}.svg", folder / f"{self.name}.png"
        vector.write_text(_svg_text(self.figure, LIGHT["card"]), encoding="utf-8")
        with house_style():
            self.figure.savefig(raster, format="png", dpi=PNG_DPI, facecolor=LIGHT["card"], metadata={"Software": None})
        return vector, raster


def house_style() -> AbstractContextManager[None]:
    """Return the context in which a figure has to be made."""
    context: AbstractContextManager[None] = mpl.rc_context(_RC)
    return context


def label_text(text: str, most: int = 32) -> str:
    """Return a name as a figure can show it: short, and without what its font does not have."""
    plain = "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def tier_colour(tier: str, tiers: Sequence[str]) -> str:
    """Return the colour of a tier: its place among the tiers decides."""
    return LIGHT[f"t{tiers.index(tier) % TIER_COLOURS}"]


def lay_out(figure: Figure) -> RendererAgg:
    """Find the places of all parts of a finished figure, once and for good; return what measures texts."""
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    renderer: RendererAgg = canvas.get_renderer()  # type: ignore[no-untyped-call]
    return renderer


@dataclass(frozen=True, slots=True)
class Spot:
    """A point and its name."""

    x: float
    y: float
    name: str


def name_spots(
    axes: Axes,
    renderer: RendererAgg,
    spots: Sequence[Spot],
    points: Sequence[tuple[float, float]],
    free: float = 6.5,
) -> None:
    """Name spots wherever there is room, the first ones first, each name once.

    Args:
        axes: Laid out.
        renderer: Of its figure.
        spots: What is to be named.
        points: What must stay free, as (x, y).
        free: How much around each, in points.
    """
    frame = axes.get_window_extent()
    reach = free / 72 * axes.figure.dpi
    taken = [
        Bbox.from_bounds(x - reach, y - reach, 2 * reach, 2 * reach) for x, y in axes.transData.transform(list(points))
    ]
    named: set[str] = set()
    for spot in spots:
        for across, up, side in _PLACES if spot.name not in named else ():
            text = axes.annotate(
                spot.name, (spot.x, spot.y), (across, up), textcoords="offset points", ha=side, va="center",
                fontsize=8.0, color=LIGHT["ink"], annotation_clip=False,
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                text.set_gid(f"label-{len(taken)}-{len(axes.texts)}")
                taken.append(box)
                named.add(spot.name)
                break
            text.remove()


def loss_axis(axes: Axes, losses: Sequence[float], name: str) -> None:
    """Scale an axis of log-losses to hold them all, by their logarithm where they are far apart."""
    low, high = min(losses), max(losses)
    axes.set_ylabel(f"{name}, nats (lower is better)")
    if low > 0.0 and high / low >= _LOG_FROM:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.15, high * 1.15)
        plain_log(axes, "y")
    else:
        spread = max(high - low, 0.05 * high, 1e-3)
        axes.set_ylim(max(0.0, low - 0.12 * spread), high + 0.12 * spread)
        axes.yaxis.set_major_locator(MaxNLocator(6))


def plain_log(axes: Axes, which: str) -> None:
    """Label a logarithmic axis with plain numbers: 1, 2 and 5 times the powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    subs = (1.0,) if high / low > 3000.0 else (1.0, 2.0, 5.0) if high / low > 6.0 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
    axis.set_major_locator(LogLocator(subs=subs, numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _svg_text(figure: Figure, ground: str) -> str:
    file = io.StringIO()
    with house_style():
        figure.savefig(file, format="svg", facecolor=ground, metadata={"Date": None, "Creator": None})
    return file.getvalue()


_NAMES = {colour: name for name, colour in LIGHT.items()}


def _variable(found: "re.Match[str]") -> str:
    name = _NAMES.get(found[0])
    return f"var(--{name})" if name else found[0]
