"""Tensors as arrays and back: the form in which they are kept on disk."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Arrays = dict[str, npt.NDArray[np.generic]]


def as_arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Return tensors as arrays, which may share the tensors' memory."""
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors.items()}


def put_back(arrays: Mapping[str, npt.NDArray[np.generic]], tensors: Mapping[str, Tensor]) -> None:
    """Copy arrays into tensors, which keep their device and their layout in memory.

    Raises:
        ValueError: If the names or shapes are not the same.
    """
    if arrays.keys() != tensors.keys():
        odd = sorted(arrays.keys() ^ tensors.keys())
        raise ValueError(f"{len(odd)} tensors are on one side only, such as {odd[0]}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            if arrays[name].shape != tuple(tensor.shape):
                raise ValueError(f"{name} has shape {arrays[name].shape}, not {tuple(tensor.shape)}")
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


def part_of(arrays: Mapping[str, npt.NDArray[np.generic]], prefix: str) -> Arrays:
    """Return the arrays whose names begin with a prefix, under the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
