"""Views: the v-th augmented version of an image, a pure function of (seed, image, v).

The crop box is relative, so every backbone sees the very same crops at every resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from spine_ray.core.pixels import PixelFile
from spine_ray.core.seeds import derive_seed, uniform

_ASPECT = 4 / 3
"""Crops are stretched by at most this, either way: the customary range of random resized crops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What may happen to a training view."""

    crop_area_min: float
    flip: bool


@dataclass(frozen=True, slots=True)
class Boxes:
    """Crops of some images, in units of each image's short side, with whether each is mirrored."""

    width: npt.NDArray[np.float64]
    height: npt.NDArray[np.float64]
    across: npt.NDArray[np.float64]
    """(images,) where the crop lies, 0 (left) to 1 (right), of the room there is."""
    down: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]


def image_keys(sample_ids: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Return one 64-bit key an image from its sample id and the study's seed, independent of row order."""
    return np.array([derive_seed(seed, "view", sample_id) for sample_id in sample_ids], np.uint64)


def training_boxes(keys: npt.NDArray[np.uint64], view: int, augmentation: Augmentation) -> Boxes:
    """Return the crops of one view of some images.

    Args:
        keys: (images,), of `image_keys`.
        view: Which view, from 0.
        augmentation: The ranges of the recipe.
    """
    numbers = [uniform(keys, view * 8 + stream) for stream in range(5)]
    area = augmentation.crop_area_min + (1.0 - augmentation.crop_area_min) * numbers[0]
    aspect = np.exp((2.0 * numbers[1] - 1.0) * np.log(_ASPECT))
    return Boxes(
        width=np.sqrt(area * aspect),
        height=np.sqrt(area / aspect),
        across=numbers[2],
        down=numbers[3],
        mirrored=(numbers[4] < 0.5) & augmentation.flip,
    )


def scoring_boxes(images: int) -> Boxes:
    """Return the central squares: the view on which OOF logits and predictions are made."""
    one, half = np.ones(images), np.full(images, 0.5)
    return Boxes(width=one, height=one, across=half, down=half, mirrored=np.zeros(images, np.bool_))


def render(pixels: PixelFile, rows: npt.NDArray[np.int64], boxes: Boxes, resolution: int) -> Tensor:
    """Cut, scale and mirror crops.

    Returns:
        uint8 (images, 3, resolution, resolution).
    """
    batch = torch.empty((len(rows), 3, resolution, resolution), dtype=torch.uint8)
    for place, row in enumerate(rows):
        batch[place] = _cut(pixels.picture(int(row)), boxes, place, resolution)
    return batch


def scoring_view(picture: npt.NDArray[np.uint8], resolution: int) -> Tensor:
    """Return the scoring view of one decoded picture, uint8 (3, resolution, resolution).

    Args:
        picture: (height, width, 3), decoded at the stored side of the study.
        resolution: Side of the view, px.
    """
    return _cut(picture, scoring_boxes(1), 0, resolution)


def _cut(picture: npt.NDArray[np.uint8], boxes: Boxes, place: int, resolution: int) -> Tensor:
    """Return one crop of one picture, scaled, uint8 (3, resolution, resolution)."""
    height, width = picture.shape[:2]
    short = min(height, width)
    crop_height = min(height, max(1, round(short * float(boxes.height[place]))))
    crop_width = min(width, max(1, round(short * float(boxes.width[place]))))
    top = round((height - crop_height) * float(boxes.down[place]))
    left = round((width - crop_width) * float(boxes.across[place]))
    crop = torch.from_numpy(np.array(picture[top : top + crop_height, left : left + crop_width]))
    scaled = interpolate(crop.permute(2, 0, 1)[None], (resolution, resolution), mode="bilinear", antialias=True)[0]
    return scaled.flip(-1) if boxes.mirrored[place] else scaled
