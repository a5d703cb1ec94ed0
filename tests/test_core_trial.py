from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import nn

from spine_ray.core.fit import Fit, Task
from spine_ray.core.pixels import PixelFile
from spine_ray.core.trial import EpochRecord, TrialRun, peak_memory_mb

CPU = torch.device("cpu")
EPOCHS, FOLDS = 2, 3
ROWS, TEST_ROWS = 120, 20


def dealt_folds(rows, test_rows):
    """Fold numbers in no order, and -1 for the test split."""
    folds = np.concatenate([np.full(test_rows, -1), np.arange(rows - test_rows) % FOLDS]).astype(np.int8)
    return np.random.default_rng(0).permutation(folds)


def run_all(run):
    records = []
    while not run.is_done:
        records.append(run.next_epoch())
    return records


def naive_calibrated_log_loss(logits, labels):
    """The log-loss at the best of many temperatures."""
    losses = []
    for temperature in np.geomspace(0.05, 20, 4000):
        scaled = logits.astype(np.float64) / temperature
        scaled -= scaled.max(axis=1, keepdims=True)
        log_probs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        losses.append(-log_probs[np.arange(len(labels)), labels].mean())
    return min(losses)


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(ROWS)


@pytest.fixture(scope="module")
def folds():
    return dealt_folds(ROWS, TEST_ROWS)


@pytest.fixture(scope="module")
def finished(task, folds, trial_config):
    run = TrialRun(trial_config(epochs=EPOCHS), task, folds, None, CPU, FOLDS)
    return run, run_all(run)


def test_a_trial_trains_every_epoch_of_a_fold_before_the_next(finished):
    run, records = finished
    assert run.total_steps == EPOCHS * FOLDS
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.fold for record in records] == [0, 0, 1, 1, 2, 2]
    assert [record.epoch for record in records] == [1, 2, 1, 2, 1, 2]


def test_an_epoch_record_is_whole(finished):
    for record in finished[1]:
        values = {field.name: getattr(record, field.name) for field in fields(EpochRecord)}
        assert all(np.isfinite(value) for value in values.values())
        assert 0.0 <= record.accuracy <= 1.0
        assert min(record.seconds, record.train_images_s, record.infer_images_s, record.peak_mb) > 0
        assert record.log_loss > 0


def test_oof_logits_are_there_for_dev_rows_and_for_no_others(finished, folds):
    logits = finished[0].oof_logits()
    assert logits.shape == (ROWS, 10)
    assert logits.dtype == np.float32
    assert np.isfinite(logits[folds >= 0]).all()
    assert np.isnan(logits[folds < 0]).all()


def test_a_fold_is_scored_by_the_model_that_never_saw_it(finished, task, folds, trial_config):
    logits = finished[0].oof_logits()
    for fold in range(FOLDS):
        config = trial_config(epochs=EPOCHS)
        fit = Fit(config, task, np.flatnonzero((folds != fold) & (folds >= 0)), fold, None, CPU)
        for epoch in range(EPOCHS):
            fit.train_epoch(epoch)
        held_out = np.flatnonzero(folds == fold)
        np.testing.assert_array_equal(logits[held_out], fit.logits(held_out))


def test_scores_are_of_all_folds_so_far_at_their_best_temperature(finished, task, folds):
    run, records = finished
    logits = run.oof_logits()
    for record in records[EPOCHS - 1 :: EPOCHS]:
        scored = (folds >= 0) & (folds <= record.fold)
        expected = naive_calibrated_log_loss(logits[scored], task.labels[scored])
        assert record.log_loss == pytest.approx(expected, abs=1e-5)
        right = logits[scored].argmax(axis=1) == task.labels[scored]
        assert record.accuracy == pytest.approx(right.mean())


def test_two_runs_are_the_same_bits(finished, task, folds, trial_config):
    again = TrialRun(trial_config(epochs=EPOCHS), task, folds, None, CPU, FOLDS)
    records = run_all(again)
    np.testing.assert_array_equal(again.oof_logits(), finished[0].oof_logits())
    assert [record.train_loss for record in records] == [record.train_loss for record in finished[1]]


def test_one_fold_to_run_trains_one_fold_on_the_rows_of_the_others(finished, task, folds, trial_config):
    run = TrialRun(trial_config(epochs=EPOCHS), task, folds, None, CPU, 1)
    records = run_all(run)
    assert [(record.step, record.fold) for record in records] == [(1, 0), (2, 0)]
    logits = run.oof_logits()
    np.testing.assert_array_equal(logits[folds == 0], finished[0].oof_logits()[folds == 0])
    assert np.isnan(logits[folds != 0]).all()


def test_there_are_no_oof_logits_before_the_end_and_no_epochs_after_it(task, folds, trial_config):
    run = TrialRun(trial_config(epochs=1), task, folds, None, CPU, 1)
    with pytest.raises(ValueError, match="epoch 0 of 1: it has no OOF logits yet"):
        run.oof_logits()
    run.next_epoch()
    with pytest.raises(ValueError, match="the trial is done"):
        run.next_epoch()


