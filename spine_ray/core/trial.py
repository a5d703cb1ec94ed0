"""A fine-tune's life: all epochs on fold 0, then on fold 1, and so on, always to the last epoch of each."""

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from spine_ray.core.activations import open_inputs
from spine_ray.core.arrays import Arrays, part_of
from spine_ray.core.epoch_record import EpochRecord, score_oof
from spine_ray.core.fit import Fit
from spine_ray.core.linear_head import LinearHead
from spine_ray.core.memory import forget_peak, peak_memory_mb
from spine_ray.core.network import Network
from spine_ray.core.task import Rows, Task
from spine_ray.space.config import TrialConfig

_LOGITS, _AT_ONCE, _FIT = "logits", "rows_at_once", "fit."


class TrialRun:
    """One fine-tune trained over the folds, an epoch at a time.

    Args:
        config: What to train.
        task: What is learnt.
        folds: (images,) the fold that holds a row out, -1 for rows that are in none.
        network: The configuration's model.
        folds_to_run: How many of the folds, from the first; all of them for a trial that is to have OOF logits.
        heads: The classifier with which a fold begins, by fold; a fold that is missing begins with the network's own.
            Each must have been solved on that fold's training rows alone.
    """

    def __init__(
        self,
        config: TrialConfig,
        task: Task,
        folds: npt.NDArray[np.int8],
        network: Network,
        folds_to_run: int,
        heads: Mapping[int, LinearHead] | None = None,
    ) -> None:
        """Prepare; nothing is trained before the first epoch."""
        self._recipe, self._task, self._folds, self._network = config.training, task, folds, network
        self._inputs = open_inputs(self._recipe, network, task, np.flatnonzero(folds >= 0))
        self._turns = [(fold, epoch) for fold in range(folds_to_run) for epoch in range(self._recipe.epochs)]
        self._turn = 0
        self._heads = heads or {}
        self._fit: Fit | None = None
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
        began, (fold, epoch) = time.perf_counter(), self._turns[self._turn]
        if epoch == 0 or self._fit is None:
            self._fit = self._begin(fold)
        fit = self._fit
        result = fit.train_epoch(epoch)
        scoring = time.perf_counter()
        held_out = np.flatnonzero(self._folds == fold)
        self._logits[held_out] = fit.logits(held_out)
        now = time.perf_counter()
        self._turn += 1
        scored = np.flatnonzero((self._folds >= 0) & (self._folds <= fold))
        loss, share = score_oof(self._logits[scored], self._task.labels[scored])
        return EpochRecord(
            step=self._turn,
            fold=fold,
            epoch=epoch + 1,
            train_loss=result.train_loss,
            log_loss=loss,
            accuracy=share,
            seconds=now - began,
            train_images=result.images,
            train_images_s=result.images / result.seconds,
            score_images_s=len(held_out) / (now - scoring),
            peak_mb=peak_memory_mb(self._network.setup.device),
            views=self._inputs.views,
            micro_batch=fit.micro_batch,
            note="; ".join(filter(None, (self._inputs.note, fit.note))),
        )

    @property
    def turns_done(self) -> int:
        """How many epochs were trained."""
        return self._turn

    def state(self) -> Arrays:
        """Return what is needed to go on from here in another process: OOF logits so far, the running fold's fit.

        Between two folds there is no fit: the next one begins with the initial weights.
        """
        arrays: Arrays = {_LOGITS: self._logits}
        if self._fit is not None:
            arrays[_AT_ONCE] = np.array([self._fit.at_once.rows], np.int64)
            if self._is_within_a_fold:
                arrays |= {f"{_FIT}{name}": array for name, array in self._fit.state().items()}
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
        self._fit = self._begin(self._turns[turns_done - 1][0])
        self._fit.at_once.rows = int(at_once[0])
        if self._is_within_a_fold:
            self._fit.restore(part_of(state, _FIT))

    def oof_logits(self) -> npt.NDArray[np.float32]:
        """Return what the fold models said on rows they never saw, (images, classes); NaN in rows not held out.

        Raises:
            ValueError: If the trial is not done.
        """
        if not self.is_done:
            raise ValueError(f"the trial did {self._turn} of {len(self._turns)} epochs: it has no OOF logits yet")
        return self._logits

    @property
    def _is_within_a_fold(self) -> bool:
        return not self.is_done and self._turns[self._turn][1] > 0

    def _begin(self, fold: int) -> Fit:
        learner = self._network.learner(self._recipe.batch_size)
        if fold in self._heads:
            self._network.put_head(self._heads[fold])
        rows: Rows = np.flatnonzero((self._folds >= 0) & (self._folds != fold))
        return Fit(self._recipe, self._task, rows, fold, learner, self._inputs)
