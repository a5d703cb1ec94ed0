"""A study's rows and pixels as a worker opens them: once a process, then kept."""

import functools

import numpy as np
import torch

from spine_ray.core.fit import Task
from spine_ray.core.pixels import open_pixels
from spine_ray.core.seeds import derive_seed
from spine_ray.core.views import image_keys
from spine_ray.data.samples import Samples
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import read_samples
from spine_ray.tune.order import WorkOrder


@functools.lru_cache(maxsize=2)
def open_work(order: WorkOrder) -> tuple[Samples, Task]:
    """Open the study's rows and pixels in this process."""
    torch.set_num_threads(order.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    samples = read_samples(StudyPaths(order.study))
    task = Task(
        pixels=open_pixels(order.pixels),
        keys=image_keys(samples.sample_ids, order.seed),
        labels=samples.labels,
        classes=len(samples.classes),
        seed=order.seed,
    )
    return samples, task


def shuffled_labels(samples: Samples, seed: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    """Return the labels with those of the dev rows dealt anew: nothing can be learnt from them."""
    labels = samples.labels.copy()
    labels[samples.dev] = np.random.default_rng(derive_seed(seed, "shuffle")).permutation(labels[samples.dev])
    return labels
