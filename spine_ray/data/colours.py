"""Any picture that Pillow opens, as 8-bit RGB: one rule for the audit, for training and for scoring.

Where a picture is transparent, white shows through. Deep grey (16 bits) is scaled, not clipped. CMYK is converted
without its ICC profile; Pillow turns the inverted inks of Adobe's JPEGs by itself.
"""

import numpy as np
from PIL import Image

BACKGROUND = (255, 255, 255, 255)
"""RGBA of what shows through transparent pixels."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return the picture in mode RGB, 8 bits a channel."""
    if is_deep(picture):
        return _eight_bits(picture).convert("RGB")
    if picture.has_transparency_data:
        seen = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, BACKGROUND), seen).convert("RGB")
    return picture.convert("RGB")


def is_deep(picture: Image.Image) -> bool:
    """Whether the pixels are grey levels of more than 8 bits."""
    return picture.mode.startswith("I") or picture.mode == "F"


def is_see_through(picture: Image.Image) -> bool:
    """Whether any pixel lets the background through; a picture with opaque alpha only does not."""
    if is_deep(picture) or not picture.has_transparency_data:
        return False
    with_alpha = picture if picture.mode in ("LA", "RGBA") else picture.convert("RGBA")
    return with_alpha.getchannel("A").getextrema() != (255, 255)


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Scale deep grey: 0 to 65535 for whole numbers; for fractions 0 to 1 where all are, else 0 to 255."""
    levels = np.asarray(picture)
    if picture.mode == "F":
        scale = 255.0 if levels.max() <= 1.0 else 1.0
        return Image.fromarray(np.rint(np.clip(np.nan_to_num(levels) * scale, 0.0, 255.0)).astype(np.uint8))
    return Image.fromarray((np.clip(levels, 0, 65535) >> 8).astype(np.uint8))
