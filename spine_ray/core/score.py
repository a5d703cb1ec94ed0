"""Logits of a model on the scoring view: the same for OOF rows, the test split and new pictures."""

import contextlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spine_ray.core.backbone import Normalisation, normalisation_of, normalise
from spine_ray.core.pixels import PixelFile
from spine_ray.core.views import render, scoring_boxes
from spine_ray.space.config import TrialConfig

Rows = npt.NDArray[np.int64]
_BATCH = 128


def logits_of(
    model: nn.Module, config: TrialConfig, pixels: PixelFile, rows: Rows, device: torch.device
) -> npt.NDArray[np.float32]:
    """Return a model's logits on the scoring view of some rows, (rows, classes)."""
    model.eval()
    normalisation = normalisation_of(config.backbone)
    parts = []
    with torch.inference_mode(), precision(device):
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            pictures = render(pixels, batch, scoring_boxes(len(batch)), config.resolution)
            parts.append(model(model_input(pictures, normalisation, device)).float().cpu())
    return np.asarray(torch.cat(parts).numpy(), np.float32)


def model_input(pictures: Tensor, normalisation: Normalisation, device: torch.device) -> Tensor:
    """Turn uint8 pictures into a normalised batch on the device, channels last."""
    images = normalise(pictures.to(device), normalisation)
    return images.contiguous(memory_format=torch.channels_last)


def precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the arithmetic of a device: bfloat16 autocast on CUDA, float32 elsewhere."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()
