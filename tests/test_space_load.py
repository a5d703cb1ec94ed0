from dataclasses import replace
from pathlib import Path

import pytest

from spine_ray.space.configs import start_configs
from spine_ray.space.fields import Around, LogUniform
from spine_ray.space.load import drop_frozen, load_space, space_names
from spine_ray.space.stand_ins import spaces_folder

ONE_BACKBONE = ("mobilenetv3", "resnet50", "efficientnet_b3")

LADDER = """
question: Which?
trials: 6
resolution: [64, 96]
freeze: [0, 0.5]
recipe: {epochs: 3, lr: {log_uniform: [1e-5, 1e-2], start: 1e-3}}
tiers:
  light: {backbone: resnet18, question: "Any?"}
  mid: {backbone: [resnet34, resnet50], trials: 9, recipe: {lr: {around_start: 3}}, gate: never}
  heavy: {backbone: resnet101, resolution: 128, recipe: {epochs: 5}}
"""


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("name", space_names())
def test_every_space_that_comes_along_loads_and_starts(name: str) -> None:
    space = load_space(name)
    assert space.name == name
    assert space.question
    for tier in space.tiers:
        for kind in ("pretrained", "random"):
            configs = start_configs(tier, kind)
            assert len({config.trial_id for config in configs}) == len(tier.backbones)
        assert tier.trials >= len(tier.backbones)


@pytest.mark.parametrize("name", space_names())
def test_every_space_that_comes_along_opens_with_question_cost_and_command(name: str) -> None:
    header = (spaces_folder() / f"{name}.yaml").read_text(encoding="utf-8").split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "# Question " in header
    assert "# Cost " in header
    assert f"--space {name}" in header


@pytest.mark.parametrize("name", space_names())
def test_a_resolved_space_reads_back_as_the_same_space(name: str, tmp_path: Path) -> None:
    space = load_space(
        name, sets=["min_effect=0.03", "max_collapsed_share=0.25", "recipe.trivial_augment=[true, false]"]
    )
    again = load_space(write(tmp_path, space.text))
    assert replace(again, file=space.file) == space


def test_one_backbone_spaces_differ_in_one_line() -> None:
    texts = [(spaces_folder() / f"{name}.yaml").read_text(encoding="utf-8").splitlines() for name in ONE_BACKBONE]
    assert len({len(lines) for lines in texts}) == 1
    differing = [lines for lines in zip(*texts, strict=True) if len(set(lines)) > 1]
    assert len(differing) == 1
    assert all(line.startswith("backbone: ") for line in differing[0])


def test_the_ladder_climbs_from_light_to_heavy() -> None:
    space = load_space("ladder")
    assert [(tier.name, tier.trials) for tier in space.tiers] == [("light", 8), ("mid", 12), ("heavy", 10)]
    assert [len(tier.backbones) for tier in space.tiers] == [2, 4, 4]
    light, mid, heavy = (tier.recipe["lr"] for tier in space.tiers)
    assert light == mid == Around(3.0)
    assert heavy == Around(10.0)
    assert space.folds == 5


def test_tiers_resolve_what_they_inherit(tmp_path: Path) -> None:
    light, mid, heavy = load_space(write(tmp_path, LADDER)).tiers
    assert light.recipe == {"epochs": 3, "lr": LogUniform(1e-5, 1e-2, 1e-3)}
    assert mid.recipe == {"epochs": 3, "lr": Around(3.0)}
    assert (light.trials, mid.trials, heavy.trials) == (6, 9, 6)
    assert (light.resolutions, heavy.resolutions) == ((64, 96), (128,))
    assert heavy.freezes == (0.0, 0.5)
    assert (light.question, mid.question) == ("Any?", "Which?")
    assert heavy.recipe["epochs"] == 5


def test_no_gate_stands_before_the_first_tier(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, LADDER), sets=["gate=never"])
    assert [tier.gate for tier in space.tiers] == ["always", "never", "never"]
    with pytest.raises(ValueError, match=r"tiers.light.gate: no gate stands before the first tier"):
        load_space(write(tmp_path, LADDER), sets=["tiers.light.gate=never"])


def test_a_file_without_tiers_is_one_tier_named_by_its_file(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "backbone: resnet18"))
    assert space.name == "mine"
    assert [(tier.name, tier.backbones) for tier in space.tiers] == [("single", ("resnet18",))]
    assert load_space(write(tmp_path, "backbone: resnet18\ntier: heavy")).tiers[0].name == "heavy"


def test_sets_without_a_tier_hold_in_every_tier(tmp_path: Path) -> None:
    sets = ["recipe.epochs=2", "trials=1", "resolution=32", "recipe.lr=1e-3"]
    for tier in load_space(write(tmp_path, LADDER), sets=sets).tiers:
        assert (tier.recipe, tier.trials, tier.resolutions) == ({"epochs": 2, "lr": 0.001}, 1, (32,))


def test_sets_with_a_tier_hold_there_alone(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, LADDER), sets=["tiers.mid.gate=always", "tiers.mid.backbone=[a, b]"])
    assert [tier.gate for tier in space.tiers] == ["always", "always", "auto"]
    assert [tier.backbones for tier in space.tiers] == [("resnet18",), ("a", "b"), ("resnet101",)]


def test_the_sample_replaces_the_file_and_sets_replace_the_sample(tmp_path: Path) -> None:
    sample = {"resolution": 32, "folds": 3, "recipe.epochs": 12, "budget": "12m"}
    space = load_space(write(tmp_path, LADDER), sample=sample, sets=["recipe.epochs=1", "tiers.mid.resolution=48"])
    assert (space.folds, space.budget) == (3, "12m")
    assert [tier.resolutions for tier in space.tiers] == [(32,), (48,), (32,)]
    assert [tier.recipe["epochs"] for tier in space.tiers] == [1, 1, 1]
    plain = load_space(write(tmp_path, LADDER), sample=sample)
    assert [tier.recipe["epochs"] for tier in plain.tiers] == [12, 12, 12]


