"""Before anything trains: does augmentation leave the classes where they are, and can one batch be learnt by heart?"""

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.features import scoring_features
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import pictures_for
from spine_ray.core.network import Network, Setup
from spine_ray.core.screen import (
    Features,
    Screening,
    augmented_features,
    box_features,
    clean_features,
    few_rows,
    probe_scores,
    screen,
)
from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Rows, Task
from spine_ray.core.views import Augmentation, Boxes, scoring_boxes
from spine_ray.ladder.view_check import ViewCheck
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import Recipe, TrialConfig, probe_config

CHECKED_ROWS = 500
"""Rows on which the checks look, at most."""
_FITTED_VIEWS = (0, 1)
"""Training views that the probe is fitted on; it is scored on the one after them."""
_DRAWS = 1000
_STEPS = 60
_SECONDS = 10.0
_LEARNT, _STARTED = 0.1, 0.5
"""Shares of the first loss: below the one a batch is learnt by heart, below the other it is on its way."""
BatchVerdict = Literal["learnt", "not learnt", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchCheck:
    """One batch trained on over and over, without augmentation and regularisation: its loss has to fall."""

    steps: int
    rows: int
    first_loss: float
    last_loss: float
    seconds: float

    @property
    def verdict(self) -> BatchVerdict:
        """Whether the batch was learnt; `undecided` where there was no time for all steps."""
        if self.last_loss < _STARTED * self.first_loss:
            return "learnt"
        return "not learnt" if self.steps >= _STEPS else "undecided"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCheck:
    """What is known of a backbone's training before it begins."""

    views: ViewCheck
    mirrored: ViewCheck
    """On mirror images."""
    turned: ViewCheck
    """On pictures turned by one, two or three right angles."""
    batch: BatchCheck
    probe: Screening
    shuffled: Screening
    """The same probe on labels dealt anew: it has to know nothing."""


def check_training(config: TrialConfig, task: Task, folds: npt.NDArray[np.int8], setup: Setup) -> TrainingCheck:
    """Run all checks of a start recipe on at most `CHECKED_ROWS` dev rows.

    Args:
        config: The start recipe of a light backbone.
        task: What is learnt.
        folds: (images,), -1 for rows that are not looked at.
        setup: What it is computed with.
    """
    dev = np.flatnonzero(folds >= 0)
    rows = few_rows(task.labels, dev, CHECKED_ROWS, derive_seed(task.seed, "check") % 2**32)
    plain = replace(setup, arithmetic=FLOAT32)  # that of a probe, whose features are on disk
    frozen = Network(probe_config(config.backbone, config.resolution), task.classes, task.seed, plain)
    clean, labels, places = _clean_features(frozen, task, dev, rows), task.labels[rows], folds[rows]
    central = scoring_boxes(len(rows))
    turns = np.random.default_rng(derive_seed(task.seed, "check", "turns")).integers(1, 4, len(rows))
    dealt = np.random.default_rng(derive_seed(task.seed, "check", "shuffle")).permutation(labels)
    return TrainingCheck(
        views=check_views(config, frozen, task, rows, clean, places),
        mirrored=check_symmetry(frozen, task, rows, clean, places, replace(central, mirrored=~central.mirrored)),
        turned=check_symmetry(frozen, task, rows, clean, places, replace(central, turns=turns)),
        batch=check_batch(config, task, rows, setup),
        probe=screen(clean, labels, places, task.classes),
        shuffled=screen(clean, dealt, places, task.classes),
    )


def _clean_features(frozen: Network, task: Task, dev: Rows, rows: Rows) -> Features:
    """Return the features of the scoring view of some dev rows, (rows, features): a probe's, where there can be one."""
    if frozen.can_be_probed:
        return scoring_features(frozen, task, dev).values[np.searchsorted(dev, rows)]
    return clean_features(frozen, task, rows)


def check_views(
    config: TrialConfig,
    frozen: Network,
    task: Task,
    rows: Rows,
    clean: npt.NDArray[np.float32],
    folds: npt.NDArray[np.int8],
) -> ViewCheck:
    """Compare a linear probe on clean pictures with one on training views of the same rows, fold after fold.

    Args:
        config: Whose recipe augments.
        frozen: The backbone with everything frozen.
        task: What is learnt.
        rows: Of which `clean` are the features.
        clean: (rows, features), of the scoring view.
        folds: (rows,), from 0.
    """
    augmentation = Augmentation.of(config.training)
    seen = [augmented_features(frozen, task, rows, view, augmentation) for view in _FITTED_VIEWS]
    scored = augmented_features(frozen, task, rows, len(_FITTED_VIEWS), augmentation)
    return _compare(clean, seen, scored, _Truth(task.labels[rows], folds, task.classes, task.seed))


def check_symmetry(
    frozen: Network,
    task: Task,
    rows: Rows,
    clean: npt.NDArray[np.float32],
    folds: npt.NDArray[np.int8],
    boxes: Boxes,
) -> ViewCheck:
    """Compare a linear probe on clean pictures with one on these and their turned or mirrored images.

    Args:
        frozen: The backbone with everything frozen.
        task: What is learnt.
        rows: Of which `clean` are the features.
        clean: (rows, features), of the scoring view.
        folds: (rows,), from 0.
        boxes: The same view, turned or mirrored.
    """
    moved = box_features(frozen, task, rows, boxes)
    return _compare(clean, [clean, moved], moved, _Truth(task.labels[rows], folds, task.classes, task.seed))


@dataclass(frozen=True, slots=True)
class _Truth:
    """What probes are fitted and scored on."""

    labels: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int8]
    classes: int
    seed: int


