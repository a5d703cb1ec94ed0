"""Near copies: pictures that are one picture, encoded again, resized, brightened or cropped by a hair.

Two pictures are near copies when their perceptual hashes are close and their thumbnails confirm it. Mirrored and
strongly cropped copies are not looked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from spine_ray.data.candidates import Sketches, possible_pairs, sketches_of
from spine_ray.data.inspection import Inspection
from spine_ray.data.likeness import are_alike, shapes_of
from spine_ray.data.limits import AuditLimits

MIN_CROWD = 20
"""Groups of up to so many near copies are believed whatever share of the rows they are."""
_BLOCK = 128
"""Rows whose pairs are thinned to a forest at a time."""
_SEARCHED_AT_ONCE = 8 * _BLOCK
_CONFIRMED_AT_ONCE = 4096
_MANY = 0.05
"""Share of a tile's pairs from which on all of its hashes are compared at once, which costs less than pair by pair."""
_STEP = 6
"""Bits by which the bar is raised, time after time, for a group that is too large."""
Ints = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class NearCopies:
    """Which rows belong together because they look the same; row indices are those of the source."""

    links: tuple[tuple[int, int], ...] = ()
    """Pairs that join all near copies into groups, as few as that takes; their bytes differ."""
    crowds: tuple[tuple[int, ...], ...] = ()
    """Groups that were too large to believe, as they were before a stricter bar cut them."""

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the rows of each group of near copies, ascending."""
        rows = sorted({row for link in self.links for row in link})
        place = {row: index for index, row in enumerate(rows)}
        ends = np.array([(place[one], place[other]) for one, other in self.links], np.int64).reshape(-1, 2)
        return tuple(tuple(rows[node] for node in nodes) for nodes in _parts(len(rows), ends))


@dataclass(frozen=True, slots=True)
class _Forest:
    """The links that hold near copies together, each with its distance: never more links than rows."""

    ends: Ints
    """(links, 2)."""
    bits: Ints
    """(links,)."""


def find_near_copies(inspection: Inspection, limits: AuditLimits) -> NearCopies:
    """Compare all readable pictures with each other; exact copies count as one picture.

    Hashes and thumbnails are compared only where the low frequencies of two pictures allow it
    (`spine_ray.data.candidates`), and what is found is as if all were: seconds for 100,000 pictures. Where nearly all
    are alike, the time grows with the square of their number. A group of more than `limits.crowd` of the rows is held
    together by a chain of likeness, not by copying: its links are cut, the weakest first, until what is left is small
    enough or identical by hash.
    """
    rows = _first_rows(inspection)
    if limits.near_duplicate == 0 or len(rows) < 2:
        return NearCopies()
    prints = [inspection.looks[row].likeness for row in rows]
    bits = np.frombuffer(b"".join(each.bits for each in prints if each), np.uint64).reshape(len(rows), -1)
    thumbs = np.frombuffer(b"".join(each.thumb for each in prints if each), np.uint8).reshape(len(rows), -1)
    forest = _Forest(np.zeros((0, 2), np.int64), np.zeros(0, np.int64))
    for ends, distances in _close_pairs(bits, sketches_of(thumbs, limits.near_shift), limits.near_duplicate):
        alike = _confirmed(thumbs, ends, limits.near_shift)
        forest = _thinned(len(rows), forest, ends[alike], distances[alike])
    most = max(MIN_CROWD, int(limits.crowd * len(inspection.readable)))
    cut, crowds = _without_crowds(len(rows), forest, most)
    return NearCopies(
        links=tuple((rows[one], rows[other]) for one, other in cut.ends.tolist()),
        crowds=tuple(tuple(rows[node] for node in nodes) for nodes in crowds),
    )


def _first_rows(inspection: Inspection) -> list[int]:
    """Return the first row of every distinct picture that has a print."""
    first: dict[str, int] = {}
    for row in inspection.readable:
        if inspection.looks[row].likeness is not None:
            first.setdefault(inspection.looks[row].digest, row)
    return list(first.values())


def _close_pairs(bits: Bits, sketches: Sketches, most: int) -> Iterator[tuple[Ints, Ints]]:
    """Yield pairs of rows that may be alike and whose hashes differ in at most `most` bits, with their distances.

    The pairs come in the order of their rows, those of `_BLOCK` first rows at a time.
    """
    for start in range(0, len(bits), _SEARCHED_AT_ONCE):
        stop = min(start + _SEARCHED_AT_ONCE, len(bits))
        ends = np.concatenate([_close_among(bits, *tile, most) for tile in possible_pairs(sketches, start, stop)])
        ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
        for block in np.split(ends, np.searchsorted(ends[:, 0], range(start + _BLOCK, stop, _BLOCK))):
            yield block, _hash_distances(bits[block[:, 0]], bits[block[:, 1]])


def _close_among(bits: Bits, rows: Ints, others: Ints, may_be_alike: Mask, most: int) -> Ints:
    """Return the pairs of rows and later others that may be alike and whose hashes are close, (pairs, 2).

    Args:
        bits: (pictures, words) the hashes of all pictures.
        rows: Some of the pictures.
        others: Some of the pictures.
        may_be_alike: (rows, others).
        most: Bits in which hashes may differ.
    """
    if np.count_nonzero(may_be_alike) > _MANY * may_be_alike.size:
        may_be_alike = may_be_alike & (_hash_distances(bits[rows, None], bits[None, others]) <= most)
    one, other = np.divmod(np.flatnonzero(may_be_alike), len(others))
    ends = np.stack([rows[one], others[other]], axis=1)
    ends = ends[ends[:, 0] < ends[:, 1]]
    return ends[_hash_distances(bits[ends[:, 0]], bits[ends[:, 1]]) <= most]


def _hash_distances(bits: Bits, others: Bits) -> Ints:
    """Return in how many bits hashes differ; the last axis of both is their words, the others are broadcast."""
    distances = np.zeros(np.broadcast_shapes(bits.shape, others.shape)[:-1], np.int64)
    for word in range(bits.shape[-1]):
        distances += np.bitwise_count(bits[..., word] ^ others[..., word])
    return distances


def _confirmed(thumbs: npt.NDArray[np.uint8], ends: Ints, shift: float) -> Mask:
    alike = np.zeros(len(ends), np.bool_)
    for start in range(0, len(ends), _CONFIRMED_AT_ONCE):
        part = slice(start, start + _CONFIRMED_AT_ONCE)
        rows, among = np.unique(ends[part], return_inverse=True)
        alike[part] = are_alike(shapes_of(thumbs[rows]), among.reshape(-1, 2), shift)
    return alike


def _thinned(num_rows: int, forest: _Forest, ends: Ints, bits: Ints) -> _Forest:
    """Add links and keep those of a minimum spanning forest, which joins the same rows at every distance."""
    if not len(ends):
        return forest
    both = np.concatenate([forest.ends, ends])
    # One more than the distance, because a weight of 0 is no link to scipy.
    weights = np.concatenate([forest.bits, bits]) + 1.0
    tree = minimum_spanning_tree(coo_array((weights, (both[:, 0], both[:, 1])), shape=(num_rows, num_rows))).tocoo()
    return _Forest(np.stack([tree.row, tree.col], axis=1).astype(np.int64), tree.data.astype(np.int64) - 1)


def _without_crowds(num_rows: int, forest: _Forest, most: int) -> tuple[_Forest, list[Ints]]:
    """Cut the weakest links of groups of more than `most` rows; return what is left, and those groups as they were."""
    crowds = [nodes for nodes in _parts(num_rows, forest.ends) if len(nodes) > most]
    bar = int(forest.bits.max(initial=0))
    while bar > 0:
        large = [nodes for nodes in _parts(num_rows, forest.ends) if len(nodes) > most]
        if not large:
            break
        bar = max(bar - _STEP, 0)
        keep = ~np.isin(forest.ends[:, 0], np.concatenate(large)) | (forest.bits <= bar)
        forest = _Forest(forest.ends[keep], forest.bits[keep])
    return forest, crowds


def _parts(num_nodes: int, ends: Ints) -> Sequence[Ints]:
    """Return the nodes of every part with more than one, ascending, ordered by their first."""
    if not len(ends):
        return []
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(num_nodes, num_nodes))
    part = connected_components(graph, directed=False)[1]
    order = np.argsort(part, kind="stable")
    starts = np.flatnonzero(np.diff(part[order], prepend=-1))
    return sorted((nodes for nodes in np.split(order, starts[1:]) if len(nodes) > 1), key=lambda nodes: int(nodes[0]))
