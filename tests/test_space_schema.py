import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spine_ray.space.fields import Around, Choice, LogUniform, Uniform
from spine_ray.space.schema import Space, TierSpace

TIER = TierSpace(name="light", backbones=("a", "b"))
SPACE = Space(name="here", tiers=(TIER,), file=Path("here.yaml"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbones": ()}, "a tier needs at least one backbone"),
        ({"backbones": ("a", "a")}, "backbone: a is there twice"),
        ({"backbones": ({"choice": "a"},)}, "backbone must be a name or a list of names"),
        ({"resolutions": ()}, "resolution is an empty list"),
        ({"resolutions": (0,)}, "resolution must be a whole number of at least 1, not 0"),
        ({"resolutions": (-32,)}, "resolution must be a whole number of at least 1, not -32"),
        ({"resolutions": (64.0,)}, "resolution must be a whole number"),
        ({"resolutions": ("natve",)}, "resolution must be a whole number of px or `native`, not 'natve'"),
        ({"resolutions": (64, 64)}, "resolution: 64 is there twice"),
        ({"freezes": ()}, "freeze is an empty list"),
        ({"freezes": (1.5,)}, r"freeze must lie in 0.0 \(all trained\) to 1.0 \(head only\), not 1.5"),
        ({"freezes": (-0.1,)}, "freeze must lie in"),
        ({"freezes": (float("nan"),)}, "freeze must lie in"),
        ({"trials": 0}, "trials must be a whole number of at least 1, not 0"),
        ({"trials": True}, "trials must be a whole number"),
        ({"gate": False}, "gate must be one of auto, always, never, not False"),
        ({"name": "a b"}, "the name of a tier must be"),
        ({"name": "../up"}, "the name of a tier must be"),
        ({"question": 3}, "question must be text, not 3"),
        ({"recipe": {"epochs": Choice((3, 5))}}, "recipe.epochs must be one number within a tier"),
        ({"recipe": {"batch_size": Around(2.0)}}, "recipe.batch_size must be one number within a tier"),
        ({"recipe": {"epochs": 0}}, "recipe.epochs must be a whole number of at least 1, not 0"),
        ({"recipe": {"lr": "fast"}}, "recipe.lr must be a number above 0"),
        ({"recipe": {"lr": LogUniform(1e-3, 20.0, 1.0)}}, "recipe.lr must be a number .* not 20.0"),
        (
            {"recipe": {"trivial_augment": Choice((True, "no"))}},
            "recipe.trivial_augment must be true or false, not 'no'",
        ),
        ({"recipe": {"class_weighting": "some"}}, "recipe.class_weighting must be one of none, balanced"),
        ({"recipe": {"warmup_share": Around(6.0)}}, "recipe.warmup_share must be a number"),
        ({"recipe": {"drop_path": Around(2.0)}}, "recipe.drop_path cannot be searched around its start, which is 0"),
        ({"recipe": {"trivial_augment": Around(2.0)}}, "recipe.trivial_augment cannot be searched around its start"),
        ({"overrides": {"c": {"lr": 0.1}}}, r"overrides: c is no backbone of this tier \(a, b\)"),
        ({"overrides": {"a": {"epochs": 3}}}, "overrides: epochs must be the same for all backbones"),
        ({"overrides": {"a": {"lr": Around(2.0)}}}, "overrides: lr must be a single value"),
        ({"overrides": {"a": {"lr": -1.0}}}, "recipe.lr must be a number above 0"),
    ],
)
def test_a_tier_refuses_what_cannot_be_searched(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TIER, **change)


@pytest.mark.parametrize(
    ("searched", "value", "message"),
    [
        (Choice((0.1, 0.2)), 0.3, "overrides: lr 0.3 is none of 0.1, 0.2"),
        (Uniform(0.1, 0.2, 0.1), 0.3, "overrides: lr 0.3 lies outside 0.1 to 0.2"),
        (LogUniform(0.1, 0.2, 0.1), 0.05, "overrides: lr 0.05 lies outside 0.1 to 0.2"),
        (Around(3.0), 5.0, "recipe.lr must be a number .* not 15.0"),
    ],
)
def test_an_override_starts_inside_what_is_searched(searched: Any, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TIER, recipe={"lr": searched}, overrides={"a": {"lr": value}})


def test_an_override_of_zero_cannot_be_multiplied() -> None:
    with pytest.raises(ValueError, match="weight_decay is searched around its start, which cannot be 0"):
        replace(TIER, recipe={"weight_decay": Around(3.0)}, overrides={"a": {"weight_decay": 0.0}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"metric": "f1"},
            "metric must be one of log_loss, accuracy, balanced_accuracy, macro_f1, expected_cost, not 'f1'",
        ),
        ({"folds": 1}, "folds must be a whole number of at least 2, not 1"),
        ({"test_share": 0.0}, "test_share must lie above 0 and below 1, not 0"),
        ({"test_share": 1.0}, "test_share must lie above 0 and below 1, not 1"),
        ({"min_effect": -0.1}, "min_effect must be 0 or more"),
        ({"min_effect": float("nan")}, "min_effect must be 0 or more"),
        ({"max_collapsed_share": -0.1}, "max_collapsed_share must lie in 0 to 1, not -0.1"),
        ({"max_collapsed_share": 1.1}, "max_collapsed_share must lie in 0 to 1, not 1.1"),
        ({"max_collapsed_share": float("nan")}, "max_collapsed_share must lie in 0 to 1, not nan"),
        ({"max_members": 0}, "max_members must be a whole number of at least 1"),
        ({"reduction": 0}, "reduction must be a whole number of at least 1"),
        ({"weights": 3}, "weights must be auto, pretrained, random or a folder, not 3"),
        ({"budget": "soon"}, "a duration is written 90s, 30m, 2h"),
        ({"name": ".."}, "the name of a space must be"),
        ({"tiers": ()}, "a space needs at least one tier"),
        ({"tiers": (TIER, TIER)}, "light is there twice"),
    ],
)
def test_a_space_refuses_settings_outside_their_ranges(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPACE, **change)


def test_notes_flag_overrides_and_backbones_that_are_left_out() -> None:
    tier = replace(TIER, trials=1, overrides={"a": {"lr": 0.1, "symmetry": "none"}})
    assert replace(SPACE, tiers=(tier,)).notes == (
        "tier light: 1 trial for 2 backbones, so b will not be tried",
        "tier light: a does not start where the others do: lr 0.1, symmetry none",
    )
    assert SPACE.notes == ()


def test_a_space_survives_the_way_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(SPACE)) == SPACE
