"""A study's rows and pixels as a worker opens them: once a process, then kept."""

import functools
from pathlib import Path

import numpy as np
import torch

from spine_ray.core.network import Setup
from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.data.samples import Samples
from spine_ray.study.depot import Depot
from spine_ray.study.tables import read_samples
from spine_ray.tune.node import depot_of, pixels_on_this_node, weights_on_this_node
from spine_ray.tune.order import Base, WorkOrder


def open_work(order: WorkOrder) -> tuple[Samples, Task]:
    """Open the study's rows and pixels in this process."""
    torch.set_num_threads(order.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return _open(depot_of(order), order.pixels, order.seed, order.base)


def setup_of(order: WorkOrder, backbone: str) -> Setup:
    """Return what a backbone is computed with."""
    weights = order.weights_file(backbone)
    if weights is not None:
        weights = weights_on_this_node(weights, order.frozen_hash(backbone), order.base)
    return Setup(
        device=torch.device(order.device),
        arithmetic=order.arithmetic_of(backbone),
        weights=weights,
        activation_bytes=order.activation_bytes,
    )


@functools.lru_cache(maxsize=2)
def _open(depot: Depot, pixels: Path, seed: int, base: Base | None) -> tuple[Samples, Task]:
    depot.fetch(depot.paths.samples)
    samples = read_samples(depot.paths.samples)
    task = Task(
        pixels=pixels_on_this_node(pixels, base),
        keys=image_keys(samples.sample_ids, seed),
        labels=samples.labels,
        classes=len(samples.classes),
        seed=seed,
    )
    return samples, task


def shuffled_labels(samples: Samples, seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return the labels with those of the dev rows dealt anew: nothing can be learnt from them."""
    labels = samples.labels.copy()
    labels[samples.dev] = np.random.default_rng(derive_seed(seed, "shuffle")).permutation(labels[samples.dev])
    return labels
