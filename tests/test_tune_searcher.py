from typing import Any

import pytest
from ray.tune.search import Searcher

from spine_ray.sampling.sampler import Outcome, Queue, SearchDomain, Suggester, suggest
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.tune.searcher import TierSearcher

TIER = TierSpace(name="light", backbones=("test_resnet", "test_vit"), resolutions=(32,), trials=2)
PAIRS = frozenset((backbone, 32) for backbone in TIER.backbones)
STARTS = start_configs(TIER, "pretrained")


def suggester() -> Suggester:
    where = SearchDomain(tier=TIER, weights="pretrained", buildable=PAIRS, seed=0)
    return Suggester(where, list(STARTS), {}, TIER.trials, lambda _: None, lambda _: 1.0, suggest)


def searcher(source: Suggester, control: TrialConfig | None = None) -> TierSearcher:
    return TierSearcher(Queue(source, control), lambda each: {"trial_id": each.trial_id}, workers=2)


def handed(given: TierSearcher, times: int) -> list[Any]:
    return [given.suggest(f"ray{number}") for number in range(times)]


def test_the_searcher_hands_out_configurations_each_to_a_free_worker_and_says_when_it_is_over() -> None:
    found = handed(searcher(suggester()), 3)
    assert [each["trial_id"] for each in found[:2]] == [config.trial_id for config in STARTS]
    assert [each["worker"] for each in found[:2]] == [0, 1]
    assert found[2] == Searcher.FINISHED


@pytest.mark.parametrize(
    ("result", "error", "expected"),
    [
        ({"is_last": True, "step": 8, "log_loss": 0.5}, False, ("completed", 8, 0.5)),
        ({"is_last": False, "step": 2, "log_loss": 0.9}, False, ("stopped", 2, 0.9)),
        ({"is_last": False, "step": 2, "log_loss": 0.9}, True, ("failed", 0, None)),
        ({}, False, ("failed", 0, None)),
        (None, True, ("failed", 0, None)),
    ],
)
def test_the_suggester_is_told_how_a_trial_ended(
    result: dict[str, Any] | None, error: bool, expected: tuple[str, int, float | None]
) -> None:
    source = suggester()
    given = searcher(source)
    trial_id = handed(given, 1)[0]["trial_id"]
    given.on_trial_complete("ray0", result, error)
    outcome = source.outcomes[trial_id]
    assert (outcome.state, outcome.step, outcome.log_loss) == expected


def test_of_the_control_nobody_is_told() -> None:
    source = suggester()
    given = searcher(source, STARTS[0])
    found = handed(given, 4)
    assert [each["is_control"] for each in found[:3]] == [False, False, True]
    told = dict(source.outcomes)
    given.on_trial_complete("ray2", {"is_last": True, "step": 4, "log_loss": 1.1})
    assert source.outcomes == told
    assert source.outcomes[STARTS[0].trial_id] == Outcome(STARTS[0], "running")


def test_nothing_of_the_searcher_goes_into_rays_snapshots() -> None:
    assert searcher(suggester()).__getstate__() == {}