def _compare(clean: Features, seen: list[Features], scored: Features, truth: _Truth) -> ViewCheck:
    """Compare a probe fitted and scored on clean features with one fitted on those seen, fold after fold."""
    labels, hits = truth.labels, np.zeros((2, len(truth.labels)))
    for fold in np.unique(truth.folds):
        held_out = truth.folds == fold
        train, right = ~held_out, labels[held_out]
        plain = probe_scores(clean[train], labels[train], clean[held_out], truth.classes)
        stacked, repeated = np.concatenate([each[train] for each in seen]), np.tile(labels[train], len(seen))
        moved = probe_scores(stacked, repeated, scored[held_out], truth.classes)
        hits[:, held_out] = [scores.argmax(axis=1) == right for scores in (plain, moved)]
    prior = float(np.bincount(labels).max() / len(labels))
    kept, low, high = _kept(hits, prior, truth.seed)
    return ViewCheck(
        clean_accuracy=float(hits[0].mean()),
        augmented_accuracy=float(hits[1].mean()),
        prior_accuracy=prior,
        kept=kept,
        kept_low=low,
        kept_high=high,
        rows=len(labels),
    )


def check_batch(config: TrialConfig, task: Task, rows: Rows, setup: Setup) -> BatchCheck:
    """Train on one batch until it is known by heart, at most 60 steps and ten seconds."""
    recipe = replace(
        config.training, epochs=_STEPS, label_smoothing=0.0, weight_decay=0.0, drop_path=0.0, mixup=0.0, cutmix=0.0
    )
    network = Network(replace(config, freeze=0.0, recipe=recipe), task.classes, task.seed, setup)
    generator = np.random.default_rng(derive_seed(task.seed, "check", "batch"))
    batch = np.sort(generator.permutation(rows)[: recipe.batch_size])
    fit = Fit(recipe, task, batch, "batch", network.learner(recipe.batch_size), _Still(network, task, batch, recipe))
    began = time.perf_counter()
    losses: list[float] = []
    while len(losses) < _STEPS and time.perf_counter() - began < _SECONDS:
        losses.append(fit.train_epoch(len(losses)).train_loss)
        if losses[-1] < _LEARNT * losses[0]:
            break
    return BatchCheck(
        steps=len(losses),
        rows=len(batch),
        first_loss=losses[0],
        last_loss=losses[-1],
        seconds=time.perf_counter() - began,
    )


class _Still:
    """The scoring view of one batch, whichever view is asked for."""

    views, note = 1, ""

    def __init__(self, network: Network, task: Task, batch: Rows, recipe: Recipe) -> None:
        """Cut the pictures once."""
        self._batch = batch
        self._pictures = pictures_for(recipe, network, task).scoring(batch)

    def training(self, rows: Rows, epoch: int) -> Tensor:
        """Return rows of the batch."""
        return self._pictures[torch.from_numpy(np.searchsorted(self._batch, rows))]

    def scoring(self, rows: Rows) -> Tensor:
        """Return rows of the batch."""
        return self.training(rows, 0)


def _kept(hits: npt.NDArray[np.float64], prior: float, seed: int) -> tuple[float | None, float | None, float | None]:
    """Return the share of the clean probe's knowledge that is kept, with its interval by a bootstrap of the rows."""
    generator, count = np.random.default_rng(seed), hits.shape[1]
    means = np.stack([hits[:, generator.integers(0, count, count)].mean(axis=1) for _ in range(_DRAWS)])
    known = means[:, 0] - prior
    if np.quantile(known, 0.025) <= 0.0:
        return None, None, None
    informative = known > 0.0  # of the few draws in which nothing is known there is no share to keep
    shares = (means[informative, 1] - prior) / known[informative]
    low, high = np.quantile(shares, [0.025, 0.975])
    return float((hits[1].mean() - prior) / (hits[0].mean() - prior)), float(low), float(high)
