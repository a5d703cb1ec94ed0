"""A trial's life: all epochs on fold 0, then on fold 1, and so on, always to the last epoch of each."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spine_ray.core.activations import open_inputs
from spine_ray.core.arrays import Arrays, part_of
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import InMemory
from spine_ray.core.memory import forget_peak, peak_memory_mb
from spine_ray.core.network import Network
from spine_ray.core.task import Rows, Task
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.space.config import TrialConfig

_LOGITS, _AT_ONCE = "logits", "rows_at_once"
ALL_FOLDS = -1
"""Stands for the fold where all are trained at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochRecord:
    """One epoch of one fold, or of all folds at once, with the held-out rows scored."""

    step: int
    """Epochs so far over all folds, from 1."""
    fold: int
    """-1 where all folds are trained at once."""
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
    score_images_s: float
    peak_mb: float
    views: int
    """Training views there are; fewer than epochs where the activations' room on disk is short."""
    micro_batch: int
    """Rows that went through the model at once: the batch size, or what memory allowed of it."""
    note: str
    """What was not as fast, or not the same, as it should have been; empty when all was well."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """Folds that are trained for one epoch, one after the other."""

    folds: tuple[int, ...]
    epoch: int


class TrialRun:
    """One configuration trained over the folds, an epoch at a time.

    Where all that is trained is one linear layer on a frozen prefix, every epoch is that of all folds: the features are
    read once for all of them.

    Args:
        config: What to train.
        task: What is learnt.
        folds: (images,) the fold that holds a row out, -1 for rows that are in none.
        network: The configuration's model.
        folds_to_run: How many of the folds, from the first; all of them for a trial that is to have OOF logits.
    """

    def __init__(
        self, config: TrialConfig, task: Task, folds: npt.NDArray[np.int8], network: Network, folds_to_run: int
    ) -> None:
        """Prepare; nothing is trained before the first epoch."""
        self._config, self._task, self._folds, self._network = config, task, folds, network
        rows = np.flatnonzero(folds >= 0)
        inputs = open_inputs(config.recipe, network, task, rows)
        self._inputs = InMemory(inputs, rows) if network.trains_one_layer else inputs
        self._turns = _turns(config.recipe.epochs, folds_to_run, at_once=network.trains_one_layer)
        self._turn = 0
        self._fits: dict[int, Fit] = {}
        self._logits = np.full((len(folds), task.classes), np.nan, np.float32)
        forget_peak(network.setup.device)

    @property
    def is_done(self) -> bool:
        """Whether every fold to run was trained to its last epoch."""
        return self._turn == len(self._turns)

    def next_epoch(self) -> EpochRecord:
        """Train and score one epoch."""
        if self.is_done:
            raise ValueError("the trial is done: all folds are trained to their last epoch")
        began, turn = time.perf_counter(), self._turns[self._turn]
        if turn.epoch == 0:
            self._fits = self._begin(turn.folds)
        results = [self._fits[fold].train_epoch(turn.epoch) for fold in turn.folds]
        scoring = time.perf_counter()
        held_out = [np.flatnonzero(self._folds == fold) for fold in turn.folds]
        for fold, rows in zip(turn.folds, held_out, strict=True):
            self._logits[rows] = self._fits[fold].logits(rows)
        now = time.perf_counter()
        self._turn += 1
        loss, share = self._score(last_fold=turn.folds[-1])
        images = sum(result.images for result in results)
        return EpochRecord(
            step=sum(len(each.folds) for each in self._turns[: self._turn]),
            fold=turn.folds[0] if len(turn.folds) == 1 else ALL_FOLDS,
            epoch=turn.epoch + 1,
            train_loss=float(np.mean([result.train_loss for result in results])),
            log_loss=loss,
            accuracy=share,
            seconds=now - began,
            train_images=images,
            train_images_s=images / sum(result.seconds for result in results),
            score_images_s=sum(map(len, held_out)) / (now - scoring),
            peak_mb=peak_memory_mb(self._network.setup.device),
            views=self._inputs.views,
            micro_batch=min(self._fits[fold].micro_batch for fold in turn.folds),
            note="; ".join(dict.fromkeys(filter(None, (self._inputs.note, *self._notes())))),
        )

    @property
    def turns_done(self) -> int:
        """How many epochs were trained, an epoch of all folds at once counted once."""
        return self._turn

    def state(self) -> Arrays:
        """Return what is needed to go on from here in another process: OOF logits so far, the running fold's fit.

        Between two folds there is no fit: the next one begins with the initial weights.
        """
        arrays: Arrays = {_LOGITS: self._logits}
        if self._fits:
            arrays[_AT_ONCE] = np.array([fit.at_once.rows for fit in self._fits.values()], np.int64)
        if not self.is_done and self._turns[self._turn].epoch > 0:
            for fold, fit in self._fits.items():
                arrays |= {f"{fold}.{name}": array for name, array in fit.state().items()}
        return arrays

    def resume(self, turns_done: int, state: Arrays) -> None:
        """Go on where another run of the same configuration stood when it returned its state; to the same bits.

        Args:
            turns_done: How many epochs that one had trained, at least 1.
            state: What it returned.

        Raises:
            ValueError: If the state is not one of this configuration on these rows; begin with a new run then.
        """
        if not 1 <= turns_done <= len(self._turns):
            raise ValueError(f"a trial of {len(self._turns)} epochs cannot have done {turns_done}")
        logits, at_once = state.get(_LOGITS), state.get(_AT_ONCE)
        if logits is None or at_once is None or logits.shape != self._logits.shape:
            raise ValueError("the OOF logits so far are not those of these rows")
        self._logits[:] = logits
        self._turn = turns_done
        last = self._turns[turns_done - 1]
        if len(at_once) != len(last.folds):
            raise ValueError(f"{len(at_once)} folds were trained at once, not {len(last.folds)}")
        self._fits = self._begin(last.folds)
        for fit, rows in zip(self._fits.values(), at_once, strict=True):
            fit.at_once.rows = int(rows)
        if not self.is_done and self._turns[self._turn].epoch > 0:
            for fold, fit in self._fits.items():
                fit.restore(part_of(state, f"{fold}."))

    def oof_logits(self) -> npt.NDArray[np.float32]:
        """Return what the fold models said on rows they never saw, (images, classes); NaN in rows not held out.

        Raises:
            ValueError: If the trial is not done.
        """
        if not self.is_done:
            raise ValueError(f"the trial did {self._turn} of {len(self._turns)} epochs: it has no OOF logits yet")
        return self._logits

    def _begin(self, folds: tuple[int, ...]) -> dict[int, Fit]:
        batch_size = self._config.recipe.batch_size
        if self._network.trains_one_layer:
            learners = self._network.heads(len(folds), batch_size)
        else:
            learners = (self._network.learner(batch_size),)
        fits = {}
        for fold, learner in zip(folds, learners, strict=True):
            rows: Rows = np.flatnonzero((self._folds >= 0) & (self._folds != fold))
            fits[fold] = Fit(self._config.recipe, self._task, rows, fold, learner, self._inputs)
        return fits

    def _notes(self) -> list[str]:
        return [fit.note for fit in self._fits.values()]

    def _score(self, last_fold: int) -> tuple[float, float]:
        """Return temperature-scaled log-loss and accuracy; a model that diverged has a loss of NaN."""
        rows = np.flatnonzero((self._folds >= 0) & (self._folds <= last_fold))
        logits, labels = self._logits[rows], self._task.labels[rows]
        if not np.isfinite(logits).all():
            return float("nan"), 0.0
        calibrated = log_probs(logits, fit_temperature(logits, labels))
        return log_loss(calibrated, labels), accuracy(calibrated, labels)


def _turns(epochs: int, folds: int, *, at_once: bool) -> list[_Turn]:
    if at_once:
        return [_Turn(tuple(range(folds)), epoch) for epoch in range(epochs)]
    return [_Turn((fold,), epoch) for fold in range(folds) for epoch in range(epochs)]
