from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spine_ray.climb.decisions import Proof, Question, decide
from spine_ray.climb.known import Known
from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.core.weights import RANDOM
from spine_ray.data.samples import Samples
from spine_ray.ladder.evidence import Evidence
from spine_ray.ladder.gates import GateDecision
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.events import TrialEnded
from tests.support.tier_plans import trial_started

SIZES = {"ant": 60, "bee": 12, "cow": 30, "dog": 6}
ROWS, FOLDS = sum(SIZES.values()), 2
LIGHT = TierSpace(name="light", backbones=("test_resnet",), resolutions=(32,))
MID = TierSpace(name="mid", backbones=("test_vit",), resolutions=(32,))


def samples() -> Samples:
    return Samples(
        sample_ids=tuple(f"{row:016x}" for row in range(ROWS)), paths=tuple(map(str, range(ROWS))),
        labels=np.repeat(np.arange(len(SIZES)), list(SIZES.values())), classes=tuple(SIZES), groups=np.arange(ROWS),
        splits=("dev",) * ROWS, folds=(np.arange(ROWS) % FOLDS).astype(np.int8),
    )  # fmt: skip


def sound_of(unrecognised: set[str], share: float) -> GateDecision:
    """What the first gate says of a trial that takes all rows of some classes for ants, and no other row."""
    rows = samples()
    space = Space(name="s", tiers=(LIGHT, MID), file=Path("s.yaml"), folds=FOLDS, max_collapsed_share=share)
    request = SearchRequest(
        spaces=(space,), sets=(), data=None, study=Path("study"), budget_s=None, weights="random", seed=0,
        workers=None, address=None, tracking=None, open_test=False, resume=False, force=False, update=(), plan=False,
        on=None, began=0.0, command="",
    )  # fmt: skip
    (config,) = start_configs(LIGHT, "random")
    end = TrialEnded(
        trial_id=config.trial_id,
        status="completed",
        reason="",
        step=1,
        log_loss=0.5,
        accuracy=0.5,
        seconds=1.0,
        time=1.0,
    )
    started = replace(trial_started(LIGHT, config, FOLDS), data_version=rows.version)
    known = Known(
        request=request, samples=rows, events=[started, end],
        prepared=Prepared(spaces=(space,), weights=RANDOM, facts={}, families={}),
    )  # fmt: skip
    said = np.array([0 if rows.classes[label] in unrecognised else label for label in rows.labels])
    logits = 2.0 * np.eye(len(SIZES))[said] + 1.5 * np.eye(len(SIZES))[rows.labels]
    evidence = Evidence(
        trials=tuple(known.trials.values()), logits=logits[None].astype(np.float32), labels=rows.labels,
        folds=rows.folds.astype(np.int64), groups=rows.groups,
    )  # fmt: skip
    question = Question(space=space, place=1, may_repeat=True, fits_budget=True, has_budget=False)
    return decide(known, Proof(evidence=evidence, control=None, views=None), question)


def test_a_class_that_is_not_recognised_is_named_and_the_search_goes_on() -> None:
    decision = sound_of({"bee", "dog"}, 0.5)
    assert decision.verdict == "climb"
    assert "no row was recognised of bee (12 rows)" in decision.findings[0]
    assert "no row was recognised of dog (6 rows)" in decision.findings[1]


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "stop"), (0.7, "climb")])
def test_the_spaces_share_decides_where_most_classes_collapse(share: float, verdict: str) -> None:
    decision = sound_of({"bee", "cow", "dog"}, share)  # 2 of the 3 that have rows enough
    assert decision.verdict == verdict
    assert "cow (30 rows) and bee (12 rows)" in (decision.reason if verdict == "stop" else decision.findings[0])
