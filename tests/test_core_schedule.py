import math

import pytest

from spine_ray.core.backbone import make_model
from spine_ray.core.freeze import classifier_names, freeze_backbone
from spine_ray.core.schedule import learning_rate_factor, make_optimizer, set_learning_rate


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.1),  # the first of ten steps of warm-up
        (4, 0.5),
        (9, 1.0),  # the last of them
        (10, 1.0),  # cos 0
        (55, 0.5),  # halfway through the decay: cos(pi / 2) = 0
        (40, 0.75),  # a third: (1 + cos(pi / 3)) / 2
        (70, 0.25),  # two thirds
        (99, 0.5 * (1 + math.cos(math.pi * 89 / 90))),
        (100, 0.0),
    ],
)
def test_the_rate_rises_in_a_line_and_falls_as_half_a_cosine(step, factor):
    assert learning_rate_factor(step, 100, 0.1) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize(("steps", "share"), [(1, 0.0), (1, 0.5), (2, 0.5), (3, 0.1), (1000, 0.0), (7, 0.5)])
def test_every_step_of_a_training_has_a_rate_above_0_and_at_most_the_peak(steps, share):
    factors = [learning_rate_factor(step, steps, share) for step in range(steps)]
    assert all(0.0 < factor <= 1.0 for factor in factors)
    assert max(factors) == pytest.approx(1.0)
    top = factors.index(max(factors))
    assert factors[:top] == sorted(factors[:top])
    assert factors[top:] == sorted(factors[top:], reverse=True)


def grouped(model, recipe):
    """The optimizer's learning rate and weight decay of each parameter, by name."""
    optimizer = make_optimizer(model, frozenset(classifier_names(model)), recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = [
        (names[id(parameter)], (group["lr"], group["weight_decay"]))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(listed) == len(dict(listed))
    return dict(listed)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_heads_are_faster_and_only_matrices_and_kernels_decay(backbone, trial_config):
    model = make_model(backbone, 32, 10)
    recipe = trial_config(lr=0.01, head_lr_factor=5.0, weight_decay=0.3).recipe
    settings = grouped(model, recipe)
    head = {"test_resnet": "fc", "test_vit": "head", "test_efficientnet": "classifier"}[backbone]
    assert set(settings) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        expected = (0.05 if name.startswith(f"{head}.") else 0.01, 0.3 if parameter.ndim > 1 else 0.0)
        assert settings[name] == pytest.approx(expected), name
    assert settings[f"{head}.weight"] == pytest.approx((0.05, 0.3))
    assert settings[f"{head}.bias"] == pytest.approx((0.05, 0.0))


@pytest.mark.parametrize("freeze", [0.5, 1.0])
def test_what_is_frozen_is_not_in_the_optimizer(freeze, trial_config):
    model = make_model("test_resnet", 32, 10)
    frozen = freeze_backbone(model, freeze)
    settings = grouped(model, trial_config().recipe)
    assert set(settings) == {name for name, _ in model.named_parameters()} - frozen
    assert (set(settings) == set(classifier_names(model))) == (freeze == 1.0)


def test_all_groups_keep_their_proportions_along_the_schedule(trial_config):
    recipe = trial_config(lr=0.01, head_lr_factor=5.0).recipe
    optimizer = make_optimizer(make_model("test_resnet", 32, 10), frozenset(("fc.weight", "fc.bias")), recipe)
    for factor in (0.5, 0.1, 1.0):
        set_learning_rate(optimizer, factor)
        rates = sorted({group["lr"] for group in optimizer.param_groups})
        assert rates == pytest.approx([0.01 * factor, 0.05 * factor])
