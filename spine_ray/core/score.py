"""Logits of a model on the scoring view: the same for OOF rows, the test split and new pictures."""

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spine_ray.core.arithmetic import autocast
from spine_ray.core.inputs import Inputs
from spine_ray.core.memory import Portion
from spine_ray.core.network import Setup
from spine_ray.core.task import Rows

_BATCH = 128


def logits_of(part: nn.Module, inputs: Inputs, rows: Rows, setup: Setup) -> npt.NDArray[np.float32]:
    """Return the logits of a model in eval mode, or of its trained part, on the scoring view, (rows, classes).

    Args:
        part: What takes the inputs.
        inputs: Pictures for a whole model, activations for a trained part.
        rows: Which pictures.
        setup: Device and arithmetic.
    """

    def score(batch: Rows, at_once: int) -> Tensor:
        with torch.inference_mode(), autocast(setup.arithmetic, setup.device):
            starts = range(0, len(batch), at_once)
            return torch.cat([part(inputs.scoring(batch[s : s + at_once])).float().cpu() for s in starts])

    portion = Portion(_BATCH)
    parts = [portion.run(partial(score, rows[start : start + _BATCH])) for start in range(0, len(rows), _BATCH)]
    return np.asarray(torch.cat(parts).numpy(), np.float32)
