"""The fixed training core: one model, some training rows, epoch after epoch. Backbones change, this does not."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spine_ray.core.backbone import make_model, normalisation_of
from spine_ray.core.freeze import freeze_backbone, train_mode
from spine_ray.core.pixels import PixelFile
from spine_ray.core.schedule import learning_rate_factor, make_optimizer, set_learning_rate
from spine_ray.core.score import Rows, logits_of, model_input, precision
from spine_ray.core.seeds import derive_seed
from spine_ray.core.views import Augmentation, render, training_boxes
from spine_ray.space.config import TrialConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What is learnt: the same for every trial of a study."""

    pixels: PixelFile
    keys: npt.NDArray[np.uint64]
    """(images,) of `image_keys`."""
    labels: npt.NDArray[np.int64]
    """(images,) class indices."""
    classes: int
    seed: int


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch of training did."""

    train_loss: float
    """Mean training loss, with smoothing and weights; lower is better."""
    images: int
    seconds: float


class Fit:
    """One model on one set of training rows.

    Everything random is a function of (seed, part, epoch): order and views are the same for every backbone.

    Args:
        config: The trial's configuration.
        task: What is learnt.
        rows: The training rows.
        part: Names the rows, for the seeds: a fold's number, or `refit`.
        weights: A safetensors file; None = random initialisation.
        device: Where to train.
    """

    def __init__(
        self,
        config: TrialConfig,
        task: Task,
        rows: Rows,
        part: int | str,
        weights: Path | None,
        device: torch.device,
    ) -> None:
        """Build the model, freeze it and make its optimizer."""
        self._config, self._task, self._rows, self._part, self._device = config, task, rows, part, device
        recipe = config.recipe
        torch.manual_seed(derive_seed(task.seed, "initialise", part))
        model = make_model(
            config.backbone,
            config.resolution,
            task.classes,
            drop_path=recipe.drop_path,
            weights=weights,
        )
        freeze_backbone(model, config.freeze)
        self.model: nn.Module = model.to(device).to(memory_format=torch.channels_last)
        self._normalisation = normalisation_of(config.backbone)
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._optimizer = make_optimizer(self.model, recipe, device)
        self._batch_size = min(recipe.batch_size, len(rows))
        self._steps_an_epoch = len(rows) // self._batch_size
        self._class_weights = _class_weights(task, rows).to(device) if recipe.class_weighting == "balanced" else None

    def train_epoch(self, epoch: int) -> EpochResult:
        """Train one epoch, from 0, on view `epoch` of every image; the last partial batch is left out."""
        seed = derive_seed(self._task.seed, "epoch", self._part, epoch)
        torch.manual_seed(seed)
        order = np.random.default_rng(seed).permutation(self._rows)
        train_mode(self.model)
        began, losses = time.perf_counter(), []
        for step in range(self._steps_an_epoch):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            losses.append(self._train_step(batch, epoch, epoch * self._steps_an_epoch + step))
        mean = float(torch.stack(losses).mean())
        return EpochResult(mean, self._steps_an_epoch * self._batch_size, time.perf_counter() - began)

    def logits(self, rows: Rows) -> npt.NDArray[np.float32]:
        """Return the model's logits on the scoring view of some rows, (rows, classes)."""
        return logits_of(self.model, self._config, self._task.pixels, rows, self._device)

    def _train_step(self, batch: Rows, view: int, step: int) -> Tensor:
        recipe = self._config.recipe
        augmentation = Augmentation(crop_area_min=recipe.crop_area_min, flip=recipe.flip)
        boxes = training_boxes(self._task.keys[batch], view, augmentation)
        pictures = render(self._task.pixels, batch, boxes, self._config.resolution)
        labels = torch.from_numpy(self._task.labels[batch]).to(self._device)
        steps = recipe.epochs * self._steps_an_epoch
        set_learning_rate(self._optimizer, learning_rate_factor(step, steps, recipe.warmup_share))
        self._optimizer.zero_grad(set_to_none=True)
        with precision(self._device):
            logits = self.model(model_input(pictures, self._normalisation, self._device))
            loss = cross_entropy(logits, labels, weight=self._class_weights, label_smoothing=recipe.label_smoothing)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self._trained, recipe.clip_norm)
        self._optimizer.step()
        return loss.detach()


def _class_weights(task: Task, rows: Rows) -> Tensor:
    """Return rows / (classes * rows of the class), (classes,): every class has the same say."""
    counts = np.bincount(task.labels[rows], minlength=task.classes)
    return torch.tensor(len(rows) / (task.classes * np.maximum(counts, 1)), dtype=torch.float32)
