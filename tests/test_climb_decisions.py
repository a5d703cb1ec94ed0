from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spine_ray.climb.decisions import Proof, Question, decide, last_common_stage, of_stage, stage_of
from spine_ray.data.samples import Samples
from spine_ray.ladder.evidence import Evidence
from spine_ray.ladder.gates import GateDecision
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.space.configs import build_config, start_configs
from spine_ray.space.fields import Around
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.events import Event, Status, TrialEnded
from spine_ray.study.trials import Trial, trials_from_events
from tests.support.climbs import climb_known
from tests.support.tier_plans import epoch_done, trial_started

SIZES = {"ant": 60, "bee": 12, "cow": 30, "dog": 6}
ROWS, FOLDS = sum(SIZES.values()), 2
LIGHT = TierSpace(name="light", backbones=("test_resnet",), resolutions=(32,), recipe={"lr": Around(3.0)})
MID = TierSpace(name="mid", backbones=("test_vit",), resolutions=(32, 64, 96), recipe={"lr": Around(3.0)})
HEAVY = TierSpace(name="heavy", backbones=("test_convnext",), resolutions=(32,), recipe={"lr": Around(3.0)})


def samples() -> Samples:
    return Samples(
        sample_ids=tuple(f"{row:016x}" for row in range(ROWS)), paths=tuple(map(str, range(ROWS))),
        labels=np.repeat(np.arange(len(SIZES)), list(SIZES.values())), classes=tuple(SIZES), groups=np.arange(ROWS),
        splits=("dev",) * ROWS, folds=(np.arange(ROWS) % FOLDS).astype(np.int8),
    )  # fmt: skip


def trial_events(config: TrialConfig, tier: TierSpace, rows: Samples, status: Status = "completed") -> list[Event]:
    is_start = config in start_configs(tier, "pretrained")
    end = TrialEnded(
        trial_id=config.trial_id, status=status, reason="", step=1, log_loss=0.5, accuracy=0.5, seconds=1.0, time=1.0
    )
    started = replace(trial_started(tier, config, FOLDS, is_start=is_start), data_version=rows.version)
    epoch = epoch_done(config, step=1, fold=-1 if config.is_probe else 0, epoch=1, log_loss=0.5)
    return [started, epoch, end]


def sound_of(unrecognised: set[str], share: float) -> GateDecision:
    """What the first gate says of a trial that takes all rows of some classes for ants, and no other row."""
    rows = samples()
    space = Space(name="s", tiers=(LIGHT, MID), file=Path("s.yaml"), folds=FOLDS, max_collapsed_share=share)
    (config,) = start_configs(LIGHT, "random")
    known = climb_known(space, ROWS, samples=rows)
    known.events += trial_events(config, LIGHT, rows)
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


def of_tier(tier: TierSpace, kind: str) -> TrialConfig:
    (backbone,) = tier.backbones
    if kind.startswith("probe"):
        return probe_config(backbone, int(kind.removeprefix("probe") or 32))
    values = {} if kind == "start" else {"lr": float(kind.removeprefix("searched") or 2.0)}
    return build_config(tier, "pretrained", backbone, 32, 0.0, values)


def trials_of(tier: TierSpace, *kinds: str, status: Status = "completed") -> list[Trial]:
    rows = samples()
    events = [event for kind in kinds for event in trial_events(of_tier(tier, kind), tier, rows, status)]
    return list(trials_from_events(events).values())


@pytest.mark.parametrize(
    ("here", "earlier", "stage"),
    [
        (("probe",), ("probe", "start", "searched"), "probe"),
        (("probe", "start"), ("probe", "start", "searched"), "start"),
        (("probe", "start", "searched"), ("probe", "start"), "start"),
        (("probe", "start", "searched"), ("probe", "start", "searched"), "searched"),
        (("start", "searched"), ("start",), "start"),
        (("start",), ("probe",), "probe"),
    ],
)
def test_like_is_compared_with_like_at_the_last_stage_that_both_sides_completed(
    here: tuple[str, ...], earlier: tuple[str, ...], stage: str
) -> None:
    sides = trials_of(MID, *here), trials_of(LIGHT, *earlier)
    assert [stage_of(trial) for trial in sides[0]] == list(here)
    assert last_common_stage(*sides) == last_common_stage(*sides[::-1]) == stage


