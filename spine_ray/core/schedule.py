"""The optimizer and its learning rate: AdamW, linear warm-up, cosine decay to zero, per step."""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spine_ray.core.freeze import depth_groups, no_weight_decay
from spine_ray.space.config import Recipe

_SCALER = "scaler."
"""Where the numbers of a scaler are named in a state."""


def learning_rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """Return the learning rate of a step in units of its peak.

    Linear from 1/w to 1 over the first w = warmup_share * steps steps, then half a cosine to 0 after the last step.

    Args:
        step: Steps done before this one, from 0.
        steps: Steps in all.
        warmup_share: Share of the steps that warm up.
    """
    warmup = round(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def make_optimizer(model: nn.Module, head: frozenset[str], recipe: Recipe) -> torch.optim.AdamW:
    """Return AdamW over what is not frozen, in a group for each depth, with and without weight decay.

    Biases and norms (one axis or none) are not decayed, nor what timm exempts, such as position embeddings. The rate
    falls from each block to the one before it by `layer_decay` (Bao et al. 2022), in the order of blocks in which they
    are frozen. Each group carries its peak learning rate as `peak`.

    Args:
        model: On its device.
        head: Names of the classifier's parameters.
        recipe: Rates and weight decay.
    """
    blocks = depth_groups(model)
    height = {name: len(blocks) - depth for depth, names in enumerate(blocks) for name in names}
    exempt = no_weight_decay(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = recipe.head_lr_factor if name in head else recipe.layer_decay ** height[name]
            groups.setdefault((factor, parameter.ndim > 1 and name not in exempt), []).append(parameter)
    options = []
    for (factor, decays), parameters in groups.items():
        peak, decay = recipe.lr * factor, recipe.weight_decay if decays else 0.0
        options.append({"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay})
    return torch.optim.AdamW(options, fused=True)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer remembers of each parameter it has moved, by place and name."""
    found: dict[str, Tensor] = {}
    for place, parameter in enumerate(_parameters(optimizer)):
        for name, tensor in optimizer.state.get(parameter, {}).items():
            found[f"{place}.{name}"] = tensor
    return found


def restore_optimizer(optimizer: torch.optim.Optimizer, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Give a new optimizer the memory of another.

    Each tensor gets its parameter's layout: the fused step walks through both side by side.

    Raises:
        ValueError: If there is no such parameter, or it has another shape.
    """
    parameters = _parameters(optimizer)
    for name, array in arrays.items():
        place, _, key = name.partition(".")
        if not place.isdecimal() or int(place) >= len(parameters):
            raise ValueError(f"the optimizer has {len(parameters)} parameters, none for {name}")
        parameter = parameters[int(place)]
        new = torch.zeros((), device=parameter.device) if key == "step" else torch.zeros_like(parameter)
        if array.shape != tuple(new.shape):
            raise ValueError(f"{name} has shape {array.shape}, not {tuple(new.shape)}")
        optimizer.state[parameter][key] = new.copy_(torch.from_numpy(np.array(array)))


def scaler_arrays(scaler: torch.amp.GradScaler) -> dict[str, npt.NDArray[np.generic]]:
    """Return what a scaler has learnt of the range of gradients; nothing where it is not used."""
    return {f"{_SCALER}{name}": np.array(value) for name, value in scaler.state_dict().items()}


def restore_scaler(scaler: torch.amp.GradScaler, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Give a new scaler what another has learnt; arrays of other names are left alone."""
    known = {name.removeprefix(_SCALER): array.item() for name, array in arrays.items() if name.startswith(_SCALER)}
    if known:
        scaler.load_state_dict(known)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's learning rate to `factor` times its peak."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
