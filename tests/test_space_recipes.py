"""The table of start recipes: whole, valid, and each cell with where it comes from."""

import re
from pathlib import Path

import pytest

from spine_ray.space.config import RECIPE_FIELDS
from spine_ray.space.configs import start_configs
from spine_ray.space.fields import Around
from spine_ray.space.recipes import START_RECIPES, start_epochs, start_recipe
from spine_ray.space.schema import TierSpace

LOG = Path(__file__).parents[1] / "docs" / "log.md"
CELLS = [(*key, name, cell) for key, cells in START_RECIPES.items() for name, cell in cells.items()]


@pytest.mark.parametrize("key", START_RECIPES, ids=" ".join)
def test_every_setting_has_a_start_for_every_kind_of_weights_and_network(key) -> None:
    assert tuple(START_RECIPES[key]) == RECIPE_FIELDS


@pytest.mark.parametrize(("weights", "network", "name", "cell"), CELLS, ids=lambda each: str(each)[:20])
def test_every_cell_is_measured_in_the_log_or_has_its_source(weights, network, name, cell) -> None:
    kind, _, source = cell.source.partition(": ")
    assert source
    if kind.startswith("measured"):
        assert re.fullmatch(r"measured \(.+; .+\)", kind)
        assert f"## {source}\n" in LOG.read_text(encoding="utf-8")
    else:
        assert kind == "literature"


def test_a_backbone_begins_with_the_recipe_of_its_family() -> None:
    families = {"a": "efficientnet", "b": "vit"}
    tier = TierSpace(name="mid", backbones=("a", "b", "c"), recipe={"lr": Around(3.0)}, families=families)
    a, b, c = (start.recipe for start in start_configs(tier, "pretrained"))
    assert (a, b) == (start_recipe("pretrained", "efficientnet"), start_recipe("pretrained", "vit"))
    assert c == b, "what is not known begins with care"
    assert a.lr > b.lr
    assert a.layer_decay > b.layer_decay


@pytest.mark.parametrize(("rows", "epochs"), [(32, 50), (128, 50), (240, 29), (800, 8), (1280, 5), (100_000, 5)])
def test_epochs_are_those_of_200_steps_within_limits(rows: int, epochs: int) -> None:
    assert start_epochs(rows, 32) == epochs
