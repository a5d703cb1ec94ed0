import numpy as np
import pytest
from PIL import Image

from spine_ray.data.colours import is_see_through

SIZE = (4, 3)
COLOURS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8))


def with_alpha(mode: str, alpha: int, everywhere: bool) -> Image.Image:
    picture = COLOURS.convert(mode)
    channel = Image.new("L", SIZE, alpha if everywhere else 255)
    channel.putpixel((2, 1), alpha)
    picture.putalpha(channel)
    return picture


def palette(transparency: bytes | int | None) -> Image.Image:
    picture = COLOURS.quantize(4)
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


def with_colour(picture: Image.Image, transparency: object) -> Image.Image:
    picture.info["transparency"] = transparency
    return picture


CASES = {
    "no alpha": (COLOURS, False),
    "opaque": (with_alpha("RGB", 255, True), False),
    "one pixel": (with_alpha("RGB", 254, False), True),
    "clear": (with_alpha("RGB", 0, True), True),
    "opaque grey": (with_alpha("L", 255, True), False),
    "one grey pixel": (with_alpha("L", 0, False), True),
    "palette": (palette(None), False),
    "opaque palette": (palette(bytes([255, 255, 255, 255])), False),
    "one colour of a palette": (palette(bytes([255, 0, 255, 255])), True),
    "one number of a palette": (palette(2), True),
    "a colour that is there": (with_colour(COLOURS.copy(), COLOURS.getpixel((1, 1))), True),
    "a colour that is not there": (with_colour(Image.new("RGB", SIZE), (1, 2, 3)), False),
    "deep grey": (Image.new("I;16", SIZE), False),
}


@pytest.mark.parametrize("name", CASES)
def test_only_a_pixel_that_lets_the_background_through_makes_a_picture_transparent(name):
    picture, expected = CASES[name]
    assert is_see_through(picture) is expected
