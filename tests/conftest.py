from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from spine_ray.data.digits import digits_source
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import Recipe, TrialConfig, probe_config

if TYPE_CHECKING:
    from spine_ray.core.fit import Fit
    from spine_ray.core.network import Network, Setup
    from spine_ray.core.task import Rows, Task
    from spine_ray.tune.ray_pool import RayPool
    from tests.support.object_store import ObjectStore


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with modules that take long, so that no worker of pytest-xdist is left with one in the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session", autouse=True)
def own_cache_and_one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep derived files out of the user's cache, and arithmetic in one thread: it is the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        # Of joblib, by which cores are counted: two searches of two threads on two cores run at a tenth of their speed.
        patch.setenv("LOKY_MAX_CPU_COUNT", "1")
        # The tests that need torch have imported it by now; the others start ten seconds sooner without it.
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def digits_task() -> Callable[[int], Task]:
    """Return a function that makes a task of the first rows of the built-in sample; its classes take turns."""
    from spine_ray.core.pixels import build_pixels, short_side
    from spine_ray.core.task import Task
    from spine_ray.core.views import image_keys

    def make(rows: int) -> Task:
        source = digits_source()
        pictures = [source.reader.read(row, "") for row in range(rows)]
        names = [f"{hashlib.sha256(picture).hexdigest()[:16]}-{row}" for row, picture in enumerate(pictures)]
        return Task(
            pixels=build_pixels(pictures.__getitem__, names, short_side(32)),
            keys=image_keys(names, 0),
            labels=np.array([int(row.class_name) for row in source.rows[:rows]], np.int64),
            classes=10,
            seed=0,
        )

    return make


@pytest.fixture(scope="session")
def trial_config() -> Callable[..., TrialConfig]:
    """Return a function that makes a small configuration; keywords beyond its own are recipe fields of a fine-tune."""

    def make(
        backbone: str = "test_resnet", *, resolution: int = 32, freeze: float = 0.0, **recipe: object
    ) -> TrialConfig:
        start = {
            "epochs": 2,
            "batch_size": 16,
            "lr": 2e-3,
            "layer_decay": 1.0,
            "head_lr_factor": 1.0,
            "weight_decay": 0.05,
            "warmup_share": 0.1,
            "label_smoothing": 0.0,
            "class_weighting": "none",
            "clip_norm": 1.0,
            "augment": "light",
            "crop_area_min": 0.8,
            "crop_aspect_max": 4 / 3,
            "symmetry": "none",
            "color_jitter": 0.0,
            "trivial_augment": False,
            "mixup": 0.0,
            "cutmix": 0.0,
            "drop_path": 0.0,
            "batch_norm": "trained",
        }
        unknown = set(recipe) - set(start)
        assert not unknown, unknown
        if freeze == 1.0:
            return probe_config(backbone, resolution)
        return TrialConfig(
            backbone=backbone, resolution=resolution, freeze=freeze, recipe=Recipe(**{**start, **recipe})
        )

    return make


@pytest.fixture(scope="session")
def make_setup() -> Callable[..., Setup]:
    """Return a function that makes a setup: the CPU, float32, random weights, no activations kept, unless told."""
    import torch

    from spine_ray.core.network import Setup

    def make(**changes: object) -> Setup:
        plain = {"device": torch.device("cpu"), "arithmetic": FLOAT32, "weights": None, "activation_bytes": 0}
        return Setup(**{**plain, **changes})

    return make


@pytest.fixture(scope="session")
def make_network(make_setup: Callable[..., Setup]) -> Callable[..., Network]:
    """Return a function that makes the network of a configuration for a task; keywords are the setup's."""
    from spine_ray.core.network import Network

    def make(config: TrialConfig, task: Task, **changes: object) -> Network:
        return Network(config, task.classes, task.seed, make_setup(**changes))

    return make


@pytest.fixture(scope="session")
def make_fit(make_network: Callable[..., Network]) -> Callable[..., Fit]:
    """Return a function that makes a fit on some rows, of a network of its own unless one is given."""
    from spine_ray.core.activations import open_inputs
    from spine_ray.core.fit import Fit

    def make(
        config: TrialConfig, task: Task, rows: Rows, part: int | str = 0, *, network: Network | None = None
    ) -> Fit:
        used = network or make_network(config, task)
        inputs = open_inputs(config.training, used, task, np.arange(len(task.labels)))
        return Fit(config.training, task, rows, part, used.learner(config.recipe.batch_size), inputs)

    return make


@dataclass(frozen=True)
class ShippedStudy:
    """A small study whose ensemble is fitted, and what its members say of the test split."""

    root: Path
    pictures: Path
    """The test split's pictures, in class folders."""
    labels: Path
    """Their labels, as `--labels` wants them."""
    names: tuple[str, ...]
    """The pictures' paths, in the order of `log_probs`."""
    truth: np.ndarray
    log_probs: np.ndarray
    """Of the ensemble, as a search scores it."""


@pytest.fixture(scope="session")
def shipped_study(tmp_path_factory: pytest.TempPathFactory, trial_config: Callable[..., TrialConfig]) -> ShippedStudy:
    """Return a study of four members of three families, two with one frozen prefix, one a probe, at two resolutions."""
    from tests.support.small_study import make_study

    configs = [
        trial_config("test_resnet", freeze=0.5),
        trial_config("test_resnet", freeze=0.5, lr=4e-3),
        trial_config("test_vit", resolution=48, lr=1e-3),
        trial_config("test_efficientnet", resolution=48, freeze=1.0),
    ]
    return ShippedStudy(**make_study(tmp_path_factory.mktemp("shipped"), configs))


@pytest.fixture(scope="module")
def tiny_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny space, its pictures as a folder and as a Parquet; for a module's own searches."""
    from tests.support.tiny_search import TINY, write_parquet, write_pictures

    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(TINY)
    write_pictures(folder / "pictures")
    write_parquet(folder / "pictures", folder / "pictures.parquet")
    return folder


@pytest.fixture(scope="session")
def one_ray_worker() -> Iterator[RayPool]:
    """Start Ray with one worker on the one core that there is here, for all tests that need no more of it."""
    from spine_ray.tune.ray_pool import ray_pool
    from spine_ray.workers.request import WorkerRequest

    with ray_pool(None, WorkerRequest(1)) as pool:
        yield pool


@pytest.fixture(scope="session")
def object_store() -> Iterator[ObjectStore]:
    """Start an S3-compatible server on loopback, with the environment that its clients need."""
    from tests.support.object_store import ObjectStore

    store = ObjectStore()
    store.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store
    store.stop()
