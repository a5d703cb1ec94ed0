"""Mixup and CutMix: training inputs of two rows in one, with their labels in the same shares."""

import torch
from torch import Tensor
from torchvision.transforms import v2

from spine_ray.space.config import Recipe


def mixed(inputs: Tensor, labels: Tensor, recipe: Recipe, classes: int) -> tuple[Tensor, Tensor]:
    """Mix a batch as its recipe wants (Zhang et al. 2018; Yun et al. 2019), drawing from torch's generator.

    Inputs are pictures or the activations of a frozen prefix, whatever is trained on. What has no height and width,
    such as tokens, cannot be cut and is left as it is.

    Args:
        inputs: (rows, ...).
        labels: (rows,) class indices.
        recipe: How much is mixed.
        classes: How many classes there are.

    Returns:
        The inputs, and labels as they were or, of mixed inputs, (rows, classes) shares.
    """
    is_map = inputs.ndim == 4
    ways: list[torch.nn.Module] = []
    if recipe.mixup > 0.0:
        ways.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix > 0.0 and is_map:
        ways.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
    if not ways:
        return inputs, labels
    # torchvision mixes pictures alone: anything else is seen as pictures one pixel wide.
    found, shares = v2.RandomChoice(ways)(inputs if is_map else inputs.reshape(len(inputs), 1, -1, 1), labels)
    return found.reshape(inputs.shape), shares


def weight_of(targets: Tensor, weights: Tensor) -> Tensor:
    """Return what each row weighs, (rows,).

    Args:
        targets: (rows,) class indices, or (rows, classes) shares of classes.
        weights: (classes,) of each class.
    """
    return weights[targets] if targets.ndim == 1 else targets @ weights
