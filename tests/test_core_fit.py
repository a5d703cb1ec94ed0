from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spine_ray.core.views import Augmentation, render, training_boxes

ROWS = np.arange(60)


@pytest.fixture(scope="module")
def batches_seen(make_network, make_fit):
    """Return what reaches the model, or its frozen prefix, in some epochs, as uint8 (batch, 3, side, side)."""

    def see(config, task, rows, epochs, *, part=0):
        network, seen = make_network(config, task), []
        fit = make_fit(config, task, rows, part, network=network)
        eye = network.split.prefix if network.split else network.model
        batch_size = config.recipe.batch_size  # a prefix sees batches filled up
        eye.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:batch_size].detach().clone()))
        for epoch in epochs:
            fit.train_epoch(epoch)
        imagenet = config.backbone == "test_efficientnet"
        mean = torch.tensor([0.485, 0.456, 0.406] if imagenet else [0.5] * 3).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225] if imagenet else [0.5] * 3).view(3, 1, 1)
        return [(255 * (batch * std + mean)).round().to(torch.uint8) for batch in seen]

    return see


def assert_same(one, other):
    assert len(one) == len(other)
    assert all(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(60)


@pytest.fixture(scope="module")
def seen(task, trial_config, batches_seen):
    return batches_seen(trial_config(), task, ROWS, (0, 1))


@pytest.mark.parametrize("backbone", ["test_vit", "test_efficientnet"])
def test_every_backbone_sees_the_same_views_in_the_same_order(backbone, seen, task, trial_config, batches_seen):
    assert_same(seen, batches_seen(trial_config(backbone), task, ROWS, (0, 1)))


@pytest.mark.parametrize(
    "settings",
    [{"lr": 0.1, "label_smoothing": 0.2}, {"freeze": 0.5}, {"freeze": 0.99}],
    ids=["recipe", "half frozen", "frozen"],
)
def test_other_settings_see_the_same_views_in_the_same_order(settings, seen, task, trial_config, batches_seen):
    assert_same(seen, batches_seen(trial_config(**settings), task, ROWS, (0, 1)))


def test_an_epoch_does_not_depend_on_those_before_it(seen, task, trial_config, batches_seen):
    assert_same(seen[3:], batches_seen(trial_config(), task, ROWS, (1,)))


def test_another_epoch_part_or_seed_is_another_order(seen, task, trial_config, batches_seen):
    config = trial_config()
    other_part = batches_seen(config, task, ROWS, (0,), part=1)
    other_seed = batches_seen(config, replace(task, seed=1), ROWS, (0,))
    for one, other in ((seen[:3], seen[3:]), (seen[:3], other_part), (seen[:3], other_seed)):
        assert not any(torch.equal(left, right) for left, right in zip(one, other, strict=True))


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_shows_its_own_view_of_every_row_once(epoch, task, trial_config, batches_seen):
    config = trial_config(batch_size=15, symmetry="mirror")
    shown = torch.cat(batches_seen(config, task, ROWS, (epoch,)))
    augmentation = Augmentation(crop_area_min=config.recipe.crop_area_min, symmetry="mirror")
    expected = render(task.pixels, ROWS, training_boxes(task.keys, epoch, augmentation), 32)
    assert sorted(shown.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())
    assert not torch.equal(shown, expected)  # not in the order of the rows


@pytest.fixture
def fitted_logits(make_fit):
    def fit_and_score(config, task):
        fit = make_fit(config, task, ROWS)
        for epoch in range(config.recipe.epochs):
            fit.train_epoch(epoch)
        return fit.logits(ROWS)

    return fit_and_score


@pytest.mark.parametrize("freeze", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_the_same_seed_gives_the_same_bits(backbone, freeze, task, trial_config, fitted_logits):
    views = {"symmetry": "all", "color_jitter": 0.3, "trivial_augment": True, "mixup": 0.4, "cutmix": 0.4}
    config = trial_config(backbone, freeze=freeze, drop_path=0.2 if backbone == "test_vit" else 0.0, **views)
    one = fitted_logits(config, task)
    torch.manual_seed(99)  # what the process drew before is no part of it
    np.testing.assert_array_equal(one, fitted_logits(config, task))
    assert one.shape == (len(ROWS), 10)
    assert not np.array_equal(one, fitted_logits(config, replace(task, seed=1)))


@pytest.mark.parametrize("freeze", [0.0, 0.5])
def test_what_was_fitted_before_on_the_same_network_leaves_no_trace(
    freeze, task, trial_config, make_network, make_fit, fitted_logits
):
    config = trial_config(freeze=freeze, symmetry="mirror")
    network = make_network(config, task)
    before = make_fit(config, task, np.arange(20, 60), 1, network=network)
    before.train_epoch(0)
    fit = make_fit(config, task, ROWS, network=network)
    for epoch in range(2):
        fit.train_epoch(epoch)
    np.testing.assert_array_equal(fit.logits(ROWS), fitted_logits(config, task))


@pytest.mark.parametrize("freeze", [0.0, 0.5])
def test_scoring_looks_at_one_row_at_a_time_whatever_was_done_before(freeze, task, trial_config, make_fit):
    # Batch-norm and drop-path would tell a batch from a row.
    fit = make_fit(trial_config("test_efficientnet", freeze=freeze, drop_path=0.5), task, ROWS)
    fit.train_epoch(0)
    together = fit.logits(ROWS)
    for row in (0, 31, 59):
        np.testing.assert_allclose(fit.logits(ROWS[[row]])[0], together[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("rows", "batch_size", "trained"), [(60, 16, 48), (60, 60, 60), (60, 61, 60), (25, 512, 25), (3, 2, 2)]
)
def test_the_last_partial_batch_is_left_out_and_a_batch_is_at_most_all_rows(
    rows, batch_size, trained, task, trial_config, make_fit
):
    fit = make_fit(trial_config(batch_size=batch_size), task, ROWS[:rows])
    result = fit.train_epoch(0)
    assert result.images == trained
    assert np.isfinite(result.train_loss)
    assert result.seconds > 0
    assert (fit.micro_batch, fit.note) == (min(rows, batch_size), "")


@pytest.fixture
def short_of_memory(make_network, make_fit):
    """Return a function that fits on a network that can take only so many rows at once, one epoch."""

    def fit_one_epoch(config, task, most):
        network, sizes = make_network(config, task), []

        def refuse(_, inputs):
            sizes.append(len(inputs[0]))
            if sizes[-1] > most:
                raise torch.OutOfMemoryError

        fit = make_fit(config, task, ROWS, network=network)
        network.trained_part.register_forward_pre_hook(refuse)
        return fit, fit.train_epoch(0), network, sizes

    return fit_one_epoch


@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_gradients_of_some_rows_at_a_time_add_up_to_those_of_the_batch(
    weighting, task, trial_config, make_network, make_fit, short_of_memory
):
    config = trial_config(
        "test_vit", batch_size=20, epochs=1, class_weighting=weighting, label_smoothing=0.1, lr=1e-3, clip_norm=0.5
    )
    whole = make_network(config, task)
    expected = make_fit(config, task, ROWS, network=whole).train_epoch(0)
    fit, result, network, sizes = short_of_memory(config, task, 7)
    assert sizes == [20, 10, 5, 5, 5, 5, *(5 for _ in range(8))]  # from the second step on at once
    assert fit.micro_batch == 5
    assert fit.note == "out of memory: gradients of 5 rows at a time, accumulated to 20"
    assert result.images == expected.images
    assert result.train_loss == pytest.approx(expected.train_loss, rel=1e-5)
    trained = dict(whole.model.named_parameters())
    for name, parameter in network.model.named_parameters():
        torch.testing.assert_close(parameter, trained[name], rtol=0, atol=1e-4, msg=name)


def test_batch_norm_that_sees_fewer_rows_at_once_is_said(task, trial_config, short_of_memory):
    fit, result, _, _ = short_of_memory(trial_config("test_resnet", batch_size=20), task, 10)
    assert fit.note == (
        "out of memory: gradients of 10 rows at a time, accumulated to 20; "
        "its batch-norm saw fewer rows at once, which is another training"
    )
    assert np.isfinite(result.train_loss)


def test_a_batch_is_cut_into_parts_of_about_one_size_so_that_batch_norm_sees_no_row_alone(
    task, trial_config, short_of_memory
):
    _, _, _, sizes = short_of_memory(trial_config("test_resnet", batch_size=13), task, 4)
    assert sizes == [13, 7, *(4 * [4, 3, 3, 3])]  # in each of four steps, and never 4, 4, 4, 1


@pytest.mark.parametrize(("backbone", "least"), [("test_resnet", 2), ("test_vit", 1)])
def test_memory_that_holds_no_row_or_no_two_for_batch_norm_is_an_error(
    backbone, least, task, trial_config, short_of_memory
):
    with pytest.raises(torch.OutOfMemoryError):
        short_of_memory(trial_config(backbone, batch_size=16), task, least - 1)


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
def test_balanced_classes_have_the_same_say_however_many_rows_they_have(
    weighting, task, trial_config, monkeypatch, make_fit
):
    numbers = [0.0, 1.0, -2.0]
    monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: Constant(numbers))
    # 2, 18 and 40 rows: a row of class c weighs 60 / (3 * rows of c).
    counts = np.array([2, 18, 40])
    labels = np.repeat(np.arange(3), counts)
    losses = np.log(np.exp(numbers).sum()) - np.array(numbers)
    expected = losses.mean() if weighting == "balanced" else (counts * losses).sum() / 60
    config = trial_config(class_weighting=weighting, batch_size=60, epochs=1)
    fit = make_fit(config, replace(task, labels=labels, classes=3), ROWS)
    assert fit.train_epoch(0).train_loss == pytest.approx(expected, rel=1e-5)


def test_a_class_without_training_rows_does_no_harm(task, trial_config, make_fit):
    rows = np.flatnonzero(task.labels != 3)
    fit = make_fit(trial_config(class_weighting="balanced"), task, rows)
    assert np.isfinite(fit.train_epoch(0).train_loss)


def test_label_smoothing_is_mass_spread_over_all_classes(task, trial_config, monkeypatch, make_fit):
    numbers = [0.0, 1.0, -2.0]
    monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: Constant(numbers))
    losses = np.log(np.exp(numbers).sum()) - np.array(numbers)
    labels = np.full(60, 1)
    config = trial_config(label_smoothing=0.3, batch_size=60, epochs=1)
    fit = make_fit(config, replace(task, labels=labels, classes=3), ROWS)
    # Of 1, the true class has 0.7 and a third of 0.3, the others a third of 0.3 each.
    assert fit.train_epoch(0).train_loss == pytest.approx(0.7 * losses[1] + 0.1 * losses.sum(), rel=1e-5)


def test_the_loss_falls_and_the_digits_are_learnt(digits_task, trial_config, make_fit):
    task = digits_task(300)
    config = trial_config(epochs=6, batch_size=32)
    fit = make_fit(config, task, np.arange(240))
    losses = [fit.train_epoch(epoch).train_loss for epoch in range(6)]
    assert losses[-1] < 0.5 * losses[0]
    held_out = np.arange(240, 300)
    assert (fit.logits(held_out).argmax(axis=1) == task.labels[held_out]).mean() > 0.5
