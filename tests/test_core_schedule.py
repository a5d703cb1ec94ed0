import math

import pytest
from timm.optim import param_groups_layer_decay

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


HEADS = {"test_resnet": "fc", "test_vit": "head", "test_efficientnet": "classifier"}
EXEMPT = {"test_resnet": set(), "test_vit": {"pos_embed", "cls_token"}, "test_efficientnet": set()}
"""Parameters of several axes that timm never decays."""


@pytest.mark.parametrize("backbone", HEADS)
def test_heads_are_faster_and_only_matrices_and_kernels_decay(backbone, trial_config):
    model = make_model(backbone, 32, 10)
    recipe = trial_config(lr=0.01, head_lr_factor=5.0, weight_decay=0.3).recipe
    settings = grouped(model, recipe)
    head = HEADS[backbone]
    assert set(settings) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and name not in EXEMPT[backbone]
        expected = (0.05 if name.startswith(f"{head}.") else 0.01, 0.3 if decays else 0.0)
        assert settings[name] == pytest.approx(expected), name
    assert settings[f"{head}.weight"] == pytest.approx((0.05, 0.3))
    assert settings[f"{head}.bias"] == pytest.approx((0.05, 0.0))


@pytest.mark.parametrize("backbone", HEADS)
def test_rates_fall_from_block_to_block_towards_the_stem_as_timm_has_them(backbone, trial_config):
    """timm's own groups are the reference; its head is one layer above the last block, as ours."""
    model = make_model(backbone, 32, 10)
    recipe = trial_config(lr=0.01, layer_decay=0.5, head_lr_factor=1.0).recipe
    scales = {}
    for group in param_groups_layer_decay(model, layer_decay=0.5):
        scales |= {id(parameter): group["lr_scale"] for parameter in group["params"]}
    head = frozenset(classifier_names(model))
    shared = {name for name, parameter in model.named_parameters() if scales[id(parameter)] == 1.0} - head
    settings = grouped(model, recipe)
    for name, parameter in model.named_parameters():
        # What timm counts to the head beside the classifier, a last norm, is our last block.
        factor = 0.5 if name in shared else scales[id(parameter)] * (0.5 if shared and name not in head else 1.0)
        assert settings[name][0] == pytest.approx(0.01 * factor), name


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
