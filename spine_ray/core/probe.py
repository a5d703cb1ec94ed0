"""A probe: for each fold a linear head, solved to convergence on the features of a frozen backbone."""

import time
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from spine_ray.core.arrays import Arrays
from spine_ray.core.epoch_record import ALL_FOLDS, EpochRecord, score_oof
from spine_ray.core.features import sample_features, sample_order, scoring_features
from spine_ray.core.inner_folds import deal_inner_folds
from spine_ray.core.linear_head import LinearHead, fit_linear_head
from spine_ray.core.memory import forget_peak, peak_memory_mb
from spine_ray.core.network import CHUNK, Network
from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Rows, Task

_LOGITS = "logits"


class ProbeRun:
    """One probe over the folds: a single step, whose features survive a death of the process on disk.

    Args:
        task: What is learnt.
        folds: (images,) the fold that holds a row out, -1 for rows that are in none.
        network: The backbone with its initial weights, of which nothing is trained.
        folds_to_run: How many of the folds, from the first; all of them for a probe that is to have OOF logits.
    """

    def __init__(self, task: Task, folds: npt.NDArray[np.int8], network: Network, folds_to_run: int) -> None:
        """Prepare; nothing is computed before the step."""
        self._task, self._folds, self._network, self._folds_to_run = task, folds, network, folds_to_run
        self._logits = np.full((len(folds), task.classes), np.nan, np.float32)
        self._heads: dict[int, LinearHead] = {}
        self._is_done = False
        forget_peak(network.setup.device)

    @property
    def is_done(self) -> bool:
        """Whether the step was taken."""
        return self._is_done

    @property
    def turns_done(self) -> int:
        """1 after the step, else 0."""
        return int(self._is_done)

    @property
    def heads(self) -> Mapping[int, LinearHead]:
        """The solved heads by fold; empty where the step was taken by another process."""
        return self._heads

    def next_epoch(self) -> EpochRecord:
        """Compute the features, solve the head of every fold and score the rows that it did not see.

        Raises:
            ValueError: If the step was taken, or a feature is not finite.
        """
        if self._is_done:
            raise ValueError("the probe is done")
        began, rows = time.perf_counter(), np.flatnonzero(self._folds >= 0)
        features = scoring_features(self._network, self._task, rows)
        solving, train_rows, losses = time.perf_counter(), 0, []
        for fold in range(self._folds_to_run):
            held_out = self._folds[rows] == fold
            head = solve_head(features.values[~held_out], self._task, rows[~held_out], self._network)
            self._heads[fold] = head
            self._logits[rows[held_out]] = head.logits(features.values[held_out])
            losses.append(score_oof(head.logits(features.values[~held_out]), self._task.labels[rows[~held_out]])[0])
            train_rows += int((~held_out).sum())
        now = time.perf_counter()
        self._is_done = True
        scored = np.flatnonzero((self._folds >= 0) & (self._folds < self._folds_to_run))
        loss, share = score_oof(self._logits[scored], self._task.labels[scored])
        return EpochRecord(
            step=1,
            fold=ALL_FOLDS,
            epoch=1,
            train_loss=float(np.mean(losses)),
            log_loss=loss,
            accuracy=share,
            seconds=now - began,
            train_images=len(rows),
            train_images_s=train_rows / (now - solving),
            score_images_s=features.images_s,
            peak_mb=peak_memory_mb(self._network.setup.device),
            views=1,
            micro_batch=CHUNK,
            note=features.note,
        )

    def state(self) -> Arrays:
        """Return the OOF logits, for a process that goes on after the step."""
        return {_LOGITS: self._logits}

    def resume(self, turns_done: int, state: Arrays) -> None:
        """Take over the step of another process.

        Raises:
            ValueError: If the state is not one of a probe of these rows.
        """
        logits = state.get(_LOGITS)
        if turns_done != 1 or logits is None or logits.shape != self._logits.shape:
            raise ValueError("the OOF logits are not those of a probe of these rows")
        self._logits[:] = logits
        self._is_done = True

    def oof_logits(self) -> npt.NDArray[np.float32]:
        """Return what the heads said of rows they never saw, (images, classes); NaN in rows not held out.

        Raises:
            ValueError: If the step was not taken.
        """
        if not self._is_done:
            raise ValueError("the probe was not run: it has no OOF logits yet")
        return self._logits


def sampled_log_loss(task: Task, rows: Rows, network: Network, count: int) -> float:
    """Return the log-loss of a head on a fifth of a random sample of rows, fitted on the rest of it; lower is better.

    It is the loss after temperature scaling, as of every trial.

    It says which of two backbones deserves the rest of the work first, and nothing of any fold.

    Args:
        task: What is learnt.
        rows: The rows, in ascending order.
        network: The backbone with its initial weights.
        count: Size of the sample, at most the rows.

    Raises:
        ValueError: If a feature is not finite.
    """
    features = sample_features(network, task, rows, count).values
    sample = rows[sample_order(task, rows)[:count]]
    groups = sample if task.groups is None else task.groups[sample]
    held_out = deal_inner_folds(task.labels[sample], groups, derive_seed(task.seed, "sample") % 2**32) == 0
    head = solve_head(features[~held_out], task, sample[~held_out], network)
    return score_oof(head.logits(features[held_out]), task.labels[sample[held_out]])[0]


def solve_head(features: npt.NDArray[np.float32], task: Task, rows: Rows, network: Network) -> LinearHead:
    """Solve a head on the features of some rows.

    Args:
        features: (rows, features).
        task: Their labels and groups.
        rows: The rows.
        network: The backbone, for the device.
    """
    return fit_linear_head(
        features,
        task.labels[rows],
        task.classes,
        rows if task.groups is None else task.groups[rows],
        seed=derive_seed(task.seed, "probe") % 2**32,
        device=network.setup.device,
    )


def refitted_head(task: Task, rows: Rows, network: Network) -> LinearHead:
    """Solve a head on all of some rows, from features that are on disk or computed."""
    return solve_head(scoring_features(network, task, rows).values, task, rows, network)