def test_what_was_not_completed_is_no_stage_and_counts_at_none() -> None:
    here = [*trials_of(MID, "probe", "start"), *trials_of(MID, "searched", status="stopped")]
    earlier = trials_of(LIGHT, "probe", "start", "searched")
    assert last_common_stage(here, earlier) == "start"
    assert of_stage(here, "searched") == here[1:2]
    failed = [*trials_of(MID, "probe", status="failed"), *trials_of(MID, "start")]
    assert of_stage(failed, "probe") == failed[1:], "there is nothing alike, so all that completed count"


def test_start_recipes_count_among_the_searched_and_probes_among_themselves() -> None:
    trials = trials_of(MID, "probe", "start", "searched")
    counted = {
        stage: [stage_of(trial) for trial in of_stage(trials, stage)] for stage in ("probe", "start", "searched")
    }
    assert counted == {"probe": ["probe"], "start": ["start"], "searched": ["start", "searched"]}


def plateau_of(*kinds: tuple[TierSpace, str, float]) -> GateDecision:
    """What the second gate says of trials (tier, kind, how much they know)."""
    rows = samples()
    space = Space(name="s", tiers=(LIGHT, MID, HEAVY), file=Path("s.yaml"), folds=FOLDS, small_data=0)
    known = climb_known(space, ROWS, samples=rows, is_pretrained=True)
    rng, logits = np.random.default_rng(0), []
    for tier, kind, signal in kinds:
        known.events += trial_events(of_tier(tier, kind), tier, rows)
        logits.append(signal * np.eye(len(SIZES))[rows.labels] + rng.normal(size=(ROWS, len(SIZES))))
    evidence = Evidence(
        trials=tuple(known.trials.values()), logits=np.array(logits, np.float32), labels=rows.labels,
        folds=rows.folds.astype(np.int64), groups=rows.groups,
    )  # fmt: skip
    question = Question(space=space, place=2, may_repeat=True, fits_budget=True, has_budget=False)
    return decide(known, Proof(evidence=evidence, control=None, views=None), question)


def test_a_probe_that_is_better_than_its_elder_s_probe_is_not_held_against_the_elder_s_fine_tune() -> None:
    light = [(LIGHT, "probe", 1.0), (LIGHT, "start", 6.0)]
    probed = plateau_of(*light, (MID, "probe", 4.0))
    assert (probed.numbers["stage"], probed.verdict) == ("probe", "climb")
    assert probed.reason.endswith("(compared at their probes)")
    tuned = plateau_of(*light, (MID, "probe", 4.0), (MID, "start", 1.0))
    assert tuned.numbers["stage"] == "start"
    assert tuned.numbers["gain"] < 0 < probed.numbers["gain"]
    assert tuned.reason.endswith("(compared at their start recipes)")


def test_searched_fine_tunes_are_compared_with_searched_ones_and_start_recipes() -> None:
    light = [(LIGHT, "probe", 1.0), (LIGHT, "start", 3.0), (LIGHT, "searched", 1.0)]
    decision = plateau_of(*light, (MID, "probe", 1.0), (MID, "start", 1.0), (MID, "searched", 6.0))
    assert decision.numbers["stage"] == "searched"
    assert decision.numbers["gain"] > 0
    assert decision.reason.endswith("(compared at their best fine-tunes)")


def test_a_search_that_still_finds_better_goes_on_but_probes_that_come_late_are_no_reason_for_it() -> None:
    late = plateau_of((LIGHT, "probe", 1.0), (MID, "probe", 2.0), (MID, "probe64", 3.0), (MID, "probe96", 6.0))
    assert (late.numbers["stage"], late.verdict) == ("probe", "climb")
    light = [(LIGHT, kind, 1.0) for kind in ("start", "searched")]
    found = plateau_of(*light, (MID, "start", 2.0), (MID, "searched 3", 3.0), (MID, "searched 2", 6.0))
    assert (found.numbers["stage"], found.verdict) == ("searched", "again")
