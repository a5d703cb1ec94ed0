"""What ships of a fitted model: the tensors that training changed, and the model rebuilt around them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spine_ray.core.arrays import Arrays, as_arrays
from spine_ray.core.freeze import trained_tensors
from spine_ray.core.inputs import Inputs, scoring_pictures
from spine_ray.core.network import Network, Setup
from spine_ray.core.task import Task
from spine_ray.space.config import TrialConfig

REFIT = "refit"
"""Names the fit on all dev rows, for its seeds."""


def trained_arrays(model: nn.Module) -> Arrays:
    """Return what training changed, as arrays."""
    return {name: np.array(array) for name, array in as_arrays(trained_tensors(model)).items()}


def refit_arrays(model: nn.Module, config: TrialConfig) -> Arrays:
    """Return what a study keeps of a member that was fitted once more.

    What training changed, and where no depth is frozen the frozen batch-norms too: such a member is whole without the
    file of its initial weights.
    """
    return whole_arrays(model) if config.freeze == 0.0 else trained_arrays(model)


def whole_arrays(model: nn.Module) -> Arrays:
    """Return all that a model needs to be what it is, trained or frozen, as arrays."""
    return {name: np.array(tensor.cpu().contiguous().numpy()) for name, tensor in model.state_dict().items()}


def fitted_network(
    config: TrialConfig, classes: int, seed: int, setup: Setup, arrays: Mapping[str, npt.NDArray[np.generic]]
) -> Network:
    """Build the whole model as its fit began and put the trained tensors in.

    Args:
        config: The member's configuration.
        classes: Outputs of the classifier.
        seed: The study's: a frozen prefix of random weights is drawn from it again.
        setup: Device, arithmetic and initial weights.
        arrays: What `trained_arrays` or `whole_arrays` returned.

    Raises:
        ValueError: If the tensors are not the model's.
    """
    network = Network(config, classes, seed, setup)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    strange = sorted(set(trained_tensors(network.model)) - set(tensors))
    try:
        strange = network.model.load_state_dict(tensors, strict=False).unexpected_keys or strange
    except RuntimeError as error:  # torch's word for a tensor of another shape
        raise ValueError(f"the stored weights of {config.trial_id} do not fit {config.backbone}: {error}") from error
    if strange:
        raise ValueError(f"the stored weights of {config.trial_id} do not fit {config.backbone}: {strange[0]}")
    network.model.eval()
    return network


def rebuild(
    config: TrialConfig, task: Task, setup: Setup, arrays: Mapping[str, npt.NDArray[np.generic]]
) -> tuple[nn.Module, Inputs]:
    """Return a fitted model with what it is fed with; arguments as those of `fitted_network`.

    Raises:
        ValueError: If the tensors are not the model's.
    """
    network = fitted_network(config, task.classes, task.seed, setup, arrays)
    return network.model, scoring_pictures(network, task)
