"""A study's rows and pixels as a worker opens them: once a process, then kept."""

import functools
from pathlib import Path

import numpy as np
import torch

from spine_ray.core.network import Setup
from spine_ray.core.pixels import open_pixels
from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.data.samples import Samples
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import read_samples
from spine_ray.tune.order import WorkOrder


def open_work(order: WorkOrder) -> tuple[Samples, Task]:
    """Open the study's rows and pixels in this process."""
    torch.set_num_threads(order.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return _open(order.study, order.pixels, order.seed)


def setup_of(order: WorkOrder, backbone: str) -> Setup:
    """Return what a backbone is computed with."""
    return Setup(
        device=torch.device(order.device),
        arithmetic=order.arithmetic_of(backbone),
        weights=order.weights_file(backbone),
        activation_bytes=order.activation_bytes,
    )


@functools.lru_cache(maxsize=2)
def _open(study: Path, pixels: Path, seed: int) -> tuple[Samples, Task]:
    samples = read_samples(StudyPaths(study).samples)
    task = Task(
        pixels=open_pixels(pixels),
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
