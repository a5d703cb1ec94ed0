"""Which pairs of pictures may be near copies: a filter of a few numbers a picture that misses none of them.

The low frequencies of a thumbnail are coordinates in a part of an orthonormal basis (the DCT-II of its sides). So two
thumbnails differ at least as much as their low frequencies do (Bessel's inequality), and as the lengths of what is left
of each. Where that is already more than the correlation of near copies allows, neither hashes nor thumbnails need be
compared.

The pictures are divided into leaves of a k-d tree (Bentley, 1975, doi:10.1145/361002.361007). A picture is compared
with those leaves alone whose boxes it can reach, and with all pictures of a leaf by one product of matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.fft import dct

from spine_ray.data.likeness import MIN_CORRELATION, ROUNDING, THUMB_SIDE, Floats, max_distance, shapes_of

_FREQUENCIES = 5
"""Along each side: 24 numbers without the mean, which is 0."""
_BOX_AXES = 8
"""Principal axes along which boxes are compared; the others hold little."""
_LEAF = 2048
_SLACK = 1e-4
"""Added to the squares of distances, some hundred times what rounding changes in them."""
_AT_ONCE = 4096
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Leaf:
    """Pictures that lie close together, and the box that holds them."""

    pictures: Ints
    """Ascending."""
    columns: Floats
    """(27, pictures) what the rows of `Sketches` are multiplied by."""
    low: Floats
    """(8,) along the first principal axes."""
    high: Floats
    """(8,)."""
    reach: float
    """The largest of its pictures."""


@dataclass(frozen=True, slots=True)
class Sketches:
    """Pictures as rows of a matrix: the product of one's row and another's column is above 0 if they may be alike.

    With p and q the coordinates and r the largest distance that one picture allows, the product is
    p q - (p p - r r) / 2 - q q / 2, half of what r r is above the square of their distance.
    """

    rows: Floats
    """(pictures, 27), first the coordinates along the principal axes."""
    reach: Floats
    """(pictures,) the square of the largest distance to a near copy."""
    leaves: tuple[Leaf, ...]


def sketches_of(thumbs: npt.NDArray[np.uint8], shift: float) -> Sketches:
    """Return what the pictures are filtered by.

    Args:
        thumbs: (pictures, 1024), none of them flat.
        shift: Share of the side that near copies may be shifted by.
    """
    parts = [_coordinates(thumbs[start : start + _AT_ONCE], shift) for start in range(0, len(thumbs), _AT_ONCE)]
    points, reach = (np.concatenate(column) for column in zip(*parts, strict=True))
    points = points - points.mean(axis=0)
    # A rotation, which leaves distances as they are.
    points = points @ np.linalg.eigh(points.T @ points)[1][:, ::-1]
    squares = (points**2).sum(axis=1)
    ones = np.ones(len(points))
    rows = np.column_stack([points, (reach - squares) / 2.0, -ones / 2.0]).astype(np.float32)
    columns = np.column_stack([points, ones, squares]).astype(np.float32)
    leaves = tuple(
        Leaf(
            pictures=pictures,
            columns=np.ascontiguousarray(columns[pictures].T),
            low=rows[pictures, :_BOX_AXES].min(axis=0),
            high=rows[pictures, :_BOX_AXES].max(axis=0),
            reach=float(reach[pictures].max()),
        )
        for pictures in _divided(points[:, :_BOX_AXES])
    )
    return Sketches(rows, reach.astype(np.float32), leaves)


def possible_pairs(sketches: Sketches, start: int, stop: int) -> Iterator[tuple[Ints, Ints, Mask]]:
    """Yield which of the pictures from `start` to `stop` may be near copies of which others that are not before them.

    Yields:
        Pictures from `start` to `stop`, others from `start` on, and for every pair of them whether they may be alike,
        (pictures, others). What is not yielded is not alike.
    """
    rows, reach = sketches.rows[start:stop], sketches.reach[start:stop]
    for leaf in sketches.leaves:
        first = int(leaf.pictures.searchsorted(start))
        gaps = np.maximum(np.maximum(leaf.low - rows[:, :_BOX_AXES], rows[:, :_BOX_AXES] - leaf.high), 0.0)
        near = np.flatnonzero((gaps**2).sum(axis=1) <= np.minimum(reach, leaf.reach))
        if len(near) and first < len(leaf.pictures):
            yield start + near, leaf.pictures[first:], rows[near] @ leaf.columns[:, first:] > 0.0


def _coordinates(thumbs: npt.NDArray[np.uint8], shift: float) -> tuple[npt.NDArray[np.float64], Floats]:
    """Return the low frequencies, with the length of the rest, and the square of the largest distance to a near copy.

    Thumbnails of length 1 whose correlation is c lie at a distance whose square is 2 (1 - c).
    """
    shapes = shapes_of(thumbs)
    units = shapes.normal.astype(np.float64) / THUMB_SIDE
    basis = dct(np.eye(THUMB_SIDE), axis=0, norm="ortho")[:_FREQUENCIES]
    squares = units.reshape(-1, THUMB_SIDE, THUMB_SIDE)
    low = (basis @ squares @ basis.T).reshape(len(units), -1)
    rest = np.sqrt(np.maximum((units**2).sum(axis=1) - (low**2).sum(axis=1), 0.0))
    farthest = np.minimum(1.0 - MIN_CORRELATION, max_distance(shapes.energy, shift) + ROUNDING)
    return np.column_stack([low[:, 1:], rest]), 2.0 * farthest + _SLACK


def _divided(points: npt.NDArray[np.float64]) -> list[Ints]:
    """Halve the pictures across the axis of their largest spread until every part is small; return the parts."""
    waiting, found = [np.arange(len(points))], []
    while waiting:
        pictures = waiting.pop()
        if len(pictures) <= _LEAF:
            found.append(np.sort(pictures))
            continue
        along = points[pictures, points[pictures].std(axis=0).argmax()]
        order = pictures[np.argpartition(along, len(pictures) // 2)]
        waiting += [order[: len(order) // 2], order[len(order) // 2 :]]
    return found
