import functools
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import binom
from torch import nn

from spine_ray.core.epoch_record import EpochRecord
from spine_ray.core.linear_head import LinearHead
from spine_ray.core.pixels import PixelFile
from spine_ray.core.task import Task
from spine_ray.core.trial import TrialRun
from spine_ray.space.arithmetic import parse_arithmetic

EPOCHS, FOLDS = 2, 3
ROWS, TEST_ROWS = 120, 20
FREEZES = (0.0, 0.5, 0.99)
"""Nothing frozen; a prefix and a part that is trained; all frozen but the classifier."""


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
def begin(make_network):
    """Return a function that begins a trial on a network of its own."""

    def make(config, task, folds, folds_to_run=FOLDS, **setup):
        return TrialRun(config, task, folds, make_network(config, task, **setup), folds_to_run)

    return make


@pytest.fixture(scope="module")
def finished(task, folds, trial_config, begin):
    """A run and its records by freeze depth."""
    runs = {freeze: begin(trial_config(epochs=EPOCHS, freeze=freeze), task, folds) for freeze in FREEZES}
    return {freeze: (run, run_all(run)) for freeze, run in runs.items()}


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_trial_trains_every_epoch_of_a_fold_before_the_next(freeze, finished):
    _, records = finished[freeze]
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert [record.fold for record in records] == [0, 0, 1, 1, 2, 2]
    assert [record.epoch for record in records] == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("freeze", FREEZES)
def test_an_epoch_record_is_whole(freeze, finished):
    for record in finished[freeze][1]:
        values = {field.name: getattr(record, field.name) for field in fields(EpochRecord)}
        assert values.pop("note") == ""
        assert all(np.isfinite(value) for value in values.values())
        assert 0.0 <= record.accuracy <= 1.0
        assert min(record.seconds, record.train_images_s, record.score_images_s, record.peak_mb) > 0
        assert record.log_loss > 0
        assert (record.views, record.micro_batch) == (EPOCHS, 16)


@pytest.mark.parametrize("freeze", FREEZES)
def test_trained_images_are_those_of_whole_batches(freeze, finished, folds):
    # A fold trains on 66 or 67 of 100 dev rows: 4 batches of 16, and as many in each fold.
    images = [record.train_images for record in finished[freeze][1]]
    assert images == [64] * 6


@pytest.mark.parametrize("freeze", FREEZES)
def test_oof_logits_are_there_for_dev_rows_and_for_no_others(freeze, finished, folds):
    logits = finished[freeze][0].oof_logits()
    assert logits.shape == (ROWS, 10)
    assert logits.dtype == np.float32
    assert np.isfinite(logits[folds >= 0]).all()
    assert np.isnan(logits[folds < 0]).all()


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_fold_is_scored_by_the_model_that_never_saw_it(freeze, finished, task, folds, trial_config, make_fit):
    run, records = finished[freeze]
    config, losses = trial_config(epochs=EPOCHS, freeze=freeze), []
    for fold in range(FOLDS):
        # A model drawn anew for every fold: each begins with the same weights.
        fit = make_fit(config, task, np.flatnonzero((folds != fold) & (folds >= 0)), fold)
        losses.append([fit.train_epoch(epoch).train_loss for epoch in range(EPOCHS)])
        held_out = np.flatnonzero(folds == fold)
        np.testing.assert_array_equal(run.oof_logits()[held_out], fit.logits(held_out))
    assert [record.train_loss for record in records] == pytest.approx(np.ravel(losses), rel=1e-6)


@pytest.mark.parametrize("freeze", FREEZES)
def test_scores_are_of_all_folds_so_far_at_their_best_temperature(freeze, finished, task, folds):
    run, records = finished[freeze]
    logits = run.oof_logits()
    for record in records[EPOCHS - 1 :: EPOCHS]:
        scored = (folds >= 0) & (folds <= record.fold)
        expected = naive_calibrated_log_loss(logits[scored], task.labels[scored])
        assert record.log_loss == pytest.approx(expected, abs=1e-5)
        right = logits[scored].argmax(axis=1) == task.labels[scored]
        assert record.accuracy == pytest.approx(right.mean())


@pytest.mark.parametrize("freeze", FREEZES)
def test_two_runs_are_the_same_bits(freeze, finished, task, folds, trial_config, begin):
    again = begin(trial_config(epochs=EPOCHS, freeze=freeze), task, folds)
    records = run_all(again)
    run, told = finished[freeze]
    np.testing.assert_array_equal(again.oof_logits(), run.oof_logits())
    assert [record.train_loss for record in records] == [record.train_loss for record in told]


