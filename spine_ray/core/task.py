"""What is learnt: pictures, labels and the seed, the same for every trial of a study."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.pixels import PixelFile

Rows = npt.NDArray[np.int64]
"""Places of pictures in the study's table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """The same for every trial of a study."""

    pixels: PixelFile
    keys: npt.NDArray[np.uint64]
    """(images,) of `image_keys`."""
    labels: npt.NDArray[np.int64]
    """(images,) class indices."""
    classes: int
    seed: int
    groups: npt.NDArray[np.int64] | None = None
    """(images,): rows of one group stay on one side of every split; None: every row for itself."""

    def class_weights(self, rows: Rows) -> Tensor:
        """Return rows / (classes * rows of the class), (classes,): every class has the same say."""
        counts = np.bincount(self.labels[rows], minlength=self.classes)
        return torch.tensor(len(rows) / (self.classes * np.maximum(counts, 1)), dtype=torch.float32)
