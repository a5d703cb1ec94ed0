"""Pictures made from nothing but a seed: textures, shapes and glyphs of many classes.

Place, scale, rotation, stroke, contrast, colours and blur are drawn independently of the class, so that only the
drawing itself tells the class.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Field = npt.NDArray[np.float64]
"""Ink of a picture, (side, side), 0 (background) to 1 (ink)."""
Points = npt.NDArray[np.float64]
"""(points, 2) in units of the drawing's radius, x to the right, y down."""
Rng = np.random.Generator

GLYPHS = 44
_GLYPH_SEED = 7
_SUPERSAMPLE = 2


def drawings() -> dict[str, Callable[[Rng, int], Field]]:
    """Return one function a class, by the class's name, that draws ink for (random numbers, side in px)."""
    lattices = {f"lattice {name}": partial(_lattice, ink) for name, ink in _LATTICES.items()}
    shapes = {
        f"shape {name} {'filled' if filled else 'outlined'}": partial(_shape, outline, filled)
        for name, outline in _outlines().items()
        for filled in (True, False)
    }
    glyphs = {f"glyph {number}": glyph(number) for number in range(GLYPHS)}
    return lattices | {f"noise {name}": draw for name, draw in _NOISES.items()} | shapes | glyphs


def glyph(number: int) -> Callable[[Rng, int], Field]:
    """Return what draws one glyph; those from `GLYPHS` on are none of the classes of `drawings`."""
    return partial(_glyph, _glyph_strokes(number))


def picture(draw: Callable[[Rng, int], Field], rng: Rng, side: int) -> npt.NDArray[np.uint8]:
    """Return one picture of a class, (side, side, 3)."""
    field = draw(rng, side)[:, :, None]
    paper, ink = _colours(rng)
    # A gradient across the paper: its brightness is no clue to anything.
    across, down = rng.uniform(-0.15, 0.15, 2)
    ramp = np.linspace(-1.0, 1.0, side)
    shade = (across * ramp[None, :] + down * ramp[:, None])[:, :, None]
    image = (paper + shade) * (1.0 - field) + (ink + 0.3 * shade) * field
    if rng.random() < 0.4:
        image = image + rng.normal(0.0, rng.uniform(0.01, 0.08), image.shape)
    pixels = np.rint(np.clip(image, 0.0, 1.0) * 255.0).astype(np.uint8)
    return _scanned_small(pixels, int(rng.integers(9, 24))) if rng.random() < 0.3 else pixels