@pytest.mark.parametrize("freeze", FREEZES)
def test_two_runs_on_one_network_are_the_same_bits(freeze, finished, task, folds, trial_config, make_network):
    config = trial_config(epochs=EPOCHS, freeze=freeze)
    network = make_network(config, task)
    run_all(TrialRun(replace(config, recipe=replace(config.recipe, lr=0.1)), task, folds, network, FOLDS))
    again = TrialRun(config, task, folds, network, FOLDS)
    run_all(again)
    np.testing.assert_array_equal(again.oof_logits(), finished[freeze][0].oof_logits())


@pytest.mark.parametrize("freeze", [0.5, 0.99])
def test_activations_from_the_disk_make_the_same_bits(freeze, finished, task, folds, trial_config, begin):
    run = begin(trial_config(epochs=EPOCHS, freeze=freeze), task, folds, activation_bytes=10**9)
    run_all(run)
    np.testing.assert_array_equal(run.oof_logits(), finished[freeze][0].oof_logits())


@pytest.mark.parametrize("freeze", FREEZES)
def test_one_fold_to_run_trains_one_fold_on_the_rows_of_the_others(freeze, finished, task, folds, trial_config, begin):
    run = begin(trial_config(epochs=EPOCHS, freeze=freeze), task, folds, 1)
    records = run_all(run)
    assert [(record.step, record.fold) for record in records] == [(1, 0), (2, 0)]
    logits = run.oof_logits()
    np.testing.assert_array_equal(logits[folds == 0], finished[freeze][0].oof_logits()[folds == 0])
    assert np.isnan(logits[folds != 0]).all()


def test_what_was_not_as_it_should_have_been_is_in_the_record(task, folds, trial_config, make_network):
    config = trial_config(epochs=4, freeze=0.5)
    network = make_network(config, task, activation_bytes=1000)  # less than a view takes

    def refuse(_, inputs):
        if len(inputs[0]) > 8:
            raise torch.OutOfMemoryError

    run = TrialRun(config, task, folds, network, 1)
    network.trained_part.register_forward_pre_hook(refuse)
    record = run.next_epoch()
    kept, accumulated, batch_norm = record.note.split("; ")
    assert kept.startswith("activations not kept: a view takes ")
    assert accumulated == "out of memory: gradients of 8 rows at a time, accumulated to 16"
    assert batch_norm == "its batch-norm saw fewer rows at once, which is another training"
    assert (record.views, record.micro_batch) == (4, 8)


def test_there_are_no_oof_logits_before_the_end_and_no_epochs_after_it(task, folds, trial_config, begin):
    run = begin(trial_config(epochs=1), task, folds, 1)
    with pytest.raises(ValueError, match="did 0 of 1 epochs: it has no OOF logits yet"):
        run.oof_logits()
    run.next_epoch()
    with pytest.raises(ValueError, match="the trial is done"):
        run.next_epoch()


def test_a_model_that_diverged_has_no_log_loss_and_no_accuracy(task, folds, trial_config, monkeypatch, begin):
    class Diverged(Memory):
        def forward(self, images):
            return self.table.weight[:1].expand(len(images), -1) * torch.nan

    monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: Diverged())
    record = begin(trial_config(), task, folds, 1).next_epoch()
    assert np.isnan(record.log_loss)
    assert record.accuracy == 0.0


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
def memory_config(trial_config, monkeypatch):
    """The configuration of a memory, and that model under its name."""
    monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: Memory())
    return trial_config(epochs=6, lr=0.5, batch_size=30, warmup_share=0.0, symmetry="mirror")


def test_a_perfect_memory_knows_its_training_rows(memory_task, memory_config, make_fit):
    fit = make_fit(memory_config, memory_task, np.arange(200))
    for epoch in range(6):
        fit.train_epoch(epoch)
    assert (fit.logits(np.arange(200)).argmax(axis=1) == memory_task.labels[:200]).all()


