import argparse
from pathlib import Path
from typing import Any

import pytest

from spine_ray.climb.request import SearchRequest
from spine_ray.climb.words import SAMPLE_EPOCHS, search_request
from spine_ray.data.rows import Source
from spine_ray.data.sources import open_source
from spine_ray.search import _parser
from spine_ray.space.configs import start_configs


def request_of(words: list[str], source: Source) -> SearchRequest:
    given: argparse.Namespace = _parser().parse_args(words)
    return search_request(given, source, "command", 0.0)


def own_data(tmp_path: Path) -> Source:
    for name in ("ant", "bee"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        (tmp_path / "pictures" / name / "1.png").write_bytes(b"not looked at here")
    return open_source(str(tmp_path / "pictures"))


def epochs_of(request: SearchRequest) -> set[int]:
    tiers = [tier for space in request.spaces for tier in space.tiers]
    return {config.recipe.epochs for tier in tiers for config in start_configs(tier, "random")}


def test_the_sample_brings_its_own_size_to_a_ladder_made_for_photographs() -> None:
    request = request_of(["--space", "ladder"], open_source(None))
    space = request.spaces[0]
    assert (space.folds, request.budget_s) == (3, 6 * 60)
    assert {resolution for tier in space.tiers for resolution in tier.resolutions} == {32}
    assert epochs_of(request) == {SAMPLE_EPOCHS}
    assert request.study == Path("studies/ladder-digits")


def test_the_sample_leaves_a_space_with_fewer_epochs_alone() -> None:
    assert epochs_of(request_of(["--space", "smoke"], open_source(None))) == {4}


def test_what_the_user_sets_wins_over_the_sample() -> None:
    words = ["--space", "ladder", "--set", "recipe.epochs=2", "--set", "resolution=64", "--budget", "90s"]
    request = request_of(words, open_source(None))
    assert epochs_of(request) == {2}
    assert request.spaces[0].tiers[0].resolutions == (64,)
    assert request.budget_s == 90


def test_the_sample_can_be_searched_at_native_sizes() -> None:
    request = request_of(["--space", "ladder", "--set", "resolution=native"], open_source(None))
    assert {tier.resolutions for tier in request.spaces[0].tiers} == {("native",)}


def test_own_data_is_searched_at_the_size_the_space_says(tmp_path: Path) -> None:
    words = ["--space", "resnet50", "--space", "mobilenetv3", "--data", str(tmp_path / "pictures")]
    request = request_of(words, own_data(tmp_path))
    assert min(request.spaces[0].tiers[0].resolutions) >= 224
    assert request.budget_s is None
    assert request.study == Path("studies/resnet50-mobilenetv3-pictures")
    assert request.weights == "auto"


def test_weights_come_from_the_word_then_from_the_space(tmp_path: Path) -> None:
    source = open_source(None)
    assert request_of(["--space", "smoke"], source).weights.endswith("small_weights")
    assert request_of(["--space", "smoke", "--weights", "random"], source).weights == "random"


def test_the_flags_of_search_are_a_promise() -> None:
    parser: Any = _parser()
    flags = {option for action in parser._actions for option in action.option_strings}
    assert flags == {
        "-h", "--help", "--space", "--data", "--study", "--budget", "--set", "--weights", "--seed", "--workers",
        "--address", "--tracking", "--open-test", "--resume", "--force", "--update", "--plan", "--on",
        "--data-root", "--fetch", "--finish",
    }  # fmt: skip


@pytest.mark.parametrize("budget", ["soon", "-3m", "0"])
def test_a_budget_that_is_none_is_refused(budget: str) -> None:
    with pytest.raises(ValueError, match=r"budget|duration|time"):
        request_of(["--space", "smoke", f"--budget={budget}"], open_source(None))


def test_finish_trains_nothing_so_it_goes_without_what_would() -> None:
    assert request_of(["--space", "smoke", "--finish"], open_source(None)).finish
    assert not request_of(["--space", "smoke"], open_source(None)).finish
    for words in (["--plan"], ["--update", "resnet"]):
        with pytest.raises(ValueError, match=f"--finish trains nothing, so it goes without {words[0]}"):
            request_of(["--space", "smoke", "--finish", *words], open_source(None))


def test_the_sample_takes_a_space_of_probes_alone_at_its_own_size() -> None:
    space = request_of(["--space", "ladder", "--set", "freeze=1.0"], open_source(None)).spaces[0]
    assert {tier.resolutions for tier in space.tiers} == {(32,)}
    assert {tier.trained_freezes for tier in space.tiers} == {()}
