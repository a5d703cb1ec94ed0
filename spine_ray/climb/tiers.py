"""The climb: tier after tier, a gate between two, all of it with its evidence."""

import time
from dataclasses import replace

import numpy as np

from spine_ray.climb.desk import Desk
from spine_ray.climb.request import StoppedByGate
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ladder.budget import Admission, Budget, order_starts
from spine_ray.ladder.evidence import Evidence, gather
from spine_ray.ladder.gates import (
    GateDecision,
    PlateauOptions,
    ShuffledControl,
    plateau_gate,
    prior_losses,
    sound_gate,
)
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.control import read_control
from spine_ray.study.paths import replace_json
from spine_ray.study.tables import budget_units
from spine_ray.tune.searcher import SearchDomain
from spine_ray.tune.tier import TierPlan, run_tier


def climb(desk: Desk, space: Space, budget: Budget) -> None:
    """Run a space's tiers; the gates' decisions are kept at the desk.

    Raises:
        StoppedByGate: If the first gate finds that nothing sound was learnt.
    """
    if budget.seconds is not None:  # what a tier may spend depends on what the later ones need
        desk.measure(tuple(each for tier in space.tiers for each in _starts(desk, tier)))
    _run(desk, space, 0, space.tiers[0], budget)
    for place in range(1, len(space.tiers)):
        tier = _pass_gate(desk, space, place, budget)
        if tier is None:
            break
        _run(desk, space, place, tier, budget)


def _pass_gate(desk: Desk, space: Space, place: int, budget: Budget) -> TierSpace | None:
    """Decide what follows a tier: the next tier, perhaps frozen first, after one more helping of this one, or None."""
    tier = space.tiers[place]
    decision = _decide(desk, space, place, budget, may_repeat=True)
    _keep(desk, decision)
    if decision.verdict == "again":
        _run(desk, space, place - 1, replace(space.tiers[place - 1], trials=2 * space.tiers[place - 1].trials), budget)
        decision = _decide(desk, space, place, budget, may_repeat=False)
        _keep(desk, decision)
    if decision.verdict == "stop":
        if decision.gate == "sound":
            raise StoppedByGate(decision.reason)
        return None
    if decision.verdict == "climb_frozen_only":
        return replace(tier, freezes=tuple(freeze for freeze in tier.freezes if freeze > 0))
    if decision.verdict == "climb_frozen_first":
        return replace(tier, freezes=tuple(sorted(tier.freezes, reverse=True)))
    return tier


def _decide(desk: Desk, space: Space, place: int, budget: Budget, *, may_repeat: bool) -> GateDecision:
    evidence = gather(desk.paths, desk.samples, desk.present)
    below, setting = space.tiers[place - 1], space.tiers[place].gate
    here = evidence.places(desk.of_tier(below))
    if not len(here):
        return GateDecision(
            gate="sound" if place == 1 else "plateau",
            after=below.name,
            verdict="climb" if setting == "always" else "stop",
            reason=f"no trial of tier {below.name} was completed, so there is nothing to decide on",
            numbers={},
        )
    if place == 1:
        best = evidence.best(here)
        return sound_gate(
            evidence.calibrated(best),
            evidence.labels,
            after=below.name,
            groups=evidence.groups,
            control=_control(desk),
            setting=setting,
            seed=desk.request.seed,
        )
    earlier = evidence.places([trial for tier in space.tiers[: place - 1] for trial in desk.of_tier(tier)])
    options = PlateauOptions(
        min_effect=space.min_effect,
        moved_late=_moved_late(evidence, here),
        may_repeat=may_repeat,
        can_freeze=max(space.tiers[place].freezes) > 0,
        heavy_fits_budget=_fits(desk, space.tiers[place], budget),
        dev_rows=len(desk.samples.dev),
        small_data=space.small_data,
        costs=(_units(evidence, evidence.best(here)), _units(evidence, evidence.best(earlier))),
        setting=setting,
    )
    losses = evidence.losses
    return plateau_gate(
        losses[here],
        losses[earlier],
        after=below.name,
        options=options,
        groups=evidence.groups,
        seed=desk.request.seed,
    )