def test_a_model_that_diverged_has_no_log_loss_and_no_accuracy(task, folds, trial_config, monkeypatch):
    class Diverged(Memory):
        def forward(self, images):
            return self.table.weight[:1].expand(len(images), -1) * torch.nan

    monkeypatch.setattr("spine_ray.core.fit.make_model", lambda *_, **__: Diverged())
    record = TrialRun(trial_config(), task, folds, None, CPU, 1).next_epoch()
    assert np.isnan(record.log_loss)
    assert record.accuracy == 0.0


def test_peak_memory_is_this_process_in_megabytes():
    # A Python process with torch holds more than 50 MB and less than 50 GB.
    assert 50 < peak_memory_mb(CPU) < 50_000


# What follows asks whether anything of a row that is held out reaches the model that scores it.

MEMORY_ROWS, MEMORY_TEST = 300, 30


class Memory(nn.Module):
    """A perfect memory without a thought: one row of logits, 0 at first, for each colour that a picture may have."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256 * 2, 10)
        nn.init.zeros_(self.table.weight)

    def forward(self, images):
        # Pictures of one colour are that colour in every crop, and test_resnet's pixels lie in -1..1.
        red_green = ((images[:, :2].mean(dim=(2, 3)) + 1) * 127.5).round().long()
        return self.table(red_green[:, 0] + 256 * red_green[:, 1])

    def get_classifier(self):
        return self.table

    def group_matcher(self, coarse):
        return {"stem": r"^stem"}


@pytest.fixture(scope="module")
def memory_task():
    """Pictures of one colour each, no two alike, with labels at random."""
    row = np.arange(MEMORY_ROWS)
    colours = np.stack([row % 256, row // 256, 0 * row], axis=-1).astype(np.uint8)
    size = np.full(MEMORY_ROWS, 4)
    pixels = PixelFile(Path(), row * 48, size, size, np.repeat(colours, 16, axis=0).ravel())
    labels = np.random.default_rng(0).permutation(row % 10)
    return Task(pixels=pixels, keys=row.astype(np.uint64), labels=labels, classes=10, seed=0)


@pytest.fixture
def memories(monkeypatch):
    """Every model that is made, in order."""
    made = []
    monkeypatch.setattr("spine_ray.core.fit.make_model", lambda *_, **__: made.append(Memory()) or made[-1])
    return made


@pytest.fixture
def memory_config(trial_config):
    return trial_config(epochs=6, lr=0.5, batch_size=30, warmup_share=0.0, flip=True)


def test_a_perfect_memory_knows_its_training_rows(memory_task, memories, memory_config):
    fit = Fit(memory_config, memory_task, np.arange(200), 0, None, CPU)
    for epoch in range(6):
        fit.train_epoch(epoch)
    assert (fit.logits(np.arange(200)).argmax(axis=1) == memory_task.labels[:200]).all()


def test_a_perfect_memory_knows_nothing_of_the_rows_it_is_scored_on(memory_task, memories, memory_config):
    folds = dealt_folds(MEMORY_ROWS, MEMORY_TEST)
    run = TrialRun(memory_config, memory_task, folds, None, CPU, FOLDS)
    last = run_all(run)[-1]
    assert (run.oof_logits()[folds >= 0] == 0.0).all()
    assert last.log_loss == pytest.approx(np.log(10))
    assert last.accuracy == pytest.approx((memory_task.labels[folds >= 0] == 0).mean())


def test_each_fold_model_saw_all_dev_rows_but_its_fold_and_no_test_row(memory_task, memories, memory_config):
    folds = dealt_folds(MEMORY_ROWS, MEMORY_TEST)
    run_all(TrialRun(memory_config, memory_task, folds, None, CPU, FOLDS))
    assert len(memories) == FOLDS
    for fold, memory in enumerate(memories):
        seen = memory.table.weight.detach().any(dim=1).numpy()[:MEMORY_ROWS]
        np.testing.assert_array_equal(seen, (folds >= 0) & (folds != fold))


LEARNT_ROWS = 300
CHANCE = binom.interval(0.999, LEARNT_ROWS, 0.1)
"""Right answers of somebody who guesses among ten classes."""


def learnt(task, config):
    """The number of right OOF answers of a real training, and its log-loss."""
    run = TrialRun(config, task, (np.arange(LEARNT_ROWS) % FOLDS).astype(np.int8), None, CPU, FOLDS)
    last = run_all(run)[-1]
    return int((run.oof_logits().argmax(axis=1) == task.labels).sum()), last.log_loss


def test_true_labels_are_learnt(digits_task, trial_config):
    right, log_loss = learnt(digits_task(LEARNT_ROWS), trial_config(epochs=6, batch_size=32))
    assert right > 2 * CHANCE[1]
    assert log_loss < np.log(10) - 0.5


def test_shuffled_labels_stay_at_chance(digits_task, trial_config):
    task = digits_task(LEARNT_ROWS)
    task = replace(task, labels=np.random.default_rng(0).permutation(task.labels))
    right, log_loss = learnt(task, trial_config(epochs=6, batch_size=32))
    assert CHANCE[0] <= right <= CHANCE[1]
    # One temperature for all rows cannot find much in noise.
    assert np.log(10) - 0.02 < log_loss < np.log(10) + 0.02
