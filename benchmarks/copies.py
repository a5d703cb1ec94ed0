"""Pictures of which none is a copy, copies that were altered, and a source that holds pictures in memory."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

from benchmarks.textures import drawings, picture
from spine_ray.data.rows import Row, Source


class Listed:
    """Pictures in memory, stored without loss."""

    def __init__(self, images: Sequence[Image.Image]) -> None:
        self.images = images

    def read(self, index: int, path: str) -> bytes:
        buffer = io.BytesIO()
        self.images[index].save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def source_of(images: Sequence[Image.Image], **columns: Sequence[Any]) -> Source:
    """A source of these pictures, of two classes in turn; a column gives one field of the rows."""
    rows = tuple(
        Row(
            path=f"row {index}",
            class_name="ab"[index % 2],
            **{name: values[index] for name, values in columns.items()},
        )
        for index in range(len(images))
    )
    return Source(name="pictures", kind="parquet", rows=rows, reader=Listed(images))


def textures(number: int, side: int, seed: int) -> list[Image.Image]:
    rng, draw = np.random.default_rng(seed), list(drawings().values())
    return [Image.fromarray(picture(draw[index % len(draw)], rng, side)) for index in range(number)]


def pieces(first_top: int = 0) -> list[Image.Image]:
    """Pieces of two photographs, 96 px a side, from this height downwards."""
    return [
        Image.fromarray(photo[top : top + 96, left : left + 96])
        for photo in load_sample_images().images
        for top in range(first_top, 320, 64)
        for left in range(0, 540, 64)
    ]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Cut this share off at the top and at the left."""
    width, height = image.size
    return image.crop((round(share * width), round(share * height), width, height))


ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 90": lambda image: jpeg(image, 90),
    "JPEG quality 60": lambda image: jpeg(image, 60),
    "JPEG quality 30": lambda image: jpeg(image, 30),
    "half the size": half,
    "1.5 times the size": lambda image: image.resize((image.width * 3 // 2, image.height * 3 // 2)),
    "half the size, JPEG 75": lambda image: jpeg(half(image), 75),
    "brightness x 1.2": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "brightness x 0.8": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "cropped by 2 %": lambda image: cropped(image, 0.02),
    "cropped by 4 %": lambda image: cropped(image, 0.04),
}
