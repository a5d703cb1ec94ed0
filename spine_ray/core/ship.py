"""What ships of a fitted model: the tensors that training changed, and the model rebuilt around them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spine_ray.core.arrays import Arrays, as_arrays
from spine_ray.core.freeze import trained_tensors
from spine_ray.core.inputs import Inputs, pictures_for
from spine_ray.core.network import Network, Setup
from spine_ray.core.task import Task
from spine_ray.space.config import TrialConfig

REFIT = "refit"
"""Names the fit on all dev rows, for its seeds."""


def trained_arrays(model: nn.Module) -> Arrays:
    """Return what training changed, as arrays."""
    return {name: np.array(array) for name, array in as_arrays(trained_tensors(model)).items()}


def rebuild(
    config: TrialConfig, task: Task, setup: Setup, arrays: Mapping[str, npt.NDArray[np.generic]]
) -> tuple[nn.Module, Inputs]:
    """Build the whole model as its fit began, put the trained tensors in, and return it with what it is fed with.

    Args:
        config: The member's configuration.
        task: Pictures, classes and the study's seed: a frozen prefix of random weights is drawn from it again.
        setup: Device, arithmetic and initial weights.
        arrays: What `trained_arrays` returned.

    Raises:
        ValueError: If a tensor is not one of the model's.
    """
    network = Network(config, task.classes, task.seed, setup)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    unknown = network.model.load_state_dict(tensors, strict=False).unexpected_keys
    if unknown:
        raise ValueError(f"the stored weights of {config.trial_id} do not fit {config.backbone}: {unknown[0]}")
    return network.model.eval(), pictures_for(config.recipe, network, task)
