import math

import pytest

from spine_ray.space.config import RECIPE_FIELDS, freeze_class
from spine_ray.space.configs import belongs, build_config, sampled_values, searched_fields, shortened, start_configs
from spine_ray.space.fields import Around, Choice, LogUniform, Uniform
from spine_ray.space.recipes import start_recipe
from spine_ray.space.schema import TierSpace

TIER = TierSpace(
    name="mid",
    backbones=("resnet50.a1_in1k", "efficientnet_b3.ra2_in1k"),
    resolutions=(224, 320),
    freezes=(0.0, 0.75, 1.0),
    recipe={
        "epochs": 4,
        "lr": Around(3.0),
        "weight_decay": LogUniform(1e-3, 1.0, 0.02),
        "label_smoothing": Uniform(0.0, 0.2, 0.05),
        "class_weighting": Choice(("balanced", "none")),
    },
)


def test_searched_fields_are_those_with_a_distribution() -> None:
    assert list(searched_fields(TIER)) == ["lr", "weight_decay", "label_smoothing", "class_weighting"]


def test_start_configs_begin_at_the_first_value_of_everything() -> None:
    first, second = start_configs(TIER, "pretrained")
    shared = start_recipe("pretrained", "full")
    assert (first.backbone, second.backbone) == TIER.backbones
    assert (first.resolution, first.freeze) == (224, 0.0)
    assert first.recipe == second.recipe
    assert first.recipe.lr == shared.lr
    assert (first.recipe.epochs, first.recipe.weight_decay) == (4, 0.02)
    assert (first.recipe.label_smoothing, first.recipe.class_weighting) == (0.05, "balanced")
    untouched = [name for name in RECIPE_FIELDS if name not in TIER.recipe]
    assert all(getattr(first.recipe, name) == getattr(shared, name) for name in untouched)


@pytest.mark.parametrize("freeze", [0.0, 0.75, 1.0])
def test_a_sampled_multiplier_meets_the_start_of_its_freeze_class(freeze: float) -> None:
    config = build_config(TIER, "pretrained", "resnet50.a1_in1k", 320, freeze, {"lr": 2.0})
    assert config.recipe.lr == 2.0 * start_recipe("pretrained", freeze_class(freeze)).lr


def test_other_sampled_values_are_taken_as_they_are() -> None:
    values = {"weight_decay": 0.3, "label_smoothing": 0.15, "class_weighting": "none"}
    recipe = build_config(TIER, "random", "resnet50.a1_in1k", 224, 0.0, values).recipe
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.class_weighting) == (0.3, 0.15, "none")


def test_an_override_moves_the_start_of_one_backbone_and_no_other() -> None:
    tier = TierSpace(
        name="mid", backbones=("a", "b"), recipe={"lr": Around(3.0)}, overrides={"b": {"lr": 0.01, "flip": False}}
    )
    a, b = start_configs(tier, "pretrained")
    assert a.recipe == start_recipe("pretrained", "full")
    assert (b.recipe.lr, b.recipe.flip) == (0.01, False)
    assert build_config(tier, "pretrained", "b", 224, 0.0, {"lr": 3.0}).recipe.lr == pytest.approx(0.03)


def test_an_override_leaves_the_range_of_a_distribution_open() -> None:
    tier = TierSpace(name="mid", backbones=("a",), recipe={"lr": Uniform(0.1, 0.5, 0.1)}, overrides={"a": {"lr": 0.2}})
    assert start_configs(tier, "random")[0].recipe.lr == 0.2
    assert build_config(tier, "random", "a", 224, 0.0, {"lr": 0.4}).recipe.lr == 0.4


def test_trial_ids_are_equal_exactly_when_what_is_trained_is_equal() -> None:
    start = start_configs(TIER, "pretrained")[0]
    values = {"lr": 1.0, "weight_decay": 0.02, "label_smoothing": 0.05, "class_weighting": "balanced"}
    again = build_config(TIER, "pretrained", "resnet50.a1_in1k", 224, 0.0, values)
    assert again.trial_id == start.trial_id
    others = [
        build_config(TIER, "pretrained", "resnet50.a1_in1k", 320, 0.0, {}),
        build_config(TIER, "pretrained", "resnet50.a1_in1k", 224, 0.75, {}),
        build_config(TIER, "pretrained", "resnet50.a1_in1k", 224, 0.0, {"lr": 1.1}),
        build_config(TIER, "random", "resnet50.a1_in1k", 224, 0.0, {}),
        start_configs(TIER, "pretrained")[1],
    ]
    assert len({config.trial_id for config in [start, *others]}) == 6


def test_sampled_values_are_the_inverse_of_build_config() -> None:
    values = {"lr": 0.7, "weight_decay": 0.3, "label_smoothing": 0.15, "class_weighting": "none"}
    for freeze in TIER.freezes:
        config = build_config(TIER, "pretrained", "resnet50.a1_in1k", 224, freeze, values)
        found = sampled_values(TIER, "pretrained", config)
        assert math.isclose(float(found.pop("lr")), 0.7, rel_tol=1e-12)
        assert found == {name: value for name, value in values.items() if name != "lr"}


@pytest.mark.parametrize(
    ("backbone", "resolution", "freeze", "values", "message"),
    [
        ("vit", 224, 0.0, {}, "the tier has no backbone 'vit'; it has resnet50.a1_in1k, "),
        ("resnet50.a1_in1k", 96, 0.0, {}, "the tier has no resolution 96; it has 224, 320"),
        ("resnet50.a1_in1k", 224, 0.5, {}, "the tier has no freeze 0.5"),
        ("resnet50.a1_in1k", 224, 0.0, {"epochs": 3}, "no searched recipe field 'epochs'; it has lr, weight_decay"),
        ("resnet50.a1_in1k", 224, 0.0, {"weight_decay": -1.0}, "weight_decay must be a number"),
    ],
)
def test_build_config_refuses_what_the_tier_does_not_hold(
    backbone: str, resolution: int, freeze: float, values: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(TIER, "pretrained", backbone, resolution, freeze, values)


def test_a_shortened_tier_has_other_trials_and_counts_them_as_its_own() -> None:
    short = shortened(TIER, 3)
    config = start_configs(short, "pretrained")[0]
    assert config.recipe.epochs == 3
    assert config.trial_id != start_configs(TIER, "pretrained")[0].trial_id
    assert belongs(short, "pretrained", config)
    assert not belongs(TIER, "pretrained", config)
