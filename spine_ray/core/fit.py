"""The fixed training core: one model, some training rows, epoch after epoch. Backbones change, this does not."""

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spine_ray.core.arithmetic import autocast, float32_products, make_scaler
from spine_ray.core.arrays import Arrays, as_arrays, part_of, put_back
from spine_ray.core.freeze import train_mode, trained_tensors, trains_batch_norm
from spine_ray.core.inputs import Inputs
from spine_ray.core.memory import Portion
from spine_ray.core.mixing import mixed, weight_of
from spine_ray.core.network import Learner
from spine_ray.core.schedule import (
    learning_rate_factor,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    restore_scaler,
    scaler_arrays,
    set_learning_rate,
)
from spine_ray.core.score import logits_of
from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Rows, Task
from spine_ray.space.config import Recipe

_MODEL, _OPTIMIZER = "model.", "optimizer."
"""Where the tensors of each are named in a state."""


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch of training did."""

    train_loss: float
    """Mean training loss, with smoothing and weights; lower is better."""
    images: int
    seconds: float


class Fit:
    """One model on one set of training rows, from its initial weights.

    Everything random is a function of (seed, part, epoch): order and views are the same for every backbone.

    Args:
        recipe: How to train.
        task: What is learnt.
        rows: The training rows.
        part: Names the rows, for the seeds: a fold's number, or `refit`.
        learner: What is trained, in its initial weights.
        inputs: What it is fed with.
    """

    def __init__(
        self, recipe: Recipe, task: Task, rows: Rows, part: int | str, learner: Learner, inputs: Inputs
    ) -> None:
        """Make the optimizer."""
        self._recipe, self._task, self._rows, self._part = recipe, task, rows, part
        self._learner, self._inputs, self._device = learner, inputs, learner.setup.device
        self._trained = [parameter for parameter in learner.model.parameters() if parameter.requires_grad]
        self._optimizer = make_optimizer(learner.model, learner.head, recipe)
        self._scaler = make_scaler(learner.setup.arithmetic, learner.setup.device)
        self._batch_size = min(recipe.batch_size, len(rows))
        self._steps_an_epoch = len(rows) // self._batch_size
        self._class_weights = (
            task.class_weights(rows).to(self._device) if recipe.class_weighting == "balanced" else None
        )

    @property
    def at_once(self) -> Portion:
        """What goes through the model at once, the batch size at most."""
        return self._learner.at_once

    @property
    def micro_batch(self) -> int:
        """Rows that go through the model at once: the batch, or what memory allows of it."""
        return min(self._learner.at_once.rows, self._batch_size)

    @property
    def note(self) -> str:
        """What memory forced, or empty."""
        if self.micro_batch == self._batch_size:
            return ""
        told = f"out of memory: gradients of {self.micro_batch} rows at a time, accumulated to {self._batch_size}"
        other = "; its batch-norm saw fewer rows at once, which is another training"
        return told + (other if trains_batch_norm(self._learner.model) else "")

    def train_epoch(self, epoch: int) -> EpochResult:
        """Train one epoch, from 0, on view `epoch` of every image; the last partial batch is left out."""
        seed = derive_seed(self._task.seed, "epoch", self._part, epoch)
        torch.manual_seed(seed)
        order = np.random.default_rng(seed).permutation(self._rows)
        train_mode(self._learner.model)
        began, losses = time.perf_counter(), []
        for step in range(self._steps_an_epoch):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            inputs = self._inputs.training(batch, epoch)
            losses.append(self._train_step(inputs, batch, epoch * self._steps_an_epoch + step))
        mean = float(torch.stack(losses).mean())
        return EpochResult(mean, self._steps_an_epoch * self._batch_size, time.perf_counter() - began)

    def logits(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the model's logits on the scoring view of some rows, (rows, classes)."""
        self._learner.model.eval()
        return logits_of(self._learner.part, self._inputs, rows, self._learner.setup)

    def state(self) -> Arrays:
        """Return all that its epochs have changed: the trained tensors and the optimizer's memory.

        Nothing else is needed to go on: order, views, dropout and learning rate follow from (seed, part, epoch).
        """
        tensors = {f"{_MODEL}{name}": tensor for name, tensor in trained_tensors(self._learner.model).items()}
        memory = {f"{_OPTIMIZER}{name}": tensor for name, tensor in optimizer_tensors(self._optimizer).items()}
        return as_arrays(tensors | memory) | scaler_arrays(self._scaler)

    def restore(self, state: Arrays) -> None:
        """Become what another fit of the same rows was when it returned its state.

        Raises:
            ValueError: If the state is that of another model.
        """
        put_back(part_of(state, _MODEL), trained_tensors(self._learner.model))
        restore_optimizer(self._optimizer, part_of(state, _OPTIMIZER))
        restore_scaler(self._scaler, state)

    def _train_step(self, inputs: Tensor, batch: Rows, step: int) -> Tensor:
        labels = torch.from_numpy(self._task.labels[batch]).to(self._device)
        inputs, targets = mixed(inputs, labels, self._recipe, self._task.classes)
        steps = self._recipe.epochs * self._steps_an_epoch
        set_learning_rate(self._optimizer, learning_rate_factor(step, steps, self._recipe.warmup_share))
        loss = self._learner.at_once.run(lambda rows: self._gradients(inputs, targets, rows))
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(self._trained, self._recipe.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return loss

    def _gradients(self, inputs: Tensor, targets: Tensor, at_once: int) -> Tensor:
        """Leave the gradients of the batch's mean loss, some rows at a time, and return that loss.

        Args:
            inputs: (rows, ...).
            targets: (rows,) class indices, or (rows, classes) shares of classes.
            at_once: Rows that go through the model at once.
        """
        self._optimizer.zero_grad(set_to_none=True)
        setup, weights = self._learner.setup, self._class_weights
        whole = float(len(targets)) if weights is None else weight_of(targets, weights).sum()
        parts = math.ceil(len(targets) / at_once)
        total = torch.zeros((), device=self._device)
        for part, truth in zip(inputs.tensor_split(parts), targets.tensor_split(parts), strict=True):
            with autocast(setup.arithmetic, setup.device):
                logits = self._learner.part(part)
            smoothing = self._recipe.label_smoothing
            losses = cross_entropy(logits.float(), truth, weights, label_smoothing=smoothing, reduction="sum")
            loss = losses / whole
            with float32_products(setup.arithmetic, setup.device):
                torch.autograd.backward(self._scaler.scale(loss))
            total += loss.detach()
        return total
