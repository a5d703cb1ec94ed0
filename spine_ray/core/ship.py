"""What ships of a fitted model: the tensors that training changed, and the model rebuilt around them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spine_ray.core.backbone import make_model
from spine_ray.core.seeds import derive_seed
from spine_ray.space.config import TrialConfig

Arrays = dict[str, npt.NDArray[np.generic]]
REFIT = "refit"
"""Names the fit on all dev rows, for its seeds."""


def trained_arrays(model: nn.Module) -> Arrays:
    """Return the parameters that were trained and the buffers of modules that were not wholly frozen."""
    arrays: Arrays = {}
    for prefix, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            continue
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            arrays[f"{prefix}.{name}" if prefix else name] = tensor.detach().cpu().contiguous().numpy()
    names = set(model.state_dict())
    return {name: array for name, array in arrays.items() if name in names}


def rebuild(
    config: TrialConfig, classes: int, seed: int, weights: Path | None, arrays: Mapping[str, npt.NDArray[np.generic]]
) -> nn.Module:
    """Build the model as its fit began, then put the trained tensors in.

    Args:
        config: The member's configuration.
        classes: Outputs of the classifier.
        seed: The study's seed: a frozen prefix of random weights is drawn from it again.
        weights: The initial weights' file; None = random initialisation.
        arrays: What `trained_arrays` returned.

    Raises:
        ValueError: If a tensor is not one of the model's.
    """
    torch.manual_seed(derive_seed(seed, "initialise", REFIT))
    model = make_model(config.backbone, config.resolution, classes, weights=weights)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    unknown = model.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the stored weights of {config.trial_id} do not fit {config.backbone}: {unknown[0]}")
    return model.eval()
