from typing import Any

import pytest

from spine_ray.space.keys import assign, check_keys, tier_levels

RAW: dict[str, Any] = {
    "trials": 4,
    "recipe": {"epochs": 3, "lr": 0.1},
    "overrides": {"a.b_c": {"lr": 0.2}},
    "tiers": {
        "light": {"backbone": "a.b_c", "recipe": {"lr": 0.3}},
        "mid": {"backbone": ["a.b_c", "d"], "trials": 5, "overrides": {"d": {"lr": 0.4}}},
        "heavy": {"backbone": "e"},
    },
}


def test_tiers_inherit_and_merge_recipes_key_by_key() -> None:
    levels = tier_levels(check_keys(RAW))
    assert levels["light"]["recipe"] == {"epochs": 3, "lr": 0.3}
    assert levels["mid"]["recipe"] == {"epochs": 3, "lr": 0.1}
    assert [level["trials"] for level in levels.values()] == [4, 5, 4]


def test_overrides_reach_the_tiers_that_hold_the_backbone() -> None:
    levels = tier_levels(check_keys(RAW))
    assert levels["light"]["overrides"] == {"a.b_c": {"lr": 0.2}}
    assert levels["mid"]["overrides"] == {"a.b_c": {"lr": 0.2}, "d": {"lr": 0.4}}
    assert levels["heavy"]["overrides"] == {}


def test_an_override_for_an_unknown_backbone_is_refused() -> None:
    with pytest.raises(ValueError, match="overrides: no tier holds the backbone nobody"):
        tier_levels({**RAW, "overrides": {"nobody": {"lr": 1}}})


def test_a_space_without_tiers_is_one_tier() -> None:
    assert list(tier_levels({"backbone": "a"})) == ["single"]
    assert list(tier_levels({"backbone": "a", "tier": "mid"})) == ["mid"]


def test_assign_without_a_tier_holds_in_all_of_them() -> None:
    levels = tier_levels(assign(RAW, "recipe.lr", 0.9))
    assert [level["recipe"]["lr"] for level in levels.values()] == [0.9, 0.9, 0.9]
    levels = tier_levels(assign(RAW, "trials", 1))
    assert [level["trials"] for level in levels.values()] == [1, 1, 1]


def test_assign_with_a_tier_holds_there_alone() -> None:
    levels = tier_levels(assign(RAW, "tiers.mid.recipe.lr", 0.9))
    assert [level["recipe"]["lr"] for level in levels.values()] == [0.3, 0.9, 0.1]


def test_assign_finds_the_backbone_in_a_key_with_many_dots() -> None:
    assert assign(RAW, "overrides.a.b_c.lr", 0.9)["overrides"]["a.b_c"] == {"lr": 0.9}
    assert assign(RAW, "tiers.mid.overrides.a.b_c.lr", 0.9)["tiers"]["mid"]["overrides"]["a.b_c"] == {"lr": 0.9}
    assert assign(RAW, "overrides.a.b_c", {"trivial_augment": True})["overrides"]["a.b_c"] == {"trivial_augment": True}


def test_assign_changes_neither_its_input_nor_shares_with_it() -> None:
    before = repr(RAW)
    result = assign(RAW, "recipe.lr", 0.9)
    result["tiers"]["mid"]["trials"] = 99
    assert repr(RAW) == before


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("epohcs", "a space has no key 'epohcs'; allowed: name, metric"),
        ("trails", r"a space has no key 'trails' \(did you mean trials\?\)"),
        ("recipe.epoch", r"recipe has no key 'epoch' \(did you mean epochs\?\); allowed: epochs, batch_size"),
        ("tiers.big.trials", "the space has no tier 'big'; its tiers: light, mid, heavy"),
        ("tiers.mid", "tiers.mid has no key ''"),
        ("tiers.mid.folds", "tiers.mid has no key 'folds'"),
        ("trials.x", "trials is a single value"),
    ],
)
def test_assign_refuses_keys_that_do_not_exist(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        assign(RAW, key, 1)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "a space file must be a mapping"),
        ([1], "a space file must be a mapping"),
        ({1: 2}, "a space has no key 1"),
        ({"recipe": {"learning_rate": 1}}, "recipe has no key 'learning_rate'"),
        ({"recipe": None}, "recipe must be a mapping"),
        ({"overrides": {"a": 3}}, "overrides.a must be a mapping"),
        ({"overrides": {"a": {"rate": 3}}}, "overrides.a has no key 'rate'"),
        ({"tiers": ["light"]}, "tiers must be a mapping"),
        ({"tiers": {"light": None}}, "tiers.light must be a mapping"),
        ({"tiers": {"light": {"folds": 3}}}, "tiers.light has no key 'folds'; allowed: question, backbone"),
        ({"tiers": {"light": {"recipe": {"x": 3}}}}, "tiers.light.recipe has no key 'x'"),
        ({"tier": "mid", "tiers": {}}, "cannot stand beside tiers"),
    ],
)
def test_check_keys_names_the_level_of_a_mistake(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_keys(raw)


def test_tier_levels_refuses_an_empty_ladder() -> None:
    with pytest.raises(ValueError, match="tiers names no tier"):
        tier_levels({"tiers": {}})
