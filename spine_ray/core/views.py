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
from torchvision.transforms import v2

from spine_ray.core.pixels import PixelFile
from spine_ray.core.seeds import derive_seed, uniform
from spine_ray.space.config import Recipe

_STREAMS = 8
"""Random numbers of one view of one image, at most."""
_PAINT = 7
"""The one from which what changes the colours is seeded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What may happen to a training view. A recipe says what each of them means."""

    crop_area_min: float
    crop_aspect_max: float = 4 / 3
    symmetry: str = "none"
    color_jitter: float = 0.0
    trivial_augment: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> "Augmentation":
        """Return that of a recipe."""
        return cls(
            crop_area_min=recipe.crop_area_min,
            crop_aspect_max=recipe.crop_aspect_max,
            symmetry=recipe.symmetry,
            color_jitter=recipe.color_jitter,
            trivial_augment=recipe.trivial_augment,
        )


@dataclass(frozen=True, slots=True)
class Boxes:
    """Crops of some images, in units of each image's short side, with how each is turned and mirrored."""

    width: npt.NDArray[np.float64]
    height: npt.NDArray[np.float64]
    across: npt.NDArray[np.float64]
    """(images,) where the crop lies, 0 (left) to 1 (right), of the room there is."""
    down: npt.NDArray[np.float64]
    mirrored: npt.NDArray[np.bool_]
    turns: npt.NDArray[np.int64]
    """Quarter turns, 0 to 3, before it is mirrored."""


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
    area, aspect, across, down, mirror, turn = (uniform(keys, view * _STREAMS + stream) for stream in range(6))
    covered = augmentation.crop_area_min + (1.0 - augmentation.crop_area_min) * area
    stretch = np.exp((2.0 * aspect - 1.0) * np.log(augmentation.crop_aspect_max))
    return Boxes(
        width=np.sqrt(covered * stretch),
        height=np.sqrt(covered / stretch),
        across=across,
        down=down,
        mirrored=(mirror < 0.5) & (augmentation.symmetry != "none"),
        turns=(4.0 * turn).astype(np.int64) * (augmentation.symmetry == "all"),
    )


def scoring_boxes(images: int) -> Boxes:
    """Return the central squares: the view on which OOF logits and predictions are made."""
    one, half = np.ones(images), np.full(images, 0.5)
    still, upright = np.zeros(images, np.bool_), np.zeros(images, np.int64)
    return Boxes(width=one, height=one, across=half, down=half, mirrored=still, turns=upright)


def training_view(
    pixels: PixelFile,
    rows: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    view: int,
    augmentation: Augmentation,
    resolution: int,
) -> Tensor:
    """Return one training view of some images, a function of each image's key and the view's number alone.

    Args:
        pixels: The decoded pictures.
        rows: Which of them.
        keys: (rows,), of `image_keys`.
        view: Which view, from 0.
        augmentation: What may happen to it.
        resolution: Side of the view, px.

    Returns:
        uint8 (images, 3, resolution, resolution).
    """
    batch = render(pixels, rows, training_boxes(keys, view, augmentation), resolution)
    if augmentation.color_jitter > 0.0 or augmentation.trivial_augment:
        _paint(batch, uniform(keys, view * _STREAMS + _PAINT), augmentation)
    return batch


def _paint(batch: Tensor, numbers: npt.NDArray[np.float64], augmentation: Augmentation) -> None:
    """Change the colours of views in place, and what else TrivialAugment does (Mueller and Hutter 2021)."""
    strength = augmentation.color_jitter
    steps: list[torch.nn.Module] = [v2.ColorJitter(strength, strength, strength)] if strength > 0.0 else []
    if augmentation.trivial_augment:
        steps.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
    change = v2.Compose(steps)
    with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's own generator
        for place, number in enumerate(numbers):
            torch.manual_seed(int(number * 2.0**53))
            batch[place] = change(batch[place])


def render(pixels: PixelFile, rows: npt.NDArray[np.int64], boxes: Boxes, resolution: int) -> Tensor:
    """Cut, scale, turn and mirror crops.

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
    turned = torch.rot90(scaled, int(boxes.turns[place]), (1, 2))
    return turned.flip(-1) if boxes.mirrored[place] else turned
