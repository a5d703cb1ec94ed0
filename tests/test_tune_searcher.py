import math
from typing import Any

import pytest
from ray.tune.search import Searcher

from spine_ray.sampling.queue import Outcome, QueuedTrial, SearchDomain, Suggester, TrialQueue
from spine_ray.sampling.sampler import suggest
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.tune.searcher import TierSearcher
from spine_ray.workers.trial_steps import EpochReport, StepReport, TrialRequest
from tests.support.tier_plans import epoch_done, trial_started

TIER = TierSpace(name="light", backbones=("test_resnet", "test_vit"), resolutions=(32,), trials=2)
PAIRS = frozenset((backbone, 32) for backbone in TIER.backbones)
STARTS = start_configs(TIER, "pretrained")


def suggester() -> Suggester:
    where = SearchDomain(tier=TIER, weights="pretrained", buildable=PAIRS, seed=0)
    return Suggester(where, list(STARTS), {}, TIER.trials, lambda _: None, lambda _: 1.0, suggest)


def request(queued: QueuedTrial) -> TrialRequest:
    started = trial_started(TIER, queued.config, folds=2)
    return TrialRequest(started=started, is_control=queued.is_control, report_from=1, hang_timeout=60.0)


def searcher(source: Suggester, control: TrialConfig | None = None) -> TierSearcher:
    return TierSearcher(TrialQueue(source, control), request, workers=2)


def suggested(search: TierSearcher, times: int) -> list[Any]:
    return [search.suggest(f"ray{number}") for number in range(times)]


def result(step: int, log_loss: float, *, is_last: bool) -> dict[str, Any]:
    """What Ray Tune keeps of a trial's last step."""
    epoch = epoch_done(STARTS[0], step=step, fold=0, epoch=1, log_loss=log_loss)
    return {"report": StepReport(done=EpochReport(epoch, is_last, is_known=False))}


def test_the_searcher_hands_out_configurations_each_to_a_free_worker_and_says_when_it_is_over() -> None:
    found = suggested(searcher(suggester()), 3)
    assert [each["request"].started.config for each in found[:2]] == list(STARTS)
    assert [each["worker"] for each in found[:2]] == [0, 1]
    assert found[2] == Searcher.FINISHED


@pytest.mark.parametrize(
    ("last", "error", "expected"),
    [
        (result(8, 0.5, is_last=True), False, ("completed", 8, 0.5)),
        (result(2, 0.9, is_last=False), False, ("stopped", 2, 0.9)),
        (result(2, math.nan, is_last=False), False, ("failed", 2, math.nan)),
        (result(2, 0.9, is_last=False), True, ("failed", 0, None)),
        ({"report": StepReport(failure="RuntimeError: no")}, False, ("failed", 0, None)),
        ({}, False, ("failed", 0, None)),
        (None, True, ("failed", 0, None)),
    ],
)
def test_the_suggester_is_told_how_a_trial_ended(
    last: dict[str, Any] | None, error: bool, expected: tuple[str, int, float | None]
) -> None:
    source = suggester()
    search = searcher(source)
    trial_id = suggested(search, 1)[0]["request"].trial_id
    search.on_trial_complete("ray0", last, error)
    outcome = source.outcomes[trial_id]
    assert (outcome.state, outcome.step, outcome.log_loss) == pytest.approx(expected, nan_ok=True)


def test_of_the_control_nobody_is_told() -> None:
    source = suggester()
    search = searcher(source, STARTS[0])
    found = suggested(search, 4)
    assert [each["request"].is_control for each in found[:3]] == [False, False, True]
    outcomes = dict(source.outcomes)
    search.on_trial_complete("ray2", result(4, 1.1, is_last=True))
    assert source.outcomes == outcomes
    assert source.outcomes[STARTS[0].trial_id] == Outcome(STARTS[0], "running")


def test_nothing_of_the_searcher_goes_into_rays_snapshots() -> None:
    assert searcher(suggester()).__getstate__() == {}
