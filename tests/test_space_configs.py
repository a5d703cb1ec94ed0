import math
from dataclasses import replace

import pytest

from spine_ray.space.config import AUGMENTATIONS, RECIPE_FIELDS, TrialConfig, probe_config
from spine_ray.space.configs import (
    belongs,
    build_config,
    has_probes,
    probe_configs,
    sampled_values,
    searched_fields,
    sized,
    start_configs,
    with_epochs,
)
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
    shared = start_recipe("pretrained")
    assert (first.backbone, second.backbone) == TIER.backbones
    assert (first.resolution, first.freeze) == (224, 0.0)
    assert first.recipe == second.recipe
    assert first.recipe.lr == shared.lr
    assert (first.recipe.epochs, first.recipe.weight_decay) == (4, 0.02)
    assert (first.recipe.label_smoothing, first.recipe.class_weighting) == (0.05, "balanced")
    untouched = [name for name in RECIPE_FIELDS if name not in TIER.recipe]
    assert all(getattr(first.recipe, name) == getattr(shared, name) for name in untouched)


@pytest.mark.parametrize("freeze", [0.0, 0.75])
def test_a_sampled_multiplier_meets_the_start_of_its_freeze_class(freeze: float) -> None:
    config = build_config(TIER, "pretrained", "resnet50.a1_in1k", 320, freeze, {"lr": 2.0})
    assert config.recipe.lr == 2.0 * start_recipe("pretrained").lr


def test_other_sampled_values_are_taken_as_they_are() -> None:
    values = {"weight_decay": 0.3, "label_smoothing": 0.15, "class_weighting": "none"}
    recipe = build_config(TIER, "random", "resnet50.a1_in1k", 224, 0.0, values).recipe
    assert (recipe.weight_decay, recipe.label_smoothing, recipe.class_weighting) == (0.3, 0.15, "none")


def test_an_override_moves_the_start_of_one_backbone_and_no_other() -> None:
    tier = TierSpace(
        name="mid", backbones=("a", "b"), recipe={"lr": Around(3.0)}, overrides={"b": {"lr": 0.01, "symmetry": "none"}}
    )
    a, b = start_configs(tier, "pretrained")
    assert a.recipe == start_recipe("pretrained")
    assert (b.recipe.lr, b.recipe.symmetry) == (0.01, "none")
    assert build_config(tier, "pretrained", "b", 224, 0.0, {"lr": 3.0}).recipe.lr == pytest.approx(0.03)


def test_an_override_leaves_the_range_of_a_distribution_open() -> None:
    tier = TierSpace(name="mid", backbones=("a",), recipe={"lr": Uniform(0.1, 0.5, 0.1)}, overrides={"a": {"lr": 0.2}})
    assert start_configs(tier, "random")[0].recipe.lr == 0.2
    assert build_config(tier, "random", "a", 224, 0.0, {"lr": 0.4}).recipe.lr == 0.4


DIALLED = ("crop_area_min", "crop_aspect_max", "color_jitter", "trivial_augment")


def dialled(recipe) -> dict[str, bool | float]:
    return {name: getattr(recipe, name) for name in DIALLED}


@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_start_recipes_stand_where_their_dial_says(weights) -> None:
    start = start_recipe(weights)
    assert dialled(start) == AUGMENTATIONS[start.augment]


@pytest.mark.parametrize("level", AUGMENTATIONS)
def test_the_dial_sets_what_a_space_leaves_open(level: str) -> None:
    tier = TierSpace(name="mid", backbones=("a",), recipe={"augment": level})
    assert dialled(start_configs(tier, "pretrained")[0].recipe) == AUGMENTATIONS[level]
    own = replace(tier, recipe={"augment": level, "crop_area_min": 0.5}, overrides={"a": {"color_jitter": 0.1}})
    expected = {**AUGMENTATIONS[level], "crop_area_min": 0.5, "color_jitter": 0.1}
    assert dialled(start_configs(own, "pretrained")[0].recipe) == expected


def test_a_searched_dial_takes_its_settings_along_and_back() -> None:
    recipe = {"augment": Choice(("medium", "strong", "none")), "crop_aspect_max": 1.5}
    tier = TierSpace(name="mid", backbones=("a",), recipe=recipe)
    for level in ("strong", "none"):
        config = build_config(tier, "pretrained", "a", 224, 0.0, {"augment": level})
        assert dialled(config.recipe) == {**AUGMENTATIONS[level], "crop_aspect_max": 1.5}
        assert belongs(tier, "pretrained", config)
        assert sampled_values(tier, "pretrained", config) == {"augment": level}
    strange = replace(config, recipe=replace(config.recipe, crop_area_min=0.123))
    assert not belongs(tier, "pretrained", strange)


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
    for freeze in TIER.trained_freezes:
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
        ("resnet50.a1_in1k", 224, 1.0, {}, "the tier has no freeze 1.0; it has 0.0, 0.75"),
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
    short = with_epochs(TIER, 3)
    config = start_configs(short, "pretrained")[0]
    assert config.recipe.epochs == 3
    assert config.trial_id != start_configs(TIER, "pretrained")[0].trial_id
    assert belongs(short, "pretrained", config)
    assert not belongs(TIER, "pretrained", config)


