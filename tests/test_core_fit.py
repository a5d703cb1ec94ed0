from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spine_ray.core.fit import Fit
from spine_ray.core.views import Augmentation, render, training_boxes

CPU = torch.device("cpu")
ROWS = np.arange(60)


def batches_seen(config, task, rows, epochs, *, part=0):
    """What reaches the model in some epochs, with the backbone's normalisation undone, as (batch, 3, side, side)."""
    fit = Fit(config, task, rows, part, None, CPU)
    seen = []
    fit.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    for epoch in epochs:
        fit.train_epoch(epoch)
    imagenet = config.backbone == "test_efficientnet"
    mean = torch.tensor([0.485, 0.456, 0.406] if imagenet else [0.5] * 3).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225] if imagenet else [0.5] * 3).view(3, 1, 1)
    return [(255 * (batch * std + mean)).round().to(torch.uint8) for batch in seen]


def assert_same(one, other):
    assert len(one) == len(other)
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(60)


@pytest.fixture(scope="module")
def seen(task, trial_config):
    return batches_seen(trial_config(), task, ROWS, (0, 1))


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_every_backbone_sees_the_same_views_in_the_same_order(backbone, seen, task, trial_config):
    assert_same(seen, batches_seen(trial_config(backbone), task, ROWS, (0, 1)))


@pytest.mark.parametrize("settings", [{"lr": 0.1, "label_smoothing": 0.2}, {"freeze": 1.0}], ids=["recipe", "freeze"])
def test_other_settings_see_the_same_views_in_the_same_order(settings, seen, task, trial_config):
    assert_same(seen, batches_seen(trial_config(**settings), task, ROWS, (0, 1)))


def test_an_epoch_does_not_depend_on_those_before_it(seen, task, trial_config):
    assert_same(seen[3:], batches_seen(trial_config(), task, ROWS, (1,)))


def test_another_epoch_part_or_seed_is_another_order(seen, task, trial_config):
    config = trial_config()
    other_part = batches_seen(config, task, ROWS, (0,), part=1)
    other_seed = batches_seen(config, replace(task, seed=1), ROWS, (0,))
    for one, other in ((seen[:3], seen[3:]), (seen[:3], other_part), (seen[:3], other_seed)):
        assert not any(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_shows_its_own_view_of_every_row_once(epoch, task, trial_config):
    config = trial_config(batch_size=15, flip=True)
    shown = torch.cat(batches_seen(config, task, ROWS, (epoch,)))
    augmentation = Augmentation(crop_area_min=config.recipe.crop_area_min, flip=True)
    expected = render(task.pixels, ROWS, training_boxes(task.keys, epoch, augmentation), 32)
    assert sorted(shown.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())
    assert not torch.equal(shown, expected)  # not in the order of the rows


def fitted_logits(config, task, *, epochs=2):
    fit = Fit(config, task, ROWS, 0, None, CPU)
    for epoch in range(epochs):
        fit.train_epoch(epoch)
    return fit.logits(ROWS)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_the_same_seed_gives_the_same_bits(backbone, task, trial_config):
    config = trial_config(backbone, drop_path=0.2 if backbone == "test_vit" else 0.0, flip=True)
    one = fitted_logits(config, task)
    torch.manual_seed(99)  # what the process drew before is no part of it
    np.testing.assert_array_equal(one, fitted_logits(config, task))
    assert one.shape == (len(ROWS), 10)
    assert not np.array_equal(one, fitted_logits(config, replace(task, seed=1)))


@pytest.mark.parametrize(
    ("rows", "batch_size", "trained"), [(60, 16, 48), (60, 60, 60), (60, 61, 60), (25, 512, 25), (3, 2, 2)]
)
def test_the_last_partial_batch_is_left_out_and_a_batch_is_at_most_all_rows(
    rows, batch_size, trained, task, trial_config
):
    fit = Fit(trial_config(batch_size=batch_size), task, ROWS[:rows], 0, None, CPU)
    result = fit.train_epoch(0)
    assert result.images == trained
    assert np.isfinite(result.train_loss)
    assert result.seconds > 0


class Constant(nn.Module):
    """Says the same of every image: one trained number a class."""

    def __init__(self, numbers):
        super().__init__()
        self.head = nn.ParameterDict({"bias": nn.Parameter(torch.tensor(numbers))})

    def forward(self, images):
        return self.head["bias"].expand(len(images), -1)

    def get_classifier(self):
        return self.head

    def group_matcher(self, coarse):
        return {"stem": r"^stem"}


@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_balanced_classes_have_the_same_say_however_many_rows_they_have(weighting, task, trial_config, monkeypatch):
    numbers = [0.0, 1.0, -2.0]
    monkeypatch.setattr("spine_ray.core.fit.make_model", lambda *_, **__: Constant(numbers))
    # 2, 18 and 40 rows: a row of class c weighs 60 / (3 * rows of c).
    counts = np.array([2, 18, 40])
    labels = np.repeat(np.arange(3), counts)
    losses = np.log(np.exp(numbers).sum()) - np.array(numbers)
    expected = losses.mean() if weighting == "balanced" else (counts * losses).sum() / 60
    config = trial_config(class_weighting=weighting, batch_size=60, epochs=1)
    fit = Fit(config, replace(task, labels=labels, classes=3), ROWS, 0, None, CPU)
    assert fit.train_epoch(0).train_loss == pytest.approx(expected, rel=1e-5)


def test_a_class_without_training_rows_does_no_harm(task, trial_config):
    rows = np.flatnonzero(task.labels != 3)
    fit = Fit(trial_config(class_weighting="balanced"), task, rows, 0, None, CPU)
    assert np.isfinite(fit.train_epoch(0).train_loss)


def test_label_smoothing_is_mass_spread_over_all_classes(task, trial_config, monkeypatch):
    numbers = [0.0, 1.0, -2.0]
    monkeypatch.setattr("spine_ray.core.fit.make_model", lambda *_, **__: Constant(numbers))
    losses = np.log(np.exp(numbers).sum()) - np.array(numbers)
    labels = np.full(60, 1)
    config = trial_config(label_smoothing=0.3, batch_size=60, epochs=1)
    fit = Fit(config, replace(task, labels=labels, classes=3), ROWS, 0, None, CPU)
    # Of 1, the true class has 0.7 and a third of 0.3, the others a third of 0.3 each.
    assert fit.train_epoch(0).train_loss == pytest.approx(0.7 * losses[1] + 0.1 * losses.sum(), rel=1e-5)


def test_the_loss_falls_and_the_digits_are_learnt(digits_task, trial_config):
    task = digits_task(300)
    config = trial_config(epochs=6, batch_size=32)
    fit = Fit(config, task, np.arange(240), 0, None, CPU)
    losses = [fit.train_epoch(epoch).train_loss for epoch in range(6)]
    assert losses[-1] < 0.5 * losses[0]
    held_out = np.arange(240, 300)
    assert (fit.logits(held_out).argmax(axis=1) == task.labels[held_out]).mean() > 0.5
