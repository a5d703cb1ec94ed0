"""What a (backbone, resolution, freeze) costs here: a few real training and scoring steps on made-up pictures."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from spine_ray.core.fit import Fit, Task
from spine_ray.core.pixels import PixelFile, short_side
from spine_ray.core.trial import peak_memory_mb
from spine_ray.space.config import TrialConfig

_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured on one worker's share of the machine."""

    train_images_s: float
    infer_images_s: float
    peak_mb: float


def measure_speed(config: TrialConfig, classes: int, device: torch.device) -> Speed:
    """Train and score for about a second and return images/s, the first step of each left out."""
    batch = config.recipe.batch_size
    side = short_side(config.resolution)
    size = np.full(batch, side, np.int64)
    offsets = np.arange(batch, dtype=np.int64) * side * side * 3
    pixels = PixelFile(Path(), offsets, size, size, np.full(batch * side * side * 3, 127, np.uint8))
    rows = np.arange(batch, dtype=np.int64)
    task = Task(pixels=pixels, keys=rows.astype(np.uint64), labels=rows % classes, classes=classes, seed=0)
    epochs = replace(config.recipe, epochs=1000)  # so that the learning rate is defined at every step
    fit = Fit(replace(config, recipe=epochs), task, rows, "probe", None, device)
    train = _rate(fit.train_epoch, batch)
    return Speed(train, _rate(lambda _: fit.logits(rows), batch), peak_memory_mb(device))


def _rate(run: Callable[[int], object], images: int) -> float:
    run(0)
    began, times = time.perf_counter(), 0
    while times == 0 or time.perf_counter() - began < _SECONDS:
        times += 1
        run(times)
    return images * times / (time.perf_counter() - began)
