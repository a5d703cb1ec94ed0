"""How a process trains the configurations of the stored grid: real trials, watched from outside."""

import json
import time
from collections.abc import Callable, Mapping
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
from spine_ray.core.features import scoring_features
from spine_ray.core.fit import Fit
from spine_ray.core.linear_head import LinearHead
from spine_ray.core.network import Learner, Network, Setup
from spine_ray.core.pixels import open_pixels
from spine_ray.core.probe import ProbeRun, solve_head
from spine_ray.core.score import logits_of
from spine_ray.core.task import Task
from spine_ray.core.trial import TrialRun
from spine_ray.core.views import image_keys, render, scoring_boxes
from spine_ray.data.samples import Samples
from spine_ray.space.arithmetic import FLOAT32, Arithmetic
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.study.tables import read_samples

ROOM = 4
"""One prefix may take one part of so many of the cache, as in a search."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A probe, or fine-tunes that differ in their rate alone, so that only the first of them finds a cold cache."""

    tier: str
    configs: tuple[TrialConfig, ...]

    @property
    def key(self) -> Key:
        """Backbone, resolution and freeze depth."""
        return key_of(self.configs[0])

    @property
    def is_probe(self) -> bool:
        """Whether it is a probe."""
        return self.configs[0].is_probe


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What a process needs to know to train a group."""

    folder: Path
    """`FOLDER/SET`."""
    pixels: Path
    weights: Path
    """A folder of safetensors files, one a backbone."""
    arithmetic: tuple[tuple[str, Arithmetic], ...]
    """(backbone, what its fine-tunes are computed in)."""

    def setup(self, config: TrialConfig, room: int) -> Setup:
        """Return what a configuration is computed with."""
        return Setup(
            device=torch.device("cpu"),
            arithmetic=FLOAT32 if config.is_probe else dict(self.arithmetic)[config.backbone],
            weights=self.weights / f"{config.backbone}.safetensors",
            activation_bytes=room,
        )


@dataclass(frozen=True, slots=True)
class Passed:
    """What went through a prefix, or through all of a backbone, so far."""

    seconds: Seconds
    images: int


class WatchedNetwork(Network):
    """A network that remembers what it handed out last, and what went through its frozen part."""

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

    def features(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the features of pictures, and count them."""
        found, took = timed(lambda: super(WatchedNetwork, self).features(pictures))
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
        groups=samples.groups,
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
    (samples, task), first = open_task(order.folder, order.pixels), group.configs[0]
    if missing:
        heads = {} if group.is_probe else solved_heads(order, first)
        setup = order.setup(first, cache_budget() // ROOM)
        network, took = timed(lambda: WatchedNetwork(first, task.classes, SEED, setup))
        for config in missing:
            if config.is_probe:
                curve, oof, fresh = probed(samples, task, network)
            else:
                curve, oof, fresh = trained(config, samples, task, network, heads)
            curve = Curve(steps=curve.steps, network=took, start=curve.start)
            write_tried(order.folder, Tried(config=config, tier=group.tier, curve=curve, oof=oof, fresh=fresh))
            took = NONE  # the others of the group have it for nothing, as from a warm worker
    if not plain_file(order.folder, group.key).exists():
        whole = Network(first, task.classes, SEED, order.setup(first, 0))
        measure = plain_probe_cost if group.is_probe else plain_cost
        write_plain(order.folder, group.key, measure(first, samples, task, whole))


def solved_heads(order: Order, config: TrialConfig) -> Mapping[int, LinearHead]:
    """Return the heads with which the folds of a fine-tune begin, as a search has them from the backbone's probe."""
    samples, task = open_task(order.folder, order.pixels)
    probe = probe_config(config.backbone, config.resolution)
    network = Network(probe, task.classes, SEED, order.setup(probe, 0))
    run = ProbeRun(task, samples.folds, network, samples.num_folds)
    run.next_epoch()
    return run.heads


def probed(
    samples: Samples, task: Task, network: WatchedNetwork
) -> tuple[Curve, npt.NDArray[np.float32], npt.NDArray[np.float16]]:
    """Make a probe; returns what `trained` does."""
    run, start = timed(lambda: ProbeRun(task, samples.folds, network, samples.num_folds))
    step = _step(run, network)
    features = scoring_features(network, task, samples.test).values
    fresh = np.stack([run.heads[fold].logits(features) for fold in range(samples.num_folds)]).astype(np.float16)
    return Curve(steps=(step,), network=NONE, start=start), run.oof_logits()[samples.dev], fresh


def trained(
    config: TrialConfig, samples: Samples, task: Task, network: WatchedNetwork, heads: Mapping[int, LinearHead]
) -> tuple[Curve, npt.NDArray[np.float32], npt.NDArray[np.float16]]:
    """Train a fine-tune to its end.

    Args:
        config: What to train.
        samples: The rows.
        task: What is learnt.
        network: The configuration's model.
        heads: With which its folds begin.

    Returns:
        Its curve, its OOF logits on the dev rows, and each fold's logits on the fresh rows.
    """
    run, start = timed(lambda: TrialRun(config, task, samples.folds, network, samples.num_folds, heads))
    unseen = open_inputs(config.training, network, task, samples.test)
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


def _step(run: TrialRun | ProbeRun, network: WatchedNetwork) -> Step:
    before = network.passed
    record, took = timed(run.next_epoch)
    after = network.passed
    through = Seconds(after.seconds.wall - before.seconds.wall, after.seconds.cpu - before.seconds.cpu)
    return Step(record=record, cpu=took.cpu, prefix=through, prefix_images=after.images - before.images)


def plain_cost(config: TrialConfig, samples: Samples, task: Task, network: Network) -> Plain:
    """Measure one epoch of fold 0, and one scoring of its held-out rows, with no activations kept."""
    rows, held_out = samples.training(0), samples.held_out(0)
    inputs = open_inputs(config.training, network, task, samples.dev)
    fit = Fit(config.training, task, rows, 0, network.learner(config.training.batch_size), inputs)
    result, train = timed(lambda: fit.train_epoch(0))
    _, score = timed(lambda: fit.logits(held_out))
    return Plain(train=train, score=score, train_images=result.images, score_images=len(held_out))


def plain_probe_cost(config: TrialConfig, samples: Samples, task: Task, network: Network) -> Plain:
    """Measure the head of fold 0, and one scoring of its held-out rows, with no features kept."""

    def features(of: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return network.features(render(task.pixels, of, scoring_boxes(len(of)), config.resolution).numpy())

    rows, held_out = samples.training(0), samples.held_out(0)
    head, train = timed(lambda: solve_head(features(rows), task, rows, network))
    _, score = timed(lambda: head.logits(features(held_out)))
    return Plain(train=train, score=score, train_images=len(rows), score_images=len(held_out))
