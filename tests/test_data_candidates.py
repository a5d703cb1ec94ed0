"""The filter of near copies against all pairs: nothing that is alike may be missed, whatever the pictures."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.copies import ALTERED, pieces, textures
from spine_ray.data import candidates as module
from spine_ray.data.candidates import possible_pairs, sketches_of
from spine_ray.data.likeness import MIN_CORRELATION, THUMB_SIDE, are_alike, print_of, shapes_of

SHIFT = 0.022


def thumbs_of(images: list[Image.Image]) -> np.ndarray:
    found = [print_of(image) for image in images]
    return np.frombuffer(b"".join(each.thumb for each in found if each), np.uint8).reshape(-1, THUMB_SIDE**2)


def copied() -> np.ndarray:
    images = [image for image in [*pieces(96)[:6], *textures(12, 64, 0)] if print_of(image)]
    return thumbs_of([*images, *(alter(image) for alter in ALTERED.values() for image in images)])


def noisy() -> np.ndarray:
    """Noise, which has hardly any low frequencies, and copies of it with more and more other noise."""
    rng = np.random.default_rng(0)
    base, other = rng.normal(0.0, 40.0, (2, 30, THUMB_SIDE**2))
    mixed = [base + share * other for share in (0.0, 0.01, 0.1, 0.3, 0.49, 0.51, 0.7)]
    return np.clip(np.rint(128.0 + np.concatenate(mixed)), 0, 255).astype(np.uint8)


def smooth() -> np.ndarray:
    """Ramps that turn slowly: nothing but low frequencies, of which some differ by a hair."""
    ramp = np.linspace(-1.0, 1.0, THUMB_SIDE)
    angles = np.linspace(0.0, 0.5, 200)
    squares = [np.cos(angle) * ramp[:, None] + np.sin(angle) * ramp[None, :] for angle in angles]
    return np.rint(128.0 + 80.0 * np.stack(squares).reshape(len(angles), -1)).astype(np.uint8)


SETS = {"copies": copied, "noise": noisy, "ramps": smooth}


def possible(thumbs: np.ndarray, shift: float, rows: int) -> np.ndarray:
    """Return the filter's answer for all pairs, (pictures, pictures), asked for so many rows at a time."""
    sketches = sketches_of(thumbs, shift)
    found = np.zeros((len(thumbs), len(thumbs)), np.bool_)
    for start in range(0, len(thumbs), rows):
        for one, other, mask in possible_pairs(sketches, start, min(start + rows, len(thumbs))):
            found[np.ix_(one, other)] = mask
    return found


@pytest.mark.parametrize("leaf", [10, 50, 2048])
@pytest.mark.parametrize("shift", [0.0, 0.01, SHIFT, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("name", SETS)
def test_no_pair_that_is_alike_is_missed(name, shift, leaf, monkeypatch):
    monkeypatch.setattr(module, "_LEAF", leaf)
    thumbs = SETS[name]()
    ends = np.stack(np.triu_indices(len(thumbs), 1), axis=1)
    alike = ends[are_alike(shapes_of(thumbs), ends, shift)]
    assert possible(thumbs, shift, 64)[alike[:, 0], alike[:, 1]].all()
    assert len(alike) > 0 or shift < SHIFT


def test_smaller_leaves_leave_out_no_less(monkeypatch):
    thumbs = copied()
    whole = np.triu(possible(thumbs, SHIFT, len(thumbs)))
    monkeypatch.setattr(module, "_LEAF", 7)
    sketches = sketches_of(thumbs, SHIFT)
    assert sorted(np.concatenate([leaf.pictures for leaf in sketches.leaves])) == list(range(len(thumbs)))
    assert max(len(leaf.pictures) for leaf in sketches.leaves) <= 7
    assert (np.triu(possible(thumbs, SHIFT, 20)) <= whole).all()


@pytest.mark.parametrize("name", SETS)
def test_what_is_left_out_lies_farther_apart_than_any_near_copy(name):
    thumbs = SETS[name]()
    found = possible(thumbs, SHIFT, 1000)
    shapes = shapes_of(thumbs)
    normal = shapes.normal.astype(np.float64)
    one, other = np.nonzero(np.triu(~found, 1))
    distances = 1.0 - (normal[one] * normal[other]).mean(axis=1)
    # The filter looks at the distance that the first of two pictures allows.
    allowed = np.minimum(1.0 - MIN_CORRELATION, (SHIFT * THUMB_SIDE) ** 2 * shapes.energy[one] / 4.0)
    assert (distances > allowed).all()


def test_most_pictures_that_have_nothing_in_common_are_left_out(monkeypatch):
    thumbs = thumbs_of(textures(400, 64, 1))
    found = np.triu(possible(thumbs, SHIFT, 128), 1)
    num_pairs = len(thumbs) * (len(thumbs) - 1) / 2
    assert found.sum() < 0.1 * num_pairs
    monkeypatch.setattr(module, "_LEAF", 40)
    tiles = possible_pairs(sketches_of(thumbs, SHIFT), 0, len(thumbs))
    assert sum(mask.size for _, _, mask in tiles) < 2 * 0.7 * num_pairs, "most of them by their boxes alone"