def test_a_probe_has_no_recipe_and_a_fine_tune_has_one() -> None:
    probe, fine_tune = probe_config("resnet50.a1_in1k", 224), start_configs(TIER, "pretrained")[0]
    assert (probe.is_probe, fine_tune.is_probe) == (True, False)
    assert fine_tune.training is fine_tune.recipe
    with pytest.raises(ValueError, match=r"resnet50-224-probe-\w{8} is a probe: it has no recipe"):
        _ = probe.training
    with pytest.raises(ValueError, match=r"a probe .* has no recipe: resnet50.a1_in1k at freeze depth 1"):
        replace(fine_tune, freeze=1.0)
    with pytest.raises(ValueError, match=r"a fine-tune needs a recipe: resnet50.a1_in1k at freeze depth 0.75"):
        replace(probe, freeze=0.75)


def test_a_probe_is_named_by_what_acts_on_it_and_survives_json() -> None:
    probe = probe_config("resnet50.a1_in1k", 224)
    assert probe.trial_id.startswith("resnet50-224-probe-")
    assert TrialConfig.from_dict(probe.to_dict()) == probe
    others = [probe_config("resnet50.a1_in1k", 320), probe_config("resnet50.b1k_in1k", 224)]
    assert len({config.trial_id for config in [probe, *others]}) == 3


def test_pretrained_backbones_are_probed_at_every_resolution_whether_listed_or_not() -> None:
    expected = [(backbone, resolution) for resolution in (224, 320) for backbone in TIER.backbones]
    for freezes in ((0.0,), (0.0, 0.75, 1.0), (1.0,)):
        tier = replace(TIER, resolutions=(320, 224), freezes=freezes)  # the smallest resolution first all the same
        found = probe_configs(tier, "pretrained")
        assert [(config.backbone, config.resolution) for config in found] == expected
        assert all(config == probe_config(config.backbone, config.resolution) for config in found)
        assert has_probes(tier, "pretrained")


def test_random_backbones_are_probed_only_where_that_was_asked_for() -> None:
    assert len(probe_configs(TIER, "random")) == 4
    unasked = replace(TIER, freezes=(0.0, 0.75))
    assert not has_probes(unasked, "random")
    assert probe_configs(unasked, "random") == ()


def test_a_probe_belongs_to_a_tier_that_has_probes_at_its_backbone_and_resolution() -> None:
    unasked = replace(TIER, freezes=(0.0, 0.75))
    probe = probe_config("resnet50.a1_in1k", 320)
    assert belongs(TIER, "random", probe) and belongs(unasked, "pretrained", probe)
    assert not belongs(unasked, "random", probe)
    assert not belongs(TIER, "pretrained", probe_config("resnet50.a1_in1k", 96))
    assert not belongs(TIER, "pretrained", probe_config("vit", 320))


def test_start_recipes_are_fine_tunes_and_a_tier_of_probes_alone_has_none() -> None:
    listed_first = replace(TIER, freezes=(1.0, 0.75, 0.0))
    assert [config.freeze for config in start_configs(listed_first, "pretrained")] == [0.75, 0.75]
    assert start_configs(replace(TIER, freezes=(1.0,)), "pretrained") == ()


@pytest.mark.parametrize(
    ("rows", "epochs"),
    [(10, 50), (100, 50), (240, 29), (800, 8), (8000, 5), (80_000, 5)],
    ids=["fewer than a batch", "at most 50 epochs", "7 steps an epoch", "25 steps an epoch", "at least 5", "many"],
)
def test_epochs_that_a_file_leaves_open_are_those_of_200_steps_within_limits(rows: int, epochs: int) -> None:
    open_tier = replace(TIER, recipe={"batch_size": 32})
    assert sized(open_tier, "pretrained", rows).recipe["epochs"] == epochs
    assert sized(open_tier, "random", rows) == open_tier
    fixed = with_epochs(open_tier, 3)
    assert sized(fixed, "pretrained", rows) == fixed


NATIVE = TierSpace(
    name="mid", backbones=("a", "b"), resolutions=("native", 96), freezes=(0.0, 1.0), natives={"a": 96, "b": 64}
)


def test_native_is_the_side_at_which_each_backbone_was_pretrained() -> None:
    assert (NATIVE.resolutions_of("a"), NATIVE.resolutions_of("b")) == ((96,), (64, 96))
    assert [start.resolution for start in start_configs(NATIVE, "pretrained")] == [96, 64]
    probes = [(probe.backbone, probe.resolution) for probe in probe_configs(NATIVE, "pretrained")]
    assert probes == [("b", 64), ("a", 96), ("b", 96)]
    assert belongs(NATIVE, "pretrained", probe_config("b", 96))
    assert not belongs(NATIVE, "pretrained", probe_config("a", 64))


def test_native_means_nothing_before_it_was_looked_up() -> None:
    with pytest.raises(ValueError, match="the native resolution of a was not looked up"):
        start_configs(replace(NATIVE, natives={}), "pretrained")
