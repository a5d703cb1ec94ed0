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
    smooth picture must agree more closely than one full of detail, where the slightest crop shows.

    Args:
        thumbs: (pairs, 1024).
        others: (pairs, 1024).
        shift: Share of the side.
    """
    one, two = _normal(thumbs), _normal(others)
    correlation = (one * two).mean(axis=1)
    energy = np.minimum(_gradient_energy(one), _gradient_energy(two))
    allowed = (shift * THUMB_SIDE) ** 2 * energy / 4.0
    return np.asarray((1.0 - correlation <= allowed + 1e-6) & (correlation >= _MIN_CORRELATION))


def _shrunk(picture: Image.Image) -> Image.Image:
    """Return the picture grey, 64 x 64; modes whose channels may be averaged shrink before they are converted."""
    size = (_GREY_SIDE, _GREY_SIDE)
    if picture.mode in ("L", "RGB") and not picture.has_transparency_data:
        return picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")
    return to_rgb(picture).resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0).convert("L")


def _normal(thumbs: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    centred = thumbs.astype(np.float32)
    centred -= centred.mean(axis=1, keepdims=True)
    return np.asarray(centred / centred.std(axis=1, keepdims=True))


def _gradient_energy(normal: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    square = normal.reshape(-1, THUMB_SIDE, THUMB_SIDE)
    across, down = np.diff(square, axis=2) ** 2, np.diff(square, axis=1) ** 2
    return np.asarray(across.mean(axis=(1, 2)) + down.mean(axis=(1, 2)))
