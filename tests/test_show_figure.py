import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from spine_ray.show.figure import Drawing, Spot, house_style, label_text, lay_out, loss_axis, name_spots
from spine_ray.show.figure_curves import draw_curves, draw_settings
from spine_ray.show.figure_ensemble import draw_calibration, draw_disagreements, draw_sizes
from spine_ray.show.figure_ladder import cost_ms, draw_ladder, minutes, pareto_front
from spine_ray.show.page_style import DARK, LIGHT, PAPER
from spine_ray.show.report import Curve, Disagreements, ReliabilityCurve, SizeGain, TrialPoint

EVIL = '<script>alert("x")</script> $x$ \U0001f438'


def point(name: str = "resnet18", tier: str = "light", log_loss: float = 0.5, cost: float = 2.0) -> TrialPoint:
    return TrialPoint(
        trial_id=f"{name}-64-f000-{log_loss}", tier=tier, backbone=name, family="f", resolution=64, freeze=0.0,
        is_start=False, log_loss=log_loss, low=0.9 * log_loss, high=1.1 * log_loss, minutes=3.0 * cost, cost_ms=cost,
    )  # fmt: skip


def curve(status: str = "completed", losses: tuple[float, ...] = (1.0, 0.6)) -> Curve:
    return Curve(
        trial_id=f"t-{status}", tier="light", backbone="resnet18", status=status,  # type: ignore[arg-type]
        steps=tuple(range(1, len(losses) + 1)), log_losses=losses,
    )  # fmt: skip


def reliability(name: str) -> ReliabilityCurve:
    return ReliabilityCurve(
        name=name,
        error=0.02,
        confidence=(0.4, 0.9),
        accuracy=(0.5, 0.9),
        low=(0.3, 0.8),
        high=(0.7, 0.95),
        rows=(3, 40),
    )


def marks(svg: str, kind: str) -> set[str]:
    """Return the ids of the elements of one kind."""
    return set(re.findall(rf'<g id="(?:\w+-)?{kind}-(\d+)"', svg))


def test_every_trial_is_a_point_of_its_own_in_both_panels_and_tells_its_numbers() -> None:
    points = [point(log_loss=0.1 * place) for place in range(1, 31)]
    drawing = draw_ladder(points, {points[0].trial_id}, None, ("light",))
    assert drawing is not None
    svg = drawing.svg()
    assert marks(svg, "use") == marks(svg, "find") == {str(place) for place in range(30)}
    titles = re.findall(r"<title>(.*?)</title>", svg)
    assert len(titles) == 60
    assert (
        "resnet18, 64 px, freeze 0.00, resnet18-64-f000-0.1: log-loss 0.1000 (0.0900 to 0.1100), 2.00 ms an image"
        in titles[0]
    )


def test_cheaper_is_left_and_better_is_low() -> None:
    points = [
        point("a", log_loss=0.9, cost=1.0),
        point("b", log_loss=0.2, cost=100.0),
        point("c", log_loss=0.5, cost=10.0),
    ]
    drawing = draw_ladder(points, (), None, ("light",))
    assert drawing is not None
    root = ElementTree.fromstring(drawing.svg().replace("xlink:", ""))
    at = {}
    for group in root.iter("g"):
        if re.fullmatch(r"ladder-use-\d", group.get("id", "")):
            mark = next(group.iter("use"))
            at[group.get("id")] = (float(mark.get("x", "")), float(mark.get("y", "")))
    a, b, c = (at[f"ladder-use-{place}"] for place in range(3))
    assert a[0] < c[0] < b[0]
    assert a[1] < c[1] < b[1]  # in SVG, down is more
    # 10 is the geometric middle of 1 and 100, whatever the scale of the losses.
    assert c[0] == pytest.approx((a[0] + b[0]) / 2, abs=0.5)


def test_a_trial_whose_use_was_never_measured_is_in_the_panel_of_training_alone() -> None:
    drawing = draw_ladder([point(), replace(point("b"), cost_ms=None)], (), None, ("light",))
    assert drawing is not None
    assert marks(drawing.svg(), "use") == {"0"}
    assert marks(drawing.svg(), "find") == {"0", "1"}


def test_the_front_holds_what_nothing_beats() -> None:
    points = [point("a", cost=1.0), point("b", log_loss=0.6, cost=2.0), point("c", log_loss=0.3, cost=4.0)]
    assert pareto_front(points, cost_ms) == [(1.0, 0.5), (4.0, 0.3)]
    assert pareto_front([], minutes) == []


@pytest.mark.parametrize("cost", [1e-9, 1.0, 1e5])
def test_one_trial_is_drawn_whatever_it_costs(cost: float) -> None:
    drawing = draw_ladder([point(cost=cost)], (), None, ("light",))
    assert drawing is not None
    assert marks(drawing.svg(), "find") == {"0"}


def test_on_the_page_a_figure_has_the_colours_of_the_page_and_no_other() -> None:
    drawing = draw_ladder([point(), point("b", "mid", 0.4)], {"x"}, None, ("light", "mid"))
    assert drawing is not None
    svg = drawing.svg()
    assert {"t0", "t1", "soft", "line", "ink"} <= set(re.findall(r"var\(--(\w+)\)", svg))
    assert not re.search(r": #[0-9a-f]{6}\b", svg)
    assert "font-family" not in svg and "DejaVu" not in svg


def test_every_colour_has_one_name_and_every_sheet_has_all() -> None:
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert LIGHT.keys() == DARK.keys() == PAPER.keys()
    assert not {"#000000", "#ffffff"} & set(LIGHT.values())


