"""A study's rows, pixels and weights as a worker opens them: once a process, then kept."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from spine_ray.core.cache import cache_folder
from spine_ray.core.network import Setup
from spine_ray.core.pixels import PixelFile, build_pixels, open_pixels
from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.data.rows import Source
from spine_ray.data.samples import Samples
from spine_ray.space.config import TrialConfig
from spine_ray.study.depot import Depot
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import read_samples
from spine_ray.workers.spec import NodeFiles, WorkerSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeRequest:
    """Which pictures are decoded, and at what size: the same on every node, named by its content."""

    source: Source
    rows: npt.NDArray[np.int64]
    """(images,) rows of the source."""
    content: tuple[str, ...]
    """One name a row that changes when its picture does."""
    side: int
    """Stored short side, px."""

    def decode(self, progress: Callable[[int, int], None] | None = None) -> PixelFile:
        """Decode them on this node, unless that was done.

        Raises:
            OSError: If a picture cannot be read from here.
            NoRoomError: If they do not fit on the disk.
        """
        return build_pixels(
            lambda index: self.source.read(int(self.rows[index])), self.content, self.side, progress=progress
        )


def depot_of(spec: WorkerSpec) -> Depot:
    """Return the way from here to the study's files."""
    if spec.uri is None:
        return Depot(StudyPaths(spec.study), spec.holder, None)
    here = cache_folder() / "outposts" / hashlib.sha256(spec.uri.encode()).hexdigest()[:24]
    return Depot(StudyPaths(here), spec.holder, spec.uri)


def open_work(spec: WorkerSpec) -> tuple[Samples, Task]:
    """Open the study's rows and pixels in this process."""
    torch.set_num_threads(spec.threads)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return _open(depot_of(spec), spec.pixels, spec.seed, spec.files)


def setup_of(spec: WorkerSpec, config: TrialConfig) -> Setup:
    """Return what a configuration is computed with."""
    weights = spec.weights_file(config.backbone)
    if weights is not None and spec.files is not None:
        weights = spec.files.weights(weights, spec.frozen_hash(config.backbone))
    return Setup(
        device=torch.device(spec.device),
        arithmetic=spec.arithmetic_of(config),
        weights=weights,
        activation_bytes=spec.activation_bytes,
    )


@functools.lru_cache(maxsize=2)
def _open(depot: Depot, pixels: Path, seed: int, files: NodeFiles | None) -> tuple[Samples, Task]:
    depot.fetch(depot.paths.samples)
    samples = read_samples(depot.paths.samples)
    task = Task(
        pixels=open_pixels(pixels) if files is None else files.pixels(pixels),
        keys=image_keys(samples.sample_ids, seed),
        labels=samples.labels,
        groups=samples.groups,
        classes=len(samples.classes),
        seed=seed,
    )
    return samples, task


def shuffled_labels(samples: Samples, seed: int) -> npt.NDArray[np.int64]:
    """Return the labels with those of the dev rows permuted: nothing can be learnt from them."""
    labels = samples.labels.copy()
    labels[samples.dev] = np.random.default_rng(derive_seed(seed, "shuffle")).permutation(labels[samples.dev])
    return labels