def test_a_perfect_memory_knows_nothing_of_the_rows_it_is_scored_on(memory_task, memory_config, begin):
    folds = dealt_folds(MEMORY_ROWS, MEMORY_TEST)
    run = begin(memory_config, memory_task, folds)
    last = run_all(run)[-1]
    assert last.fold == FOLDS - 1
    assert (run.oof_logits()[folds >= 0] == 0.0).all()
    assert last.log_loss == pytest.approx(np.log(10))
    assert last.accuracy == pytest.approx((memory_task.labels[folds >= 0] == 0).mean())


def remembered_rows(weights):
    """Rows of whose colour a memory has learnt something, from its (colours, classes) numbers."""
    return weights.detach().any(dim=1).numpy()[:MEMORY_ROWS]


def test_each_fold_model_saw_all_dev_rows_but_its_fold_and_no_test_row(memory_task, memory_config, make_network):
    folds = dealt_folds(MEMORY_ROWS, MEMORY_TEST)
    network = make_network(memory_config, memory_task)
    run = TrialRun(memory_config, memory_task, folds, network, FOLDS)
    while not run.is_done:
        record = run.next_epoch()
        if record.epoch == memory_config.recipe.epochs:
            seen = remembered_rows(network.model.table.weight)
            np.testing.assert_array_equal(seen, (folds >= 0) & (folds != record.fold))


LEARNT_ROWS = 300
CHANCE = binom.interval(0.999, LEARNT_ROWS, 0.1)
"""Right answers of somebody who guesses among ten classes."""


@pytest.fixture
def learnt(begin):
    """Return a function that trains for real and returns the number of right OOF answers, and the log-loss."""

    def train(task, config):
        run = begin(config, task, (np.arange(LEARNT_ROWS) % FOLDS).astype(np.int8))
        last = run_all(run)[-1]
        return int((run.oof_logits().argmax(axis=1) == task.labels).sum()), last.log_loss

    return train


def test_true_labels_are_learnt(digits_task, trial_config, learnt):
    right, log_loss = learnt(digits_task(LEARNT_ROWS), trial_config(epochs=6, batch_size=32))
    assert right > 2 * CHANCE[1]
    assert log_loss < np.log(10) - 0.5


@pytest.mark.parametrize(("freeze", "lr"), [(0.0, 2e-3), (0.5, 5e-3), (0.99, 0.05)])
def test_shuffled_labels_stay_at_chance(freeze, lr, digits_task, trial_config, learnt):
    task = digits_task(LEARNT_ROWS)
    task = replace(task, labels=np.random.default_rng(0).permutation(task.labels))
    right, log_loss = learnt(task, trial_config(freeze=freeze, lr=lr, epochs=6, batch_size=32))
    assert CHANCE[0] <= right <= CHANCE[1]
    # One temperature for all rows cannot find much in noise.
    assert np.log(10) - 0.02 < log_loss < np.log(10) + 0.02


RESUMABLE = {
    "all trained": {"freeze": 0.0},
    "contiguous, drop-path": {"backbone": "test_convnext", "freeze": 0.0, "drop_path": 0.2},
    "transformer with a frozen part": {"backbone": "test_vit", "freeze": 0.5, "drop_path": 0.1},
    "head alone": {"freeze": 0.99},
    "batch-norm frozen": {"freeze": 0.5, "batch_norm": "frozen"},
    "rates by layer, mixed and painted": {
        **{"freeze": 0.0, "layer_decay": 0.7, "mixup": 0.5, "cutmix": 0.5, "symmetry": "all"},
        **{"color_jitter": 0.3, "trivial_augment": True},
    },
    "float16": {"freeze": 0.0},
}


@pytest.fixture(scope="module")
def begin_resumable(task, folds, trial_config, begin):
    """Return a function that begins a trial of a kind, of three epochs on two folds."""

    def make(kind):
        given = {"backbone": "test_resnet", **RESUMABLE[kind]}
        arithmetic = {"contiguous, drop-path": "float32 contiguous", "float16": "float16 channels_last"}.get(kind)
        setup = {"arithmetic": parse_arithmetic(arithmetic)} if arithmetic else {}
        return begin(trial_config(given.pop("backbone"), epochs=3, **given), task, folds, 2, **setup)

    return make


