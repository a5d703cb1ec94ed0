"""The bare side of the throughput benchmark: nothing but forward, backward and optimizer, on tensors in memory."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from threading import Barrier

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.counts import Work
from benchmarks.sides import WORKERS
from spine_ray.core.arithmetic import autocast, place_batch, place_model
from spine_ray.core.backbone import make_model
from spine_ray.core.freeze import classifier_names, freeze_untrained, train_mode
from spine_ray.core.schedule import make_optimizer
from spine_ray.core.split import split_model
from spine_ray.space.arithmetic import Arithmetic

CPU = torch.device("cpu")
SECONDS = 1.5
"""Least time that a rate is measured over."""
WARM_CALLS = 3
PREFIX_BATCH, SCORE_BATCH = 32, 128
MEETING_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds of one thread while as many others as there are workers do the same."""

    image_prefix: float
    """Of one picture through the prefix; 0 where there is none."""
    step: float
    """Of one optimizer step of the suffix."""
    image_scored: float
    """Of one picture through the suffix."""

    def seconds(self, work: Work) -> float:
        """Return how long one thread takes for all of the work."""
        return work.prefix_images * self.image_prefix + work.steps * self.step + work.scored_images * self.image_scored

    def images_s(self, work: Work) -> float:
        """Return the training images a second of one thread."""
        return work.example.training.batch_size / self.step


def run_bare(works: Sequence[Work], arithmetic: Mapping[str, Arithmetic]) -> tuple[Times, ...]:
    """Time each work in as many one-thread processes at once as there are workers, and return the means."""
    context = get_context("spawn")
    jobs = [(work, arithmetic[work.example.backbone]) for work in works]
    with context.Manager() as manager, ProcessPoolExecutor(WORKERS, context) as pool:
        # A worker waits for the others before each work, so none can take two of the lists.
        meeting = manager.Barrier(WORKERS, timeout=MEETING_SECONDS)
        lists = list(pool.map(_time_all, [jobs] * WORKERS, [meeting] * WORKERS))
    return tuple(_mean(parts) for parts in zip(*lists, strict=True))


def time_work(work: Work, arithmetic: Arithmetic) -> Times:
    """Time prefix, training step and scoring of one backbone and freeze depth in this process."""
    config, recipe = work.example, work.example.training
    model = make_model(config.backbone, config.resolution, work.classes, drop_path=recipe.drop_path)
    is_cut = bool(freeze_untrained(model, config))
    model = place_model(model, arithmetic, CPU)
    images = torch.randn(max(PREFIX_BATCH, SCORE_BATCH, recipe.batch_size), 3, config.resolution, config.resolution)
    suffix, batch, image_prefix = model, images, 0.0
    if is_cut:
        split = split_model(model)
        suffix = split.suffix
        model.eval()
        batch = _forward(split.prefix, images, arithmetic).float()
        few = place_batch(images[:PREFIX_BATCH], arithmetic)
        image_prefix = seconds_per_call(lambda: _forward(split.prefix, few, arithmetic)) / PREFIX_BATCH
    train_mode(model)
    step = seconds_per_call(_step_of(model, suffix, batch[: recipe.batch_size], work, arithmetic))
    model.eval()
    scored = place_batch(batch[:SCORE_BATCH], arithmetic)
    image_scored = seconds_per_call(lambda: _forward(suffix, scored, arithmetic)) / SCORE_BATCH
    return Times(image_prefix=image_prefix, step=step, image_scored=image_scored)


def seconds_per_call(call: Callable[[], object]) -> float:
    """Call until `SECONDS` have passed and return the mean."""
    for _ in range(WARM_CALLS):
        call()
    calls, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < SECONDS:
        call()
        calls += 1
    return passed / calls


def _forward(part: nn.Module, batch: Tensor, arithmetic: Arithmetic) -> Tensor:
    with torch.no_grad(), autocast(arithmetic, CPU):
        output: Tensor = part(place_batch(batch, arithmetic))
    return output


def _step_of(
    model: nn.Module, suffix: nn.Module, batch: Tensor, work: Work, arithmetic: Arithmetic
) -> Callable[[], None]:
    """Return a whole optimizer step of the suffix, which shares its parameters with the model."""
    recipe = work.example.training
    optimizer = make_optimizer(model, frozenset(classifier_names(model)), recipe)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    inputs = place_batch(batch, arithmetic)
    labels = torch.arange(len(batch)) % work.classes

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(arithmetic, CPU):
            loss = cross_entropy(suffix(inputs), labels, label_smoothing=recipe.label_smoothing)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
        optimizer.step()

    return step


def _time_all(jobs: Sequence[tuple[Work, Arithmetic]], meeting: Barrier) -> list[Times]:
    torch.set_num_threads(1)
    times = []
    for work, arithmetic in jobs:
        meeting.wait()
        times.append(time_work(work, arithmetic))
    return times


def _mean(parts: Sequence[Times]) -> Times:
    return Times(
        image_prefix=sum(part.image_prefix for part in parts) / len(parts),
        step=sum(part.step for part in parts) / len(parts),
        image_scored=sum(part.image_scored for part in parts) / len(parts),
    )