def test_a_folder_of_weights_is_found_from_the_space_file(tmp_path: Path) -> None:
    file = write(tmp_path, "backbone: a\nweights: here/small")
    assert load_space(file).weights == str(tmp_path.resolve() / "here" / "small")
    assert load_space(file, sets=["weights=auto"]).weights == "auto"
    assert load_space("smoke").weights == str(spaces_folder() / "small_weights")


def test_drop_frozen_keeps_what_is_trained_and_says_why(tmp_path: Path) -> None:
    space, reasons = drop_frozen(load_space(write(tmp_path, LADDER)))
    assert [tier.freezes for tier in space.tiers] == [(0.0,)] * 3
    assert len(reasons) == 3
    assert reasons[0].startswith("tier light: freeze 0.5 dropped, because with random weights")


def test_drop_frozen_trains_all_where_only_frozen_depths_stood(tmp_path: Path) -> None:
    space, _ = drop_frozen(load_space(write(tmp_path, "backbone: a\nfreeze: 1.0")))
    assert space.tiers[0].freezes == (0.0,)


def test_drop_frozen_leaves_what_was_asked_for(tmp_path: Path) -> None:
    sets = ["tiers.mid.freeze=[0.25, 1]"]
    space, reasons = drop_frozen(load_space(write(tmp_path, LADDER), sets=sets), sets=sets)
    assert [tier.freezes for tier in space.tiers] == [(0.0,), (0.25, 1.0), (0.0,)]
    assert len(reasons) == 2
    everywhere = ["freeze=1"]
    space, reasons = drop_frozen(load_space(write(tmp_path, LADDER), sets=everywhere), sets=everywhere)
    assert [tier.freezes for tier in space.tiers] == [(1.0,)] * 3
    assert reasons == ()


def test_drop_frozen_says_nothing_when_nothing_is_frozen(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, "backbone: a"))
    assert drop_frozen(space) == (space, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("backbone: a\nepochs: 3", "mine.yaml: a space has no key 'epochs'; allowed: name, metric"),
        ("backbone: []", "tier single: a tier needs at least one backbone"),
        ("trials: 3", "tier single: a tier needs at least one backbone"),
        ("backbone: [a, a]", "tier single: backbone: a is there twice"),
        ("backbone: {uniform: [1, 2]}", "backbone must be a name or a list of names"),
        ("tiers: {light: {backbone: {a: b}}}", "tier light: backbone must be a name"),
        ("backbone: a\nresolution: []", "resolution is an empty list"),
        ("backbone: a\nresolution: 0", "resolution must be a whole number of at least 1, not 0"),
        ("backbone: a\nfreeze: 2", "freeze must lie in"),
        ("backbone: a\nfreeze: most", "freeze must be a number, not 'most'"),
        ("backbone: a\ntrials: 0", "trials must be a whole number of at least 1, not 0"),
        ("backbone: a\nrecipe: {epochs: [1, 2]}", "recipe.epochs must be one number within a tier"),
        ("backbone: a\nrecipe: {lr: []}", "recipe.lr: an empty list"),
        ("backbone: a\nrecipe: {lr: {uniform: [0.1, 1], start: 2}}", "recipe.lr: the start 2 lies outside 0.1 to 1"),
        ("backbone: a\nmetric: f1", "metric must be one of log_loss, accuracy"),
        ("backbone: a\ntest_share: lots", "test_share must be a number, not 'lots'"),
        ("backbone: a\nmax_collapsed_share: most", "max_collapsed_share must be a number, not 'most'"),
        ("backbone: a\nmax_collapsed_share: 50", "max_collapsed_share must lie in 0 to 1, not 50"),
        ("backbone: a\nmax_colapsed_share: 1", r"no key 'max_colapsed_share' \(did you mean max_collapsed_share\?\)"),
        ("backbone: a\nbudget: 30 minutes", "a duration is written 90s, 30m"),
        ("backbone: a\nbackbone: b", "the key 'backbone' is there twice"),
        ("backbone: a\nname: [x]", "the name of a space must be"),
        ("tiers: {1: {backbone: a}}", "the name of a tier must be"),
        ("", "a space file must be a mapping"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_load_space_names_the_file_and_the_mistake_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_space(write(tmp_path, text))
    assert str(caught.value).startswith("mine.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trials", "--set takes KEY=VALUE, such as recipe.epochs=3, not 'trials'"),
        ("=3", "--set takes KEY=VALUE"),
        ("trails=3", r"--set trails=3: a space has no key 'trails' \(did you mean trials\?\)"),
        ("recipe=3", "--set recipe=3: recipe must be a mapping"),
        ("backbone=[", "--set backbone=.*not readable as YAML"),
        ("tiers.top.gate=never", "the space has no tier 'top'; its tiers: none, it is a single tier"),
        ("trials=", "trials must be a whole number of at least 1, not None"),
    ],
)
def test_load_space_names_the_set_that_is_wrong(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_space(write(tmp_path, "backbone: a"), sets=[text])


def test_an_unknown_space_names_the_available_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown space 'ladr' \(did you mean ladder\?\); available: .*, smoke"):
        load_space("ladr")
    with pytest.raises(ValueError, match=r"there is no space file nowhere/x\.yaml"):
        load_space("nowhere/x.yaml")
