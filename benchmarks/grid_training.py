"""How a process trains the configurations of the stored grid: real trials, watched from outside."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.grid_sets import SEED
from benchmarks.grid_store import (
    NONE,
    Curve,
    Key,
    Plain,
    Step,
    Tried,
    is_stored,
    key_of,
    plain_file,
    write_plain,
    write_tried,
)
from benchmarks.selector import Seconds
from spine_ray.core.activations import open_inputs
from spine_ray.core.cache import cache_budget
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import Inputs
from spine_ray.core.network import Learner, Network, Setup
from spine_ray.core.pixels import open_pixels
from spine_ray.core.score import logits_of
from spine_ray.core.task import Task
from spine_ray.core.trial import TrialRun
from spine_ray.core.views import image_keys
from spine_ray.data.samples import Samples
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.study.tables import read_samples

ROOM = 4
"""One prefix may take one part of so many of the cache, as in a search."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Configurations that differ in their rate alone, so that only the first of them finds a cold cache."""

    tier: str
    configs: tuple[TrialConfig, ...]

    @property
    def key(self) -> Key:
        """Backbone, resolution and freeze depth."""
        return key_of(self.configs[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a process needs to know to train a group."""

    folder: Path
    """`FOLDER/SET`."""
    pixels: Path
    weights: Path
    """A folder of safetensors files, one a backbone."""
    arithmetic: tuple[tuple[str, Arithmetic], ...]
    """(backbone, what it is computed in)."""

    def setup(self, backbone: str, room: int) -> Setup:
        """Return what a backbone is computed with."""
        return Setup(
            device=torch.device("cpu"),
            arithmetic=dict(self.arithmetic)[backbone],
            weights=self.weights / f"{backbone}.safetensors",
            activation_bytes=room,
        )


@dataclass(frozen=True, slots=True)
class Passed:
    """What went through a prefix so far."""

    seconds: Seconds
    images: int


class WatchedNetwork(Network):
    """A network that remembers what it handed out last, and what went through its prefix."""

    handed: tuple[Learner, ...] = ()
    passed = Passed(NONE, 0)

    def learner(self, batch_size: int) -> Learner:
        """Return the model to train, and remember it."""
        made = super().learner(batch_size)
        self.handed = (made,)
        return made

    def activations(self, pictures: Tensor) -> Tensor:
        """Return the prefix's activations, and count them."""
        found, took = timed(lambda: super(WatchedNetwork, self).activations(pictures))
        self.passed = Passed(self.passed.seconds + took, self.passed.images + len(pictures))
        return found


def timed(run: Callable[[], Result]) -> tuple[Result, Seconds]:
    """Call a function; return what it returns, and its time on the wall and of this process's CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    return result, Seconds(time.perf_counter() - wall, time.process_time() - cpu)


@lru_cache(maxsize=1)
def open_task(folder: Path, pixels: Path) -> tuple[Samples, Task]:
    """Open a set's rows in this process, one thread of it."""
    torch.set_num_threads(1)
    samples = read_samples(folder / "samples.parquet")
    task = Task(
        pixels=open_pixels(pixels),
        keys=image_keys(samples.sample_ids, SEED),
        labels=samples.labels,
        classes=len(samples.classes),
        seed=SEED,
    )
    return samples, task


def train_group(order: Order, group: Group) -> str:
    """Train and store what is missing of a group, and return a line about it."""
    missing = [config for config in group.configs if not is_stored(order.folder, config)]
    _, took = timed(lambda: _train(order, group, missing))
    told = {"group": group.key, "trained": len(missing), "wall_s": round(took.wall, 1), "cpu_s": round(took.cpu, 1)}
    return json.dumps(told)


def _train(order: Order, group: Group, missing: list[TrialConfig]) -> None:
    samples, task = open_task(order.folder, order.pixels)
    backbone = group.key[0]
    if missing:
        setup = order.setup(backbone, cache_budget() // ROOM)
        network, took = timed(lambda: WatchedNetwork(missing[0], task.classes, SEED, setup))
        unseen = open_inputs(missing[0].training, network, task, samples.test)
        for config in missing:
            curve, oof, fresh = trained(config, samples, task, network, unseen)
            curve = Curve(steps=curve.steps, network=took, start=curve.start)
            write_tried(order.folder, Tried(config=config, tier=group.tier, curve=curve, oof=oof, fresh=fresh))
            took = NONE  # the others of the group have it for nothing, as from a warm worker
    if not plain_file(order.folder, group.key).exists():
        plain = plain_cost(group.configs[0], samples, task, order.setup(backbone, 0))
        write_plain(order.folder, group.key, plain)


def trained(
    config: TrialConfig, samples: Samples, task: Task, network: WatchedNetwork, unseen: Inputs
) -> tuple[Curve, npt.NDArray[np.float32], npt.NDArray[np.float16]]:
    """Train a configuration to its end.

    Args:
        config: What to train.
        samples: The rows.
        task: What is learnt.
        network: The configuration's model.
        unseen: The fresh rows, for the trained part.

    Returns:
        Its curve, its OOF logits on the dev rows, and each fold's logits on the fresh rows.
    """
    run, start = timed(lambda: TrialRun(config, task, samples.folds, network, samples.num_folds))
    fresh: dict[int, npt.NDArray[np.float32]] = {}
    steps = []
    while not run.is_done:
        step = _step(run, network)
        steps.append(step)
        if step.record.epoch < config.training.epochs:
            continue
        fresh[step.record.fold] = logits_of(network.handed[0].part, unseen, samples.test, network.setup)
    stacked = np.stack([fresh[fold] for fold in range(samples.num_folds)]).astype(np.float16)
    return Curve(steps=tuple(steps), network=NONE, start=start), run.oof_logits()[samples.dev], stacked


def _step(run: TrialRun, network: WatchedNetwork) -> Step:
    before = network.passed
    record, took = timed(run.next_epoch)
    after = network.passed
    through = Seconds(after.seconds.wall - before.seconds.wall, after.seconds.cpu - before.seconds.cpu)
    return Step(record=record, cpu=took.cpu, prefix=through, prefix_images=after.images - before.images)


def plain_cost(config: TrialConfig, samples: Samples, task: Task, setup: Setup) -> Plain:
    """Measure one epoch of fold 0, and one scoring of its held-out rows, with no activations kept."""
    network = Network(config, task.classes, SEED, setup)
    rows, held_out = samples.training(0), samples.held_out(0)
    inputs = open_inputs(config.training, network, task, samples.dev)
    fit = Fit(config.training, task, rows, 0, network.learner(config.training.batch_size), inputs)
    result, train = timed(lambda: fit.train_epoch(0))
    _, score = timed(lambda: fit.logits(held_out))
    return Plain(train=train, score=score, train_images=result.images, score_images=len(held_out))
