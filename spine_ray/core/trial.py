"""A trial's life: all epochs on fold 0, then on fold 1, and so on, always to the last epoch of each."""

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from spine_ray.core.fit import Fit, Task
from spine_ray.core.score import Rows
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.space.config import TrialConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One epoch of one fold, with that fold's held-out rows scored."""

    step: int
    """Epochs so far over all folds, from 1."""
    fold: int
    epoch: int
    """Epoch in this fold, from 1."""
    train_loss: float
    log_loss: float
    """Temperature-scaled, of the held-out rows of all folds so far; lower is better."""
    accuracy: float
    """On the same rows; higher is better."""
    seconds: float
    train_images: int
    """Images trained on, counting repeats."""
    train_images_s: float
    infer_images_s: float
    peak_mb: float


class TrialRun:
    """One configuration trained over the folds, an epoch at a time.

    Args:
        config: What to train.
        task: What is learnt.
        folds: (images,) the fold that holds a row out, -1 for rows that are in none.
        weights: A safetensors file; None = random initialisation.
        device: Where to train.
        folds_to_run: How many of the folds, from the first; all of them for a trial that is to have OOF logits.
    """

    def __init__(
        self,
        config: TrialConfig,
        task: Task,
        folds: npt.NDArray[np.int8],
        weights: Path | None,
        device: torch.device,
        folds_to_run: int,
    ) -> None:
        """Prepare; nothing is built before the first epoch."""
        self._folds_to_run = folds_to_run
        self._config, self._task, self._folds, self._weights, self._device = (
            config,
            task,
            folds,
            weights,
            device,
        )
        self._fit: Fit | None = None
        self._step = 0
        self._logits = np.full((len(folds), task.classes), np.nan, np.float32)

    @property
    def total_steps(self) -> int:
        """Epochs over the folds to run."""
        return self._config.recipe.epochs * self._folds_to_run

    @property
    def is_done(self) -> bool:
        """Whether every fold to run was trained to its last epoch."""
        return self._step == self.total_steps

    def next_epoch(self) -> EpochRecord:
        """Train and score one epoch."""
        if self.is_done:
            raise ValueError("the trial is done: all folds are trained to their last epoch")
        began = time.perf_counter()
        fold, epoch = divmod(self._step, self._config.recipe.epochs)
        held_out = np.flatnonzero(self._folds == fold)
        if epoch == 0 or self._fit is None:
            self._fit = None  # frees the last fold's model before the next is built
            self._fit = self._start_fold(fold)
        result = self._fit.train_epoch(epoch)
        scoring = time.perf_counter()
        self._logits[held_out] = self._fit.logits(held_out)
        now = time.perf_counter()
        self._step += 1
        scored = np.flatnonzero((self._folds >= 0) & (self._folds <= fold))
        loss, share = _score(self._logits[scored], self._task.labels[scored])
        return EpochRecord(
            step=self._step,
            fold=fold,
            epoch=epoch + 1,
            train_loss=result.train_loss,
            log_loss=loss,
            accuracy=share,
            seconds=now - began,
            train_images=result.images,
            train_images_s=result.images / result.seconds,
            infer_images_s=len(held_out) / (now - scoring),
            peak_mb=peak_memory_mb(self._device),
        )

    def oof_logits(self) -> npt.NDArray[np.float32]:
        """Return what the fold models said on rows they never saw, (images, classes); NaN in rows not held out.

        Raises:
            ValueError: If the trial is not done.
        """
        if not self.is_done:
            raise ValueError(f"the trial is at epoch {self._step} of {self.total_steps}: it has no OOF logits yet")
        return self._logits

    def _start_fold(self, fold: int) -> Fit:
        rows: Rows = np.flatnonzero((self._folds >= 0) & (self._folds != fold))
        return Fit(self._config, self._task, rows, fold, self._weights, self._device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory so far of the device if it is a GPU, else of this process, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return temperature-scaled log-loss and accuracy; a model that diverged has a loss of NaN."""
    if not np.isfinite(logits).all():
        return float("nan"), 0.0
    calibrated = log_probs(logits, fit_temperature(logits, labels))
    return log_loss(calibrated, labels), accuracy(calibrated, labels)