def _colours(rng: Rng) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the colours of paper and ink: light ink on dark paper, like chalk, and often grey."""
    while True:
        paper, ink = rng.random(3), rng.random(3)
        if rng.random() < 0.5:
            paper[:], ink[:] = paper[0], ink[0]
        if float(ink.mean() - paper.mean()) > 0.3:
            return paper, ink


def _scanned_small(pixels: npt.NDArray[np.uint8], coarse: int) -> npt.NDArray[np.uint8]:
    """Return the picture as a scan of `coarse` px a side would show it, scaled up again."""
    size = pixels.shape[:2]
    small = Image.fromarray(pixels).resize((coarse, coarse), Image.Resampling.BOX)
    return np.asarray(small.resize(size, Image.Resampling.BICUBIC))


# Lattices: ink as a function of two coordinates that count periods from 0.


def _lattice(ink: Callable[[Field, Field], Field], rng: Rng, side: int) -> Field:
    """Draw a regular pattern turned, scaled, shifted and slightly bent."""
    ramp = (np.arange(side) + 0.5) / side - 0.5
    x, y = np.meshgrid(ramp, ramp)
    bend = rng.uniform(0.0, 0.02)
    x, y = x + bend * np.sin(7.0 * y + rng.uniform(0, 6.3)), y + bend * np.sin(7.0 * x + rng.uniform(0, 6.3))
    angle, periods = rng.uniform(0.0, 2.0 * math.pi), math.exp(rng.uniform(math.log(2.5), math.log(7.0)))
    turned_x = math.cos(angle) * x - math.sin(angle) * y
    turned_y = math.sin(angle) * x + math.cos(angle) * y
    shift = rng.uniform(-0.5, 0.5, 2)
    return ink(turned_x * periods + shift[0], turned_y * periods + shift[1])


def _wave(u: Field) -> Field:
    return 0.5 + 0.5 * np.sin(2.0 * math.pi * u)


def _mid(u: Field) -> Field:
    """Return the distance, signed, to the middle of the period, -0.5 to 0.5."""
    return u % 1.0 - 0.5


def _yes(condition: npt.NDArray[np.bool_]) -> Field:
    return condition.astype(np.float64)


def _weave(u: Field, v: Field) -> Field:
    over = (np.floor(u) + np.floor(v)) % 2 == 0
    return _yes(np.where(over, (3.0 * u) % 1.0 < 0.5, (3.0 * v) % 1.0 < 0.5))


def _bricks(u: Field, v: Field) -> Field:
    row = np.floor(2.0 * v)
    return _yes(((2.0 * v) % 1.0 > 0.2) & ((u + 0.5 * row) % 1.0 > 0.12))


def _triangles(u: Field, v: Field) -> Field:
    a, b = u + v / math.sqrt(3.0), 2.0 * v / math.sqrt(3.0)
    return _yes(a % 1.0 + b % 1.0 < 1.0)


def _turns(u: Field, v: Field) -> Field:
    return np.asarray(np.arctan2(v, u) / (2.0 * math.pi))


_LATTICES: dict[str, Callable[[Field, Field], Field]] = {
    "sine": lambda u, v: _wave(u),
    "stripes": lambda u, v: _yes(u % 1.0 < 0.5),
    "thin lines": lambda u, v: _yes(u % 1.0 < 0.2),
    "double lines": lambda u, v: _yes((u % 1.0 < 0.15) | (abs(u % 1.0 - 0.45) < 0.15)),
    "ramps": lambda u, v: u % 1.0,
    "checkerboard": lambda u, v: _yes((np.floor(2.0 * u) + np.floor(2.0 * v)) % 2 == 0),
    "grid": lambda u, v: _yes((u % 1.0 < 0.18) | (v % 1.0 < 0.18)),
    "plaid": lambda u, v: 0.5 * (_wave(u) + _wave(v)),
    "dots": lambda u, v: _yes(np.hypot(_mid(u), _mid(v)) < 0.3),
    "staggered dots": lambda u, v: _yes(np.hypot(_mid(u + 0.5 * np.floor(v)), _mid(v)) < 0.3),
    "rings": lambda u, v: _yes(abs(np.hypot(_mid(u), _mid(v)) - 0.3) < 0.1),
    "pluses": lambda u, v: _yes((np.minimum(abs(_mid(u)), abs(_mid(v))) < 0.1) & (abs(_mid(u)) + abs(_mid(v)) < 0.5)),
    "squares": lambda u, v: _yes(np.maximum(abs(_mid(u)), abs(_mid(v))) < 0.3),
    "diamonds": lambda u, v: _yes(abs(_mid(u)) + abs(_mid(v)) < 0.35),
    "bricks": _bricks,
    "zigzag": lambda u, v: _yes((v + abs(_mid(u))) % 1.0 < 0.5),
    "waves": lambda u, v: _yes((v + 0.25 * np.sin(2.0 * math.pi * u)) % 1.0 < 0.5),
    "triangles": _triangles,
    "weave": _weave,
    "circles": lambda u, v: _wave(np.hypot(u, v)),
    "spokes": lambda u, v: _wave(8.0 * _turns(u, v)),
    "spiral": lambda u, v: _wave(np.hypot(u, v) + 2.0 * _turns(u, v)),
}


# Noises: patterns without a period.


def _filtered(rng: Rng, side: int, low: float, high: float, stretch: float) -> Field:
    """Return noise of `low` to `high` cycles a picture, stretched along a random direction, mean 0, deviation 1."""
    angle = rng.uniform(0.0, math.pi)
    f = np.fft.fftfreq(side) * side
    fx = math.cos(angle) * f[None, :] - math.sin(angle) * f[:, None]
    fy = (math.sin(angle) * f[None, :] + math.cos(angle) * f[:, None]) * stretch
    radius = np.hypot(fx, fy)
    band = np.exp(-((radius / high) ** 4)) * (1.0 - np.exp(-((radius / max(low, 0.5)) ** 4)))
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(side, side))) * band).real
    return np.asarray((noise - noise.mean()) / (noise.std() + 1e-9))


def _clouds(rng: Rng, side: int) -> Field:
    return np.clip(0.5 + 0.25 * _filtered(rng, side, 0.0, rng.uniform(2.0, 5.0), 1.0), 0.0, 1.0)


def _blobs(rng: Rng, side: int) -> Field:
    return _yes(_filtered(rng, side, 0.0, rng.uniform(3.0, 6.0), 1.0) > rng.uniform(-0.3, 0.6))


def _maze(rng: Rng, side: int) -> Field:
    high = rng.uniform(4.0, 9.0)
    return _yes(_filtered(rng, side, 0.85 * high, high, 1.0) > 0.0)


def _streaks(rng: Rng, side: int) -> Field:
    return np.clip(0.5 + 0.3 * _filtered(rng, side, 0.0, rng.uniform(8.0, 16.0), 6.0), 0.0, 1.0)


def _grain(rng: Rng, side: int) -> Field:
    return np.clip(0.5 + rng.uniform(0.2, 0.4) * rng.normal(size=(side, side)), 0.0, 1.0)


def _flakes(rng: Rng, side: int) -> Field:
    return _yes(rng.random((side, side)) < rng.uniform(0.02, 0.08))


def _cells(edges: bool, rng: Rng, side: int) -> Field:
    """Draw the nearest-seed cells of random seeds: their borders, or each in its own shade."""
    seeds = rng.random((int(rng.integers(8, 26)), 2)) * side
    ramp = np.arange(side) + 0.5
    distances = np.hypot(ramp[None, :, None] - seeds[:, 0], ramp[:, None, None] - seeds[:, 1])
    if not edges:
        return np.asarray(rng.random(len(seeds))[distances.argmin(axis=2)])
    nearest = np.partition(distances, 1, axis=2)
    return _yes(nearest[:, :, 1] - nearest[:, :, 0] < rng.uniform(1.5, 4.0))


def _scattered(kind: str, rng: Rng, side: int) -> Field:
    """Draw many small equal things at random places: discs, rings or scratches."""
    image, pen = _canvas(side)
    span = side * _SUPERSAMPLE
    size = rng.uniform(0.04, 0.09) * span
    for x, y in rng.random((int(rng.integers(14, 40)), 2)) * span:
        if kind == "scratches":
            angle = rng.uniform(0.0, math.pi)
            dx, dy = 2.0 * size * math.cos(angle), 2.0 * size * math.sin(angle)
            pen.line((x - dx, y - dy, x + dx, y + dy), fill=255, width=max(2, round(0.4 * size)))
        else:
            box = (x - size, y - size, x + size, y + size)
            pen.ellipse(box, fill=255 if kind == "discs" else None, outline=255, width=max(2, round(0.4 * size)))
    return _ink_of(image, side)


_NOISES: dict[str, Callable[[Rng, int], Field]] = {
    "clouds": _clouds,
    "blobs": _blobs,
    "maze": _maze,
    "streaks": _streaks,
    "grain": _grain,
    "flakes": _flakes,
    "cell borders": partial(_cells, True),
    "cells": partial(_cells, False),
    "discs": partial(_scattered, "discs"),
    "rings": partial(_scattered, "rings"),
    "scratches": partial(_scattered, "scratches"),
}


# Shapes: closed outlines, at any rotation.


def _polar(radii: npt.ArrayLike) -> Points:
    """Return the outline with these radii at equal angles."""
    lengths = np.asarray(radii, np.float64)
    angles = 2.0 * math.pi * np.arange(len(lengths)) / len(lengths)
    return np.stack([lengths * np.cos(angles), lengths * np.sin(angles)], axis=1)


def _outlines() -> dict[str, Points]:
    circle = _polar(np.ones(48))
    angles = np.linspace(0.0, 2.0 * math.pi, 48, endpoint=False)
    cross = np.array([(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3), (-1, -3), (-1, -1)], np.float64)
    cross = np.concatenate([cross, [(-3, -1), (-3, 1), (-1, 1), (-1, 3)]]) / 3.0
    arrow = np.array([(-1, 0.25), (0.1, 0.25), (0.1, 0.75), (1, 0), (0.1, -0.75), (0.1, -0.25), (-1, -0.25)])
    heart = np.stack([16 * np.sin(angles) ** 3, 13 * np.cos(angles) - 5 * np.cos(2 * angles)], axis=1) / 17.0
    half = np.stack([np.cos(angles[:25]), np.sin(angles[:25]) - 0.4], axis=1)
    bite = np.stack([0.85 * np.cos(angles[24::-1]), 0.45 * np.sin(angles[24::-1]) - 0.4], axis=1)
    drop = np.stack([np.cos(angles), 0.9 * np.sin(angles) * np.sin(angles / 2.0) ** 1.5], axis=1)
    corner = np.array([(-1, -1), (1, -1), (1, -0.2), (-0.2, -0.2), (-0.2, 1), (-1, 1)])
    return {
        "triangle": _polar(np.ones(3)),
        "square": _polar(np.ones(4)),
        "pentagon": _polar(np.ones(5)),
        "star 4": _polar([1.0, 0.4] * 4),
        "star 5": _polar([1.0, 0.4] * 5),
        "star 8": _polar([1.0, 0.6] * 8),
        "disc": circle,
        "ellipse": circle * (1.0, 0.4),
        "bar": np.array([(-1, -0.25), (1, -0.25), (1, 0.25), (-1, 0.25)]),
        "cross": cross,
        "arrow": arrow,
        "heart": heart,
        "half disc": half,
        "crescent": np.concatenate([half, bite]),
        "drop": drop,
        "corner": corner,
    }


def _shape(outline: Points, filled: bool, rng: Rng, side: int) -> Field:
    image, pen = _canvas(side)
    placed = _placed(outline, rng, turn=math.pi, sizes=(0.2, 0.45), side=side)
    if filled:
        pen.polygon([tuple(point) for point in placed], fill=255)
    else:
        _stroke(pen, np.concatenate([placed, placed[:1]]), rng.uniform(0.03, 0.08) * side)
    return _ink_of(image, side)


# Glyphs: a few strokes each, upright within a slant, like the letters of an alphabet nobody uses.


def _glyph_strokes(number: int) -> list[Points]:
    """Invent the strokes of one glyph: knots of polylines, curves and loops."""
    rng = np.random.default_rng([_GLYPH_SEED, number])
    strokes = []
    for _ in range(int(rng.integers(2, 4))):
        kind = rng.choice(["line", "curve", "loop"])
        if kind == "loop":
            start, sweep = rng.uniform(0.0, 2.0 * math.pi), rng.choice([1.0, 1.5, 2.0]) * math.pi
            angles = start + np.linspace(0.0, sweep, 16)
            centre, radii = rng.choice([-0.5, 0.0, 0.5], 2), rng.choice([0.45, 0.6], 2)
            strokes.append(centre + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1))
            continue
        knots = np.array([(x, y) for x in (-0.8, 0.0, 0.8) for y in (-1.0, -0.33, 0.33, 1.0)])
        chosen = knots[rng.permutation(len(knots))[: int(rng.integers(2, 5))]]
        strokes.append(_rounded(chosen) if kind == "curve" else chosen)
    return strokes


def _rounded(knots: Points) -> Points:
    """Return the Bezier curve of these control points."""
    t = np.linspace(0.0, 1.0, 16)[:, None]
    degree = len(knots) - 1
    terms = [math.comb(degree, k) * (1.0 - t) ** (degree - k) * t**k * knots[k] for k in range(degree + 1)]
    return np.asarray(np.sum(terms, axis=0))


def _glyph(strokes: list[Points], rng: Rng, side: int) -> Field:
    image, pen = _canvas(side)
    wobbly = [stroke + rng.normal(0.0, 0.07, 2) + _wobble(rng, stroke) for stroke in strokes]
    placed = _placed(np.concatenate(wobbly), rng, turn=0.3, sizes=(0.28, 0.48), side=side)
    width = rng.uniform(0.04, 0.14) * side
    for part in np.split(placed, np.cumsum([len(stroke) for stroke in strokes])[:-1]):
        _stroke(pen, part, width)
    return _ink_of(image, side)


def _wobble(rng: Rng, stroke: Points) -> Points:
    """Return a smooth random shift along a stroke, as another hand would draw it."""
    t = np.linspace(0.0, 1.0, len(stroke))[:, None]
    return np.asarray(rng.normal(0.0, 0.08, 2) * t + rng.normal(0.0, 0.06, 2) * np.sin(math.pi * t))


# Ink on a canvas.


def _placed(points: Points, rng: Rng, *, turn: float, sizes: tuple[float, float], side: int) -> Points:
    """Turn by up to `turn` radians, slant, scale to a radius within `sizes` of the side, and shift on the canvas."""
    angle, slant, stretch = rng.uniform(-turn, turn), rng.uniform(-0.25, 0.25), math.exp(rng.uniform(-0.2, 0.2))
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shape = np.array([[stretch, slant], [0.0, 1.0 / stretch]])
    moved = (points - (points.max(axis=0) + points.min(axis=0)) / 2.0) @ shape.T @ rotation.T
    radius = rng.uniform(*sizes)
    room = max(0.0, 0.5 - radius) + 0.03
    centre = 0.5 + rng.uniform(-room, room, 2)
    extent = max(1e-6, float(abs(moved).max()))
    return np.asarray((centre + moved * radius / extent) * side * _SUPERSAMPLE)


def _canvas(side: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("L", (side * _SUPERSAMPLE, side * _SUPERSAMPLE))
    return image, ImageDraw.Draw(image)


def _stroke(pen: ImageDraw.ImageDraw, points: Points, width: float) -> None:
    """Draw a line with round joints and ends, `width` px wide before supersampling."""
    wide = max(2, round(width * _SUPERSAMPLE))
    pen.line([tuple(point) for point in points], fill=255, width=wide, joint="curve")
    for x, y in (points[0], points[-1]):
        pen.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=255)


def _ink_of(image: Image.Image, side: int) -> Field:
    return np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float64) / 255.0
