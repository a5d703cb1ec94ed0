import numpy as np
import pytest

from spine_ray.core.activations import open_inputs
from spine_ray.core.fit import Fit
from spine_ray.core.inputs import InMemory
from spine_ray.core.trial import ALL_FOLDS, TrialRun

EPOCHS, FOLDS = 3, 3
ROWS, TEST_ROWS = 80, 11
BACKBONES = ["test_resnet", "test_vit", "test_efficientnet"]
SETTINGS = {
    "plain": {},
    "all of it": {"label_smoothing": 0.1, "class_weighting": "balanced", "flip": True, "head_lr_factor": 3.0},
    "a batch of everything": {"batch_size": 512},
}
every_setting = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(ROWS)


@pytest.fixture(scope="module")
def folds():
    dealt = np.concatenate([np.full(TEST_ROWS, -1), np.arange(ROWS - TEST_ROWS) % FOLDS]).astype(np.int8)
    return np.random.default_rng(0).permutation(dealt)


@pytest.fixture(scope="module")
def head_config(trial_config):
    return lambda backbone, **recipe: trial_config(backbone, freeze=1.0, epochs=EPOCHS, lr=0.02, **recipe)


def run_all(run):
    records = []
    while not run.is_done:
        records.append(run.next_epoch())
    return records


def fold_by_fold(config, task, folds, inputs, learner_of):
    """Train every fold to its end before the next; return the OOF logits and each epoch's losses by fold."""
    logits, losses = np.full((ROWS, 10), np.nan, np.float32), np.zeros((FOLDS, EPOCHS))
    for fold in range(FOLDS):
        fit = Fit(config.recipe, task, np.flatnonzero((folds >= 0) & (folds != fold)), fold, learner_of(), inputs)
        for epoch in range(EPOCHS):
            losses[fold, epoch] = fit.train_epoch(epoch).train_loss
        held_out = np.flatnonzero(folds == fold)
        logits[held_out] = fit.logits(held_out)
    return logits, losses


@every_setting
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("room", [0, 10**9])
def test_all_folds_at_once_say_what_each_says_on_its_own(
    room, backbone, settings, task, folds, head_config, make_network
):
    config = head_config(backbone, **settings)
    network = make_network(config, task, activation_bytes=room)
    run = TrialRun(config, task, folds, network, FOLDS)
    records = run_all(run)
    rows = np.flatnonzero(folds >= 0)
    inputs = InMemory(open_inputs(config.recipe, network, task, rows), rows)
    batch = config.recipe.batch_size
    logits, losses = fold_by_fold(config, task, folds, inputs, lambda: network.heads(1, batch)[0])
    np.testing.assert_array_equal(run.oof_logits(), logits)
    assert [record.train_loss for record in records] == pytest.approx(losses.mean(axis=0), rel=1e-12)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_head_alone_learns_what_the_classifier_of_the_model_learns(
    backbone, task, folds, head_config, make_network
):
    config = head_config(backbone)
    network = make_network(config, task)
    run = TrialRun(config, task, folds, network, FOLDS)
    run_all(run)
    inputs = open_inputs(config.recipe, network, task, np.flatnonzero(folds >= 0))
    logits, _ = fold_by_fold(config, task, folds, inputs, lambda: network.learner(config.recipe.batch_size))
    np.testing.assert_array_equal(run.oof_logits(), logits)
    assert len(np.unique(logits[folds >= 0], axis=0)) == (folds >= 0).sum()


def test_an_epoch_is_that_of_all_folds(task, folds, head_config, make_network):
    config = head_config("test_resnet")
    run = TrialRun(config, task, folds, make_network(config, task), FOLDS)
    records = run_all(run)
    assert [(record.step, record.fold, record.epoch) for record in records] == [
        (FOLDS, ALL_FOLDS, 1),
        (2 * FOLDS, ALL_FOLDS, 2),
        (3 * FOLDS, ALL_FOLDS, 3),
    ]
    assert np.isfinite(run.oof_logits()[folds >= 0]).all()
    assert np.isnan(run.oof_logits()[folds < 0]).all()
    # 46 rows train each fold, 32 of them in whole batches of 16.
    assert {record.train_images for record in records} == {FOLDS * 32}


def test_the_first_folds_alone_are_the_first_folds(task, folds, head_config, make_network):
    config = head_config("test_resnet")
    network = make_network(config, task)
    whole, part = (TrialRun(config, task, folds, network, count) for count in (FOLDS, 2))
    run_all(whole)
    run_all(part)
    first = (folds == 0) | (folds == 1)
    np.testing.assert_array_equal(part.oof_logits()[first], whole.oof_logits()[first])
    assert np.isnan(part.oof_logits()[~first]).all()


def test_the_features_are_computed_once_for_all_folds(task, folds, head_config, make_network):
    config = head_config("test_resnet")
    network, calls = make_network(config, task), []
    network.split.prefix.register_forward_hook(lambda *_: calls.append(1))
    run_all(TrialRun(config, task, folds, network, FOLDS))
    chunks = 3  # 69 rows
    # A look at the first chunk, each epoch's view and the scoring view.
    assert len(calls) == 1 + chunks * (EPOCHS + 1)
