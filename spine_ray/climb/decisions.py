"""What the evidence says between two tiers: the gates, asked about the trials of a study."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from spine_ray.climb.known import Known
from spine_ray.ladder.evidence import Evidence
from spine_ray.ladder.gates import (
    GateDecision,
    PlateauOptions,
    ShuffledControl,
    SoundOptions,
    plateau_gate,
    sound_gate,
)
from spine_ray.ladder.view_check import ViewCheck
from spine_ray.space.schema import Space
from spine_ray.study.tables import budget_units
from spine_ray.study.trials import Trial

Stage = Literal["probe", "start", "searched"]
STAGES: tuple[Stage, ...] = get_args(Stage)
_STAGE_WORDS = {"probe": "probes", "start": "start recipes", "searched": "best fine-tunes"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Whether the tier at a place of a space opens, and on which terms."""

    space: Space
    place: int
    """Of the tier that would open, from 1."""
    may_repeat: bool
    """Whether the tier below may have one more helping."""
    fits_budget: bool
    """Whether the budget holds a full trial of the tier."""
    has_budget: bool
    """Whether there is a budget at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """All that a gate looks at."""

    evidence: Evidence
    control: ShuffledControl | None
    views: ViewCheck | None


def decide(known: Known, proof: Proof, question: Question) -> GateDecision:
    """Ask the gate that stands before a tier: `sound` before the second, `plateau` before all later ones."""
    space, place = question.space, question.place
    below, tier = space.tiers[place - 1], space.tiers[place]
    here = proof.evidence.places(known.of_tier(below))
    if not len(here):
        return _without_trials(question)
    if place == 1:
        best = proof.evidence.best(here)
        return sound_gate(
            proof.evidence.calibrated(best),
            proof.evidence.labels,
            after=below.name,
            options=SoundOptions(
                classes=known.samples.classes, max_collapsed_share=space.max_collapsed_share, setting=tier.gate
            ),
            groups=proof.evidence.groups,
            control=proof.control,
            views=proof.views,
            seed=known.request.seed,
        )
    before = [trial for each in space.tiers[: place - 1] for trial in known.of_tier(each)]
    stage = last_common_stage(known.of_tier(below), before)
    here = proof.evidence.places(of_stage(known.of_tier(below), stage))
    earlier = proof.evidence.places(of_stage(before, stage))
    options = PlateauOptions(
        min_effect=space.min_effect,
        moved_late=_moved_late(proof.evidence, here),
        may_repeat=question.may_repeat,
        can_freeze=max(tier.trained_freezes, default=0.0) > 0,
        heavy_fits_budget=question.fits_budget,
        dev_rows=len(known.samples.dev),
        small_data=space.small_data,
        costs=(_units(proof.evidence, here), _units(proof.evidence, earlier)),
        setting=tier.gate,
    )
    losses = proof.evidence.losses
    decision = plateau_gate(
        losses[here],
        losses[earlier],
        after=below.name,
        options=options,
        groups=proof.evidence.groups,
        seed=known.request.seed,
    )
    reason = f"{decision.reason} (compared at their {_STAGE_WORDS[stage]})"
    return replace(decision, reason=reason, numbers={**decision.numbers, "stage": stage})


def last_common_stage(here: Sequence[Trial], earlier: Sequence[Trial]) -> Stage:
    """Return the last stage of which both sides have a completed trial, so that like is compared with like."""
    for stage in reversed(STAGES):
        if all(any(stage_of(trial) == stage for trial in side if trial.is_completed) for side in (here, earlier)):
            return stage
    return STAGES[0]


def of_stage(trials: Sequence[Trial], stage: Stage) -> list[Trial]:
    """Return the completed trials that count at a stage: with searched fine-tunes the start recipes count as well.

    Where none is of the stage, all count: there is nothing alike to compare.
    """
    counted = {"probe": {"probe"}, "start": {"start"}, "searched": {"start", "searched"}}[stage]
    completed = [trial for trial in trials if trial.is_completed]
    return [trial for trial in completed if stage_of(trial) in counted] or completed


def stage_of(trial: Trial) -> Stage:
    """Name the stage of a trial."""
    if trial.config.is_probe:
        return "probe"
    return "start" if trial.started.is_start else "searched"


def _without_trials(question: Question) -> GateDecision:
    """Decide where the tier below completed nothing: a budget is there to be used, so the next may open."""
    below, tier = question.space.tiers[question.place - 1], question.space.tiers[question.place]
    may_skip = question.place > 1 and question.has_budget and question.fits_budget
    more = f"; the budget holds a start of {tier.name}, so that opens" if may_skip else ""
    return GateDecision(
        gate="sound" if question.place == 1 else "plateau",
        after=below.name,
        verdict="climb" if tier.gate == "always" or (may_skip and tier.gate == "auto") else "stop",
        reason=f"no trial of tier {below.name} was completed, so there is nothing to decide on{more}",
        numbers={},
    )


def _moved_late(evidence: Evidence, here: np.ndarray) -> bool:
    """Say whether the search itself found the tier's best, and in the last third of the completed trials."""
    best = evidence.best(here)
    in_last_third = int(np.flatnonzero(here == best)[0]) >= len(here) - len(here) // 3
    return in_last_third and stage_of(evidence.trials[best]) == "searched"


def _units(evidence: Evidence, places: np.ndarray) -> float:
    """Return the training arithmetic of the best of some trials."""
    return max(budget_units(evidence.trials[evidence.best(places)]), 1e-12)
