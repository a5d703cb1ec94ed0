"""Freeze depth: one scale for all families, through the block order that timm's `group_matcher` gives."""

import warnings
from fnmatch import fnmatch

import torch
from timm.models import group_parameters
from torch import Tensor, nn

from spine_ray.core.backbone import make_model
from spine_ray.space.config import TrialConfig


def depth_groups(model: nn.Module) -> list[list[str]]:
    """Return the backbone's parameter names in groups by depth: stem first, then block after block.

    The classifier is in none of them.
    """
    matcher = model.group_matcher(coarse=False)  # type: ignore[operator]
    head = set(classifier_names(model))
    groups = group_parameters(model, matcher)
    ordered = [[name for name in groups[depth] if name not in head] for depth in sorted(groups)]
    return [names for names in ordered if names]


def classifier_names(model: nn.Module) -> list[str]:
    """Return the names of the classifier's parameters."""
    classifier = model.get_classifier()  # type: ignore[operator]
    heads = classifier if isinstance(classifier, tuple) else (classifier,)
    owned = {id(parameter) for head in heads for parameter in head.parameters()}
    return [name for name, parameter in model.named_parameters() if id(parameter) in owned]


def no_weight_decay(model: nn.Module) -> frozenset[str]:
    """Return the names of parameters of more than one axis that timm exempts from weight decay."""
    patterns = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    names = (name for name, _ in model.named_parameters())
    return frozenset(name for name in names if any(fnmatch(name, pattern) for pattern in patterns))


def snap(freeze: float, blocks: int) -> int:
    """Return how many of a backbone's depth groups a freeze depth freezes: the nearest block boundary."""
    return int(freeze * blocks + 0.5)


def freeze_backbone(model: nn.Module, freeze: float) -> frozenset[str]:
    """Stop gradients of the first `freeze` share of the depth and return the names of what is frozen."""
    groups = depth_groups(model)
    frozen = frozenset(name for names in groups[: snap(freeze, len(groups))] for name in names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return frozen


def freeze_untrained(model: nn.Module, config: TrialConfig) -> frozenset[str]:
    """Stop gradients of what a trial does not train and return the names of what its freeze depth freezes."""
    frozen = freeze_backbone(model, config.freeze)
    if not config.is_probe and config.training.batch_norm == "frozen":
        freeze_batch_norm(model)
    return frozen


def freeze_batch_norm(model: nn.Module) -> None:
    """Stop gradients of scale and shift of every batch-norm: wholly frozen, it keeps its running statistics too.

    Then it is one affine function of each row, as in evaluation, whatever else is in the batch.
    """
    for module in model.modules():
        if is_batch_norm(module):
            module.requires_grad_(False)


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module normalises over the batch."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def train_mode(model: nn.Module) -> None:
    """Put the model into training mode, but whatever is wholly frozen into eval mode.

    Frozen batch-norm keeps its running statistics, and frozen dropout and drop-path let everything through, so a
    frozen prefix is one function of the image.
    """
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return what training changes: the trained parameters and the buffers of modules that are not wholly frozen."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            continue
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            tensors[f"{prefix}.{name}" if prefix else name] = tensor.detach()
    names = set(model.state_dict())
    return {name: tensor for name, tensor in tensors.items() if name in names}


def trains_batch_norm(model: nn.Module) -> bool:
    """Return whether what is trained looks at several rows at once."""
    return any(is_batch_norm(each) and any(p.requires_grad for p in each.parameters()) for each in model.modules())


def frozen_share(backbone: str, resolution: int, freeze: float) -> float:
    """Return the share of the backbone's parameters (without classifier) that a freeze depth freezes."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = make_model(backbone, resolution, 2)
    frozen = freeze_backbone(model, freeze)
    head = set(classifier_names(model))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name not in head}
    return sum(sizes[name] for name in frozen) / sum(sizes.values())
