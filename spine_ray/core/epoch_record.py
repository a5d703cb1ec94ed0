"""What is recorded of one step of a trial, and the score of the rows that were held out so far."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss

ALL_FOLDS = -1
"""Stands for the fold in the record of a probe, which solves all folds in one step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One epoch of one fold of a fine-tune, or a whole probe, with the held-out rows scored."""

    step: int
    """Epochs so far over all folds, from 1."""
    fold: int
    """`ALL_FOLDS` for a probe."""
    epoch: int
    """Epoch in this fold, from 1."""
    train_loss: float
    log_loss: float
    """Temperature-scaled, of the held-out rows of all folds so far; lower is better."""
    accuracy: float
    """On the same rows; higher is better."""
    seconds: float
    train_images: int
    """Images trained on, counting repeats; of a probe those whose features there are."""
    train_images_s: float
    score_images_s: float
    peak_mb: float
    views: int
    """Training views there are; fewer than epochs where the activations' room on disk is short."""
    micro_batch: int
    """Rows that went through the model at once: the batch size, or what memory allowed of it."""
    note: str
    """What was not as fast, or not the same, as it should have been; empty when all was well."""


def score_oof(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return log-loss after the best temperature, nats, and accuracy; NaN and 0 where a logit is not finite.

    Args:
        logits: (rows, classes).
        labels: (rows,).
    """
    if not np.isfinite(logits).all():
        return float("nan"), 0.0
    calibrated = log_probs(logits, fit_temperature(logits, labels))
    return log_loss(calibrated, labels), accuracy(calibrated, labels)
