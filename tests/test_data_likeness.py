import math

import imagehash
import numpy as np
import pytest
from PIL import Image

from benchmarks.copies import ALTERED, pieces, textures
from spine_ray.data.likeness import THUMB_SIDE, are_alike, print_of, shapes_of

SHIFT = 0.022


def mirrored(image: Image.Image) -> Image.Image:
    """Return the picture with its own mirror image: half of its frequencies are 0 but for rounding."""
    pixels = np.asarray(image.convert("L"))
    return Image.fromarray(np.concatenate([pixels, pixels[:, ::-1]], axis=1))


def lattice(side: int, period: int) -> Image.Image:
    """Return stripes, whose few frequencies leave the median at 0."""
    return Image.fromarray(np.repeat(255 * (np.arange(side)[None, :] // period % 2), side, axis=0).astype(np.uint8))


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8))


SETS = {
    "textures of 64 px": lambda: textures(300, 64, 0),
    "textures of 48 px": lambda: textures(100, 48, 1),
    "pieces of photographs": lambda: pieces(),
    "mirrored textures": lambda: [mirrored(image) for image in textures(150, 64, 2)],
    "stripes": lambda: [lattice(side, period) for side in (32, 64, 128) for period in (1, 2, 3, 4, 8, 16)],
    "noise": lambda: [noise(seed) for seed in range(50)],
}


@pytest.mark.parametrize("name", SETS)
def test_the_hash_is_that_of_imagehash_bit_for_bit(name):
    for image in SETS[name]():
        found = print_of(image)
        if found is None:
            continue
        grey = image.resize((64, 64), Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
        expected = np.packbits(imagehash.phash(grey, 16).hash).tobytes()
        assert found.bits == expected


def alike_by_definition(thumb: np.ndarray, other: np.ndarray, shift: float) -> bool:
    """Compare two thumbnails, (32, 32) each, pixel by pixel and block by block, in float64."""
    one, two = (grey - grey.mean() for grey in (thumb.astype(float), other.astype(float)))
    one, two = one / one.std(), two / two.std()

    def gradients(square: np.ndarray) -> np.ndarray:
        left, above = square - np.roll(square, 1, axis=1), square - np.roll(square, 1, axis=0)
        left[:, 0], above[0] = 0.0, 0.0
        return left**2 + above**2

    def blocks(square: np.ndarray) -> list[float]:
        return [
            square[row : row + 8, column : column + 8].mean() for row in range(0, 32, 8) for column in range(0, 32, 8)
        ]

    detail, other_detail = gradients(one), gradients(two)
    correlation = (one * two).mean()
    allowed = (shift * THUMB_SIDE) ** 2 * min(detail.mean(), other_detail.mean()) / 4.0
    if 1.0 - correlation > allowed + 1e-6 or correlation < 0.8:
        return False
    structure = [min(pair) / 2.0 for pair in zip(blocks(detail), blocks(other_detail), strict=True)]
    change = [value / (part + 0.05) for value, part in zip(blocks((one - two) ** 2), structure, strict=True)]
    structured = sorted(value for value, part in zip(change, structure, strict=True) if part >= 0.05)
    if len(structured) < 4:
        return True
    usual = structured[(len(structured) - 1) // 2]
    return not (max(change) > 0.2 and max(change) > 10.0 * usual)


def thumbs_of(images: list[Image.Image]) -> np.ndarray:
    found = [print_of(image) for image in images]
    return np.frombuffer(b"".join(each.thumb for each in found if each), np.uint8).reshape(-1, THUMB_SIDE**2)


def with_a_patch(image: Image.Image, grey: int) -> Image.Image:
    changed = image.convert("L")
    changed.paste(grey, (8, 8, 24, 24))
    return changed


@pytest.mark.parametrize("shift", [0.0, SHIFT, 0.1, 1.0])
def test_thumbnails_are_alike_as_the_definition_says(shift):
    images = [image for image in [*pieces(96)[:20], *textures(20, 64, 3)] if print_of(image)]
    copies = [alter(image) for alter in ALTERED.values() for image in images]
    patched = [with_a_patch(image, grey) for grey in (0, 120, 250) for image in images]
    thumbs = thumbs_of([*images, *copies, *patched])
    ends = np.array([(index % len(images), index) for index in range(len(images), len(thumbs))], np.int64)
    strangers = np.array([(index, (7 * index + 1) % len(thumbs)) for index in range(len(thumbs))], np.int64)
    ends = np.concatenate([ends, strangers])
    found = are_alike(shapes_of(thumbs), ends, shift)
    squares = thumbs.reshape(-1, THUMB_SIDE, THUMB_SIDE)
    expected = [alike_by_definition(squares[one], squares[other], shift) for one, other in ends.tolist()]
    assert found.tolist() == expected
    if shift == SHIFT:
        assert min(sum(expected), len(expected) - sum(expected)) > 50, "both answers occur"


def test_what_is_found_does_not_depend_on_what_is_compared_at_once():
    images = [image for image in textures(60, 64, 4) if print_of(image)]
    thumbs = thumbs_of([*images, *map(ALTERED["JPEG quality 90"], images)])
    ends = np.array([(one, other) for one in range(len(thumbs)) for other in range(one)], np.int64)
    together = are_alike(shapes_of(thumbs), ends, SHIFT)
    alone = [bool(are_alike(shapes_of(thumbs[pair]), np.array([[0, 1]]), SHIFT)[0]) for pair in ends[:500]]
    assert together[:500].tolist() == alone
    for start in range(0, len(ends), 333):
        part = ends[start : start + 333]
        rows, among = np.unique(part, return_inverse=True)
        found = are_alike(shapes_of(thumbs[rows]), among.reshape(-1, 2), SHIFT)
        assert found.tolist() == together[start : start + 333].tolist()


def test_shapes_have_no_brightness_and_contrast():
    thumbs = thumbs_of(textures(50, 64, 5))
    shapes = shapes_of(thumbs)
    np.testing.assert_allclose(shapes.normal.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose((shapes.normal**2).mean(axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(shapes.structure.mean(axis=1), shapes.energy, rtol=1e-5)
    assert math.isfinite(shapes.energy.max())
