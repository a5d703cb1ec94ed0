"""Opens the bytes of a picture: known formats and safe sizes only. One rule for audit, training and scoring."""

import functools
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""What cameras write beside a JPEG, MPO, counts as one. Pillow knows more kinds; among them are some that start other
programs (EPS) or hold no pixels."""
MAX_BYTES = 2**28
"""A larger file is read no further."""
MAX_PIXELS = 89_478_485
"""From which on Pillow itself warns of a bomb: a quarter of a gigabyte as RGB."""
MAX_SIDE = 30_000
MAX_ASPECT = 64
"""Long side over short side: a picture is stored by its short side, so a thread of pixels would become gigabytes."""
_LARGE_PIXELS = 25_000_000
"""Pictures from here on are decoded one at a time, whatever the number of threads: a few copies are made of each."""
_one_large = threading.Lock()


class UnsafePictureError(ValueError):
    """A picture that would take more memory than a picture should."""


def open_picture(content: bytes) -> Image.Image:
    """Return the picture, its header read and its pixels not decoded yet.

    Raises:
        UnsafePictureError: If it is too large or too thin to be decoded safely.
        PIL.UnidentifiedImageError: If it is of no known format.
        Exception: Whatever else Pillow answers broken bytes with.
    """
    try:
        picture = Image.open(io.BytesIO(content), formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnsafePictureError(str(error)) from error
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    if width * height > MAX_PIXELS or long > MAX_SIDE or long > MAX_ASPECT * short:
        picture.close()
        raise UnsafePictureError(f"{width} x {height} px")
    return picture


@functools.cache
def _formats() -> tuple[str, ...]:
    """Return those of the formats that this build of Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def room_to_decode(picture: Image.Image) -> Iterator[None]:
    """Wait, before a large picture is decoded, until no other large one is; leave the block when it is small again."""
    if picture.width * picture.height < _LARGE_PIXELS:
        yield
    else:
        with _one_large:
            yield
