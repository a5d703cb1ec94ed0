"""The built-in sample: scikit-learn's 1,797 scans of handwritten digits, 8x8 px, as PNG bytes."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from spine_ray.data.rows import Row, Source


@dataclass(frozen=True, slots=True)
class DigitReader:
    """Rows of the built-in sample, encoded on first use."""

    def read(self, index: int, path: str) -> bytes:
        """Return the PNG of scan `index`."""
        return _digits()[0][index]


def digits_source() -> Source:
    """Return the built-in sample: classes `0` to `9`, no split, no groups."""
    labels = _digits()[1]
    rows = tuple(Row(path=f"row {index}", class_name=str(label)) for index, label in enumerate(labels))
    return Source(name="the built-in sample digits", kind="digits", rows=rows, reader=DigitReader())


@lru_cache(maxsize=1)
def _digits() -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    digits = load_digits()
    # The scans have 17 levels of ink, 0 to 16.
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return tuple(_png(scan) for scan in pixels), tuple(int(label) for label in digits.target)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    # Stored, not deflated: other builds of zlib pack differently, and the bytes name the sample.
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()