def test_names_of_elements_are_their_figures_own() -> None:
    one, two = draw_curves([curve()], (), ("light",)), draw_calibration([reliability("a")])
    assert one is not None and two is not None
    ids = [re.findall(r' id="([^"]+)"', drawing.svg()) for drawing in (one, two)]
    assert not set(ids[0]) & set(ids[1])
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', one.svg())
    assert used and set(used) <= set(ids[0])


def test_hostile_names_are_text_and_never_stop_a_drawing(tmp_path) -> None:
    drawings = [
        draw_ladder([point(EVIL, EVIL)], (), None, (EVIL,)),
        draw_curves([replace(curve(), backbone=EVIL, tier=EVIL)], (), (EVIL,)),
        draw_calibration([reliability(EVIL)]),
    ]
    for drawing in drawings:
        assert drawing is not None
        assert "<script" not in drawing.svg()
        drawing.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


def test_files_are_whole_and_the_same_twice(tmp_path) -> None:
    drawing = draw_sizes([SizeGain(members=n, gain=0.1 * n, low=0.0, high=0.3 * n) for n in (1, 2, 3)], 2)
    assert drawing is not None
    vector, raster = drawing.save(tmp_path)
    first = vector.read_bytes(), raster.read_bytes()
    drawing.save(tmp_path)
    assert (vector.read_bytes(), raster.read_bytes()) == first
    ElementTree.fromstring(vector.read_text(encoding="utf-8"))
    assert first[1].startswith(b"\x89PNG")


def test_curves_end_in_a_cross_where_a_trial_did_not_complete() -> None:
    every = [curve("completed"), curve("stopped"), curve("failed", (2.0,)), replace(curve(), status=None)]
    drawing = draw_curves(every, {"t-completed"}, ("light", "mid"))
    assert drawing is not None
    svg = drawing.svg()
    assert marks(svg, "trial") == {"0", "1", "2", "3"}
    for word in ("member", "completed", "stopped early", "failed", "without an end yet"):
        assert word in svg
    assert "t-failed: failed, log-loss 2.0000 after 1 epochs" in svg


def test_there_is_no_figure_of_nothing() -> None:
    assert draw_ladder([], (), None, ()) is None
    assert draw_curves([], (), ()) is None
    assert draw_settings([], ()) is None
    assert draw_settings([point(), point("b", log_loss=0.4)], ("light",)) is None  # one resolution, one freeze depth
    assert draw_disagreements(None) is None
    assert draw_sizes([SizeGain(members=1, gain=0.0, low=0.0, high=0.0)], 1) is None
    assert draw_calibration([]) is None


def test_settings_are_shown_where_they_vary() -> None:
    drawing = draw_settings([point(), replace(point(log_loss=0.4), freeze=0.5)], ("light",))
    assert drawing is not None
    svg = drawing.svg()
    assert "freeze depth: 0.00 all trained, 1.00 head only" in svg
    assert "resolution, px" not in svg


@pytest.mark.parametrize("count", [2, 20])
def test_the_heat_map_holds_every_pair(count: int) -> None:
    nats = np.abs(np.subtract.outer(np.arange(count), np.arange(count))) / 10
    names, families = tuple(f"net{n}" for n in range(count)), tuple(f"f{n // 2}" for n in range(count))
    found = Disagreements(
        names=names, families=families, is_member=(True,) * count, nats=tuple(map(tuple, nats.tolist()))
    )
    drawing = draw_disagreements(found)
    assert drawing is not None
    svg = drawing.svg()
    assert all(f"* {name}<" in svg for name in names)
    assert svg.count("opacity: 0.8") == 2  # the two cells of most disagreement, one on each side


def test_axes_of_losses_are_logarithmic_only_where_losses_are_far_apart() -> None:
    for losses, scale in (((0.4, 0.5), "linear"), ((0.1, 1.0), "log"), ((0.0, 1.0), "linear"), ((0.5,), "linear")):
        with house_style():
            axes = Figure().subplots()
            loss_axis(axes, losses, "log-loss")
        assert axes.get_yscale() == scale
        low, high = axes.get_ylim()
        assert low <= min(losses) and max(losses) < high
        assert axes.get_ylabel() == "log-loss, nats (lower is better)"


def test_names_stand_apart_from_each_other_and_inside() -> None:
    with house_style():
        figure = Figure(figsize=(5, 3))
        axes = figure.subplots()
        axes.set(xlim=(0, 10), ylim=(0, 10))
        rng = np.random.default_rng(0)
        spots = [Spot(*rng.uniform(0, 10, 2), f"name {n}") for n in range(60)]
        renderer = lay_out(figure)
        name_spots(axes, renderer, spots, [(spot.x, spot.y) for spot in spots])
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    assert 3 < len(boxes) < 60
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[:place])
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_a_label_is_short_plain_text() -> None:
    assert label_text("resnet18") == "resnet18"
    assert label_text("a\nb\u202e\U0001f438") == "a?b??"
    assert label_text("x" * 50) == "x" * 29 + "..."


def test_a_drawing_says_what_it_shows_to_who_cannot_see_it() -> None:
    with house_style():
        figure = Figure(figsize=(2, 1))
        figure.subplots()
        lay_out(figure)
    svg = Drawing(name="n", title='a "title" <b>', figure=figure).svg()
    assert 'aria-label="a &quot;title&quot; &lt;b&gt;"' in svg
    assert "http" not in svg