def _run(desk: Desk, space: Space, place: int, tier: TierSpace, budget: Budget) -> None:
    """Run one tier to its end."""
    kind = desk.prepared.weights.kind
    unordered = _starts(desk, tier)
    desk.measure(unordered)
    forecast = desk.forecast()
    seconds = {config.trial_id: predicted for config in unordered if (predicted := forecast.seconds(config))}
    macs = {config.trial_id: _macs(desk, config) for config in unordered}
    starts = order_starts(unordered, desk.prepared.families, seconds, macs)
    admission = Admission(
        budget=budget,
        tier=place,
        tiers=len(space.tiers),
        reserve=_reserve(desk, space, place),
        starts=frozenset(config.trial_id for config in starts),
        first=starts[0].trial_id,
    )
    plan = TierPlan(
        domain=SearchDomain(
            tier=tier,
            weights=kind,
            buildable=frozenset(pair for pair in desk.prepared.facts if pair[0] in tier.backbones),
            seed=desk.request.seed,
            favoured=(),
        ),
        starts=starts,
        first=tuple(trial.config for trial in desk.earlier_of_tier(tier)),
        known=desk.of_tier(tier),
        most_trials=max(tier.trials, len(starts)),
        folds=desk.samples.num_folds,
        reduction=space.reduction,
        control=starts[0] if place == 0 and read_control(desk.paths) is None and len(space.tiers) > 1 else None,
        deadline=budget.training_ends,
        admit=lambda config: admission.refusal(config, desk.forecast().seconds(config), time.time()),
        describe=desk.describe(tier.name),
    )
    desk.progress.tier_started(tier.name, tier.question, plan.most_trials)
    for refusal in run_tier(plan, desk.order, desk.workers, desk.record):
        if refusal.config.trial_id in admission.starts:
            desk.progress.say(f"  not tried: {refusal.config.trial_id}: {refusal.reason}")
    desk.progress.tier_ended(tier.name)
    desk.write_tables()


def _keep(desk: Desk, decision: GateDecision) -> None:
    desk.decisions.append(decision)
    replace_json(desk.paths.gates, [each.to_dict() for each in desk.decisions])
    desk.progress.say(f"gate {decision.gate} after {decision.after}: {decision.verdict}: {decision.reason}")


def _control(desk: Desk) -> ShuffledControl | None:
    found = read_control(desk.paths)
    if found is None:
        return None
    labels, logits = found
    return ShuffledControl(losses=row_losses(log_probs(logits), labels), prior_losses=prior_losses(labels))


def _moved_late(evidence: Evidence, here: np.ndarray) -> bool:
    """Say whether the search itself found the tier's best, and in the last third of the completed trials."""
    best = evidence.best(here)
    in_last_third = int(np.flatnonzero(here == best)[0]) >= len(here) - len(here) // 3
    return in_last_third and not evidence.trials[best].started.is_start


def _units(evidence: Evidence, place: int) -> float:
    return max(budget_units(evidence.trials[place]), 1e-12)


def _starts(desk: Desk, tier: TierSpace) -> tuple[TrialConfig, ...]:
    return start_configs(tier, desk.prepared.weights.kind)[: tier.trials]


def _macs(desk: Desk, config: TrialConfig) -> int:
    return desk.prepared.facts[config.backbone, config.resolution].macs


def _cheapest(desk: Desk, tier: TierSpace) -> float:
    """Return the predicted seconds of a tier's cheapest start recipe; 0 where nothing was measured."""
    forecast = desk.forecast()
    return min((forecast.seconds(config) or 0.0) for config in _starts(desk, tier))


def _reserve(desk: Desk, space: Space, place: int) -> float:
    return sum(_cheapest(desk, tier) for tier in space.tiers[place + 1 :])


def _fits(desk: Desk, tier: TierSpace, budget: Budget) -> bool:
    ends = budget.training_ends
    return ends is None or time.time() + _cheapest(desk, tier) <= ends