@pytest.fixture(scope="module")
def uninterrupted(begin_resumable, tmp_path_factory):
    """Return a function that trains a kind once: its log-losses, its OOF logits and files of its states."""

    @functools.cache
    def train(kind):
        run, told, states = begin_resumable(kind), [], tmp_path_factory.mktemp("states")
        while not run.is_done:
            told.append(run.next_epoch().log_loss)
            state = {name: np.asarray(array, order="C") for name, array in run.state().items()}
            save_file(state, states / str(run.turns_done))
        return told, run.oof_logits().tobytes(), states

    return train


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("kind", RESUMABLE)
def test_a_trial_that_goes_on_in_another_network_ends_with_the_same_bits(kind, after, begin_resumable, uninterrupted):
    told, oof, states = uninterrupted(kind)
    torch.manual_seed(123)  # nothing of this process may matter
    second = begin_resumable(kind)
    second.resume(after, load_file(states / str(after)))
    assert [record.log_loss for record in run_all(second)] == told[after:]
    assert second.oof_logits().tobytes() == oof


def test_between_two_folds_there_is_no_model_to_keep(task, folds, trial_config, begin):
    run = begin(trial_config(epochs=2), task, folds, 2)
    run.next_epoch()
    within = run.state()
    run.next_epoch()
    assert set(run.state()) == {"logits", "rows_at_once"}
    assert any(name.startswith("fit.model.") for name in within)
    assert any(name.startswith("fit.optimizer.") for name in within)


def test_what_is_frozen_is_not_kept(task, folds, trial_config, begin):
    sizes = []
    for freeze in (0.0, 0.5):
        run = begin(trial_config(epochs=2, freeze=freeze), task, folds, 1)
        run.next_epoch()
        sizes.append(sum(array.nbytes for array in run.state().values()))
    assert sizes[1] < sizes[0]


def test_what_memory_allowed_is_remembered(task, folds, trial_config, begin):
    run = begin(trial_config(epochs=2), task, folds, 1)
    run._network.learner(16).at_once.rows = 4
    run.next_epoch()
    again = begin(trial_config(epochs=2), task, folds, 1)
    again.resume(1, run.state())
    assert again.next_epoch().micro_batch == 4


@pytest.mark.parametrize("change", ["another backbone", "more epochs than there are", "none", "no logits"])
def test_a_state_that_does_not_fit_is_refused(change, task, folds, trial_config, begin):
    run = begin(trial_config(epochs=2), task, folds, 1)
    run.next_epoch()
    state, turns, backbone = run.state(), 1, "test_resnet"
    if change == "another backbone":
        backbone = "test_efficientnet"
    elif change == "no logits":
        state.pop("logits")
    else:
        turns = 0 if change == "none" else 3
    with pytest.raises(ValueError):
        begin(trial_config(backbone, epochs=2), task, folds, 1).resume(turns, state)


# A fold may begin with a head that was solved on its training rows.


def heads_of(task, network, folds):
    rng = np.random.default_rng(0)
    shape = (task.classes, network.feature_count)
    return {
        fold: LinearHead(
            weight=rng.normal(size=shape).astype(np.float32), bias=rng.normal(size=task.classes).astype(np.float32)
        )
        for fold in range(folds)
    }


@pytest.mark.parametrize("freeze", FREEZES)
def test_a_fold_begins_with_its_own_head(freeze, task, folds, trial_config, make_network, make_fit):
    config = trial_config(epochs=1, freeze=freeze)
    network = make_network(config, task)
    heads = heads_of(task, network, FOLDS)
    run = TrialRun(config, task, folds, network, FOLDS, heads)
    records = run_all(run)
    other = make_network(config, task)
    for fold, record in enumerate(records):
        rows = np.flatnonzero((folds != fold) & (folds >= 0))
        fit = make_fit(config, task, rows, fold, network=other)  # a learner in its initial weights
        other.put_head(heads[fold])
        assert fit.train_epoch(0).train_loss == pytest.approx(record.train_loss, rel=1e-6)
        held_out = np.flatnonzero(folds == fold)
        np.testing.assert_array_equal(run.oof_logits()[held_out], fit.logits(held_out))


def test_a_trial_that_began_with_heads_goes_on_to_the_same_bits(task, folds, trial_config, make_network):
    config = trial_config(epochs=2, freeze=0.5)
    heads = heads_of(task, make_network(config, task), FOLDS)
    whole = TrialRun(config, task, folds, make_network(config, task), 2, heads)
    first = TrialRun(config, task, folds, make_network(config, task), 2, heads)
    run_all(whole)
    first.next_epoch()
    second = TrialRun(config, task, folds, make_network(config, task), 2, heads)
    second.resume(1, first.state())
    run_all(second)
    assert second.oof_logits().tobytes() == whole.oof_logits().tobytes()
