"""The print of a picture, small enough to compare all with all: a perceptual hash and a grey thumbnail."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dct

from spine_ray.data.colours import to_rgb

MIN_SIDE = 32
"""Smaller pictures get no print: they hold too little to tell a copy from a likeness."""
MIN_CONTRAST = 3.0
"""Flatter thumbnails (standard deviation, grey levels) get no print: what is left of them is noise."""
THUMB_SIDE = 32
_HASH_SIDE = 16
_GREY_SIDE = 64
"""A hash of 16 x 16 bits is made from a grey picture of this side."""
MIN_CORRELATION = 0.8
"""Of the thumbnails of near copies."""
_NOISE = 0.05
"""Of the thumbnail's variance: blocks with less structure have none."""
_LOCAL_CHANGE, _LOCAL_FACTOR, _MIN_BLOCKS = 0.2, 10.0, 4
"""A block that changed so much, and so many times more than the middle one of so many with structure, changed alone."""
ROUNDING = 1e-6
"""By which a correlation may lie too low."""
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Print:
    """What a picture is compared by."""

    bits: bytes
    """The 256-bit perceptual hash, 32 bytes."""
    thumb: bytes
    """Grey thumbnail, 32 x 32 bytes."""


def print_of(picture: Image.Image) -> Print | None:
    """Return the print of a decoded, upright picture; None where it is too small or too flat for one."""
    if min(picture.size) < MIN_SIDE:
        return None
    small = _shrunk(picture)
    thumb = small.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BILINEAR)
    grey = thumb.tobytes()
    if float(np.frombuffer(grey, np.uint8).astype(np.float32).std()) < MIN_CONTRAST:
        return None
    return Print(bits=np.packbits(_hash(np.asarray(small))).tobytes(), thumb=grey)


def _hash(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return the perceptual hash of a grey picture: which of its low frequencies lie above their median.

    Bit for bit the hash of `imagehash.phash(picture, 16)` (https://www.hackerfactor.com/blog/index.php?/archives/432),
    from the same transform, of which only the rows that are used are finished.

    Args:
        grey: (64, 64).

    Returns:
        (16, 16), lowest frequencies first.
    """
    low = dct(dct(grey, axis=0)[:_HASH_SIDE], axis=1)[:, :_HASH_SIDE]
    half = low.size // 2
    ranked = np.partition(low, (half - 1, half), axis=None)
    return np.asarray(low > (ranked[half - 1] + ranked[half]) / 2.0)


@dataclass(frozen=True, slots=True)
class Shapes:
    """Thumbnails without their brightness and contrast, and where their detail lies."""

    normal: Floats
    """(pictures, 1024), each of mean 0 and variance 1."""
    energy: Floats
    """(pictures,) mean squared gradient of `normal`."""
    structure: Floats
    """(pictures, 16) the same by block, 4 x 4 of them."""


def shapes_of(thumbs: npt.NDArray[np.uint8]) -> Shapes:
    """Return what thumbnails are compared by.

    Args:
        thumbs: (pictures, 1024), none of them flat.
    """
    normal = _normal(thumbs)
    gradients = _gradients(normal)
    return Shapes(normal, np.asarray(gradients.mean(axis=(1, 2))), _by_block(gradients))


def max_distance(energy: Floats, shift: float) -> Floats:
    """Return how far the correlation of two near copies may lie below 1 for all that one of them says.

    A shift by d px lowers the correlation of a picture with itself by about d**2 / 4 of its gradient energy. So a
    smooth picture must agree more closely than one full of detail, where the slightest crop shows.

    Args:
        energy: Mean squared gradients of normal thumbnails.
        shift: Share of the side.
    """
    return np.asarray((shift * THUMB_SIDE) ** 2 * energy / 4.0)


def are_alike(shapes: Shapes, ends: npt.NDArray[np.int64], shift: float) -> npt.NDArray[np.bool_]:
    """Say which pairs of thumbnails differ no more than a small shift would make them, brightness and contrast aside.

    Pairs that differ in one block alone are no copies: they show other things before the same background.

    Args:
        shapes: Of all pictures that are compared.
        ends: (pairs, 2) pictures.
        shift: Share of the side.
    """
    one, other = ends[:, 0], ends[:, 1]
    correlation = (shapes.normal[one] * shapes.normal[other]).mean(axis=1)
    allowed = max_distance(np.minimum(shapes.energy[one], shapes.energy[other]), shift)
    is_alike = np.asarray((1.0 - correlation <= allowed + ROUNDING) & (correlation >= MIN_CORRELATION))
    is_alike[is_alike] = ~_is_local(shapes, ends[is_alike])
    return is_alike


def _shrunk(picture: Image.Image) -> Image.Image:
    """Return the picture grey, 64 x 64; modes whose channels may be averaged shrink before they are converted."""
    size = (_GREY_SIDE, _GREY_SIDE)
    if picture.mode in ("L", "RGB") and not picture.has_transparency_data:
        return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    return to_rgb(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")


def _normal(thumbs: npt.NDArray[np.uint8]) -> Floats:
    centred = thumbs.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    return np.asarray(centred / centred.std(axis=1, keepdims=True))


def _is_local(shapes: Shapes, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether two normal thumbnails differ in one block alone: another thing before the same background.

    Encoding, scaling and cropping change every structured part by about its share of the gradient energy.
    """
    one, other = ends[:, 0], ends[:, 1]
    structure = np.minimum(shapes.structure[one], shapes.structure[other]) / 2.0
    difference = shapes.normal[one] - shapes.normal[other]
    change = _by_block(difference.reshape(-1, THUMB_SIDE, THUMB_SIDE) ** 2) / (structure + _NOISE)
    is_structured = structure >= _NOISE
    ranked = np.sort(np.where(is_structured, change, np.inf), axis=1)
    num_structured = is_structured.sum(axis=1)
    usual = np.take_along_axis(ranked, np.maximum(num_structured - 1, 0)[:, None] // 2, axis=1)[:, 0]
    highest = change.max(axis=1)
    is_local = (highest > _LOCAL_CHANGE) & (highest > _LOCAL_FACTOR * usual)
    return np.asarray(is_local & (num_structured >= _MIN_BLOCKS))


def _by_block(squares: Floats) -> Floats:
    """Return the mean of each of 4 x 4 blocks, (pairs, 16)."""
    side = THUMB_SIDE // 4
    return np.asarray(squares.reshape(-1, 4, side, 4, side).mean(axis=(2, 4)).reshape(-1, 16))


def _gradients(normal: Floats) -> Floats:
    """Return the squared steps to the pixels above and at the left, (pairs, 32, 32)."""
    square = normal.reshape(-1, THUMB_SIDE, THUMB_SIDE)
    energy = np.zeros_like(square)
    energy[:, :, 1:] += np.diff(square, axis=2) ** 2
    energy[:, 1:] += np.diff(square, axis=1) ** 2
    return energy
