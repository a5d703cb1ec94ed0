"""The print of a picture, small enough to compare all with all: a perceptual hash and a grey thumbnail."""

from dataclasses import dataclass

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import Image

from spine_ray.data.colours import to_rgb

MIN_SIDE = 32
"""Smaller pictures get no print: they hold too little to tell a copy from a likeness."""
MIN_CONTRAST = 3.0
"""Flatter thumbnails (standard deviation, grey levels) get no print: what is left of them is noise."""
THUMB_SIDE = 32
_HASH_SIDE = 16
_GREY_SIDE = 64
"""`imagehash.phash` works on a grey picture of this side for a hash of 16 x 16 bits."""
_MIN_CORRELATION = 0.8
_NOISE = 0.05
"""Of the thumbnail's variance: blocks with less structure have none."""
_LOCAL_CHANGE, _LOCAL_FACTOR, _MIN_BLOCKS = 0.2, 10.0, 4
"""A block that changed so much, and so many times more than the middle one of so many structured ones, is apart."""
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
    return Print(bits=np.packbits(imagehash.phash(small, _HASH_SIDE).hash).tobytes(), thumb=grey)


def are_alike(thumbs: npt.NDArray[np.uint8], others: npt.NDArray[np.uint8], shift: float) -> npt.NDArray[np.bool_]:
    """Say which pairs of thumbnails differ no more than a small shift would make them, brightness and contrast aside.

    A shift by d px lowers the correlation of a picture with itself by about d**2 / 4 of its gradient energy. So a
    smooth picture must agree more closely than one full of detail, where the slightest crop shows. Pairs that differ in
    one place alone are no copies: they show other things before the same background.

    Args:
        thumbs: (pairs, 1024).
        others: (pairs, 1024).
        shift: Share of the side.
    """
    one, two = _normal(thumbs), _normal(others)
    correlation = (one * two).mean(axis=1)
    energy = np.minimum(_gradients(one).mean(axis=(1, 2)), _gradients(two).mean(axis=(1, 2)))
    allowed = (shift * THUMB_SIDE) ** 2 * energy / 4.0
    is_close = (1.0 - correlation <= allowed + 1e-6) & (correlation >= _MIN_CORRELATION)
    return np.asarray(is_close & ~_is_local(one, two))


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


def _is_local(one: Floats, two: Floats) -> npt.NDArray[np.bool_]:
    """Whether two normal thumbnails differ in one place alone: another thing before the same background.

    Encoding, scaling and cropping change every structured part by about its share of the gradient energy.
    """
    structure = np.minimum(_by_block(_gradients(one)), _by_block(_gradients(two))) / 2.0
    change = _by_block((one - two).reshape(-1, THUMB_SIDE, THUMB_SIDE) ** 2) / (structure + _NOISE)
    is_structured = structure >= _NOISE
    ranked = np.sort(np.where(is_structured, change, np.inf), axis=1)
    num_structured = is_structured.sum(axis=1)
    usual = np.take_along_axis(ranked, np.maximum(num_structured - 1, 0)[:, None] // 2, axis=1)[:, 0]
    highest = change.max(axis=1)
    is_apart = (highest > _LOCAL_CHANGE) & (highest > _LOCAL_FACTOR * usual)
    return np.asarray(is_apart & (num_structured >= _MIN_BLOCKS))


def _by_block(squares: Floats) -> Floats:
    """Return the mean of each of 4 x 4 blocks, (pairs, 16)."""
    side = THUMB_SIDE // 4
    return np.asarray(squares.reshape(-1, 4, side, 4, side).mean(axis=(2, 4)).reshape(len(squares), -1))


def _gradients(normal: Floats) -> Floats:
    """Return the squared steps to the pixels above and at the left, (pairs, 32, 32)."""
    square = normal.reshape(-1, THUMB_SIDE, THUMB_SIDE)
    energy = np.zeros_like(square)
    energy[:, :, 1:] += np.diff(square, axis=2) ** 2
    energy[:, 1:] += np.diff(square, axis=1) ** 2
    return energy
