"""The climb: tier after tier, a gate between two, all of it with its evidence."""

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spine_ray.climb.desk import Desk
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.screening import screened
from spine_ray.climb.training import check_before_training
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ladder.budget import Admission, Budget, Leftover, held_back, order_starts
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
    desk.views = check_before_training(desk, _lightest(desk, space.tiers[0]))
    if budget.seconds is not None:  # what a tier may spend depends on what the later ones need
        desk.measure(tuple(each for tier in space.tiers for each in _starts(desk, tier)))
    opened = [space.tiers[0]]
    _run(desk, space, 0, space.tiers[0], budget)
    for place in range(1, len(space.tiers)):
        tier = _pass_gate(desk, space, place, budget)
        if tier is None:
            break
        _run(desk, space, place, tier, budget)
        opened.append(tier)
    if budget.seconds is not None:
        _spend_rest(desk, space, opened, budget)


def _spend_rest(desk: Desk, space: Space, opened: Sequence[TierSpace], budget: Budget) -> None:
    """Give the tiers that were opened, from the first, the trials that their share of the budget did not hold."""
    for place, tier in enumerate(opened):
        if len(desk.of_tier(tier)) < tier.trials and _fits(desk, tier, budget):
            desk.progress.say(f"time is left over: tier {tier.name} may try more")
            _train(desk, space, place, tier, Leftover(budget))


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
        may_skip = _may_skip(desk, space, place, budget)
        more = f"; the budget holds a start of {space.tiers[place].name}, so that opens" if may_skip else ""
        return GateDecision(
            gate="sound" if place == 1 else "plateau",
            after=below.name,
            verdict="climb" if setting == "always" or (may_skip and setting == "auto") else "stop",
            reason=f"no trial of tier {below.name} was completed, so there is nothing to decide on{more}",
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
            views=desk.views,
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


def _may_skip(desk: Desk, space: Space, place: int, budget: Budget) -> bool:
    """Say whether a tier may open although the one before it had no time: a budget is there to be used."""
    return place > 1 and budget.seconds is not None and _fits(desk, space.tiers[place], budget)


def _run(desk: Desk, space: Space, place: int, tier: TierSpace, budget: Budget) -> None:
    """Run one tier within its share of the budget."""
    starts = _ordered_starts(desk, tier)
    admission = Admission(
        budget=budget,
        tier=place,
        tiers=len(space.tiers),
        reserve=_reserve(desk, space, place, budget),
        starts=frozenset(config.trial_id for config in starts),
        first=starts[0].trial_id,
    )
    _train(desk, space, place, tier, admission)


def _ordered_starts(desk: Desk, tier: TierSpace) -> tuple[TrialConfig, ...]:
    unordered = _starts(desk, tier)
    desk.measure(unordered)
    forecast = desk.forecast()
    seconds = {config.trial_id: predicted for config in unordered if (predicted := forecast.seconds(config))}
    macs = {config.trial_id: _macs(desk, config) for config in unordered}
    return order_starts(unordered, desk.prepared.families, seconds, macs)


def _train(desk: Desk, space: Space, place: int, tier: TierSpace, admission: Admission | Leftover) -> None:
    """Run one tier to its end."""
    kind, starts = desk.prepared.weights.kind, _ordered_starts(desk, tier)
    plan = TierPlan(
        domain=SearchDomain(
            tier=tier,
            weights=kind,
            buildable=frozenset(pair for pair in desk.prepared.facts if pair[0] in tier.backbones),
            seed=desk.request.seed,
            favoured=screened(desk, starts),
        ),
        starts=starts,
        first=tuple(trial.config for trial in desk.earlier_of_tier(tier)),
        known=desk.of_tier(tier),
        most_trials=max(tier.trials, len(starts)),
        folds=desk.samples.num_folds,
        reduction=space.reduction,
        control=starts[0] if place == 0 and read_control(desk.paths) is None and len(space.tiers) > 1 else None,
        deadline=admission.budget.training_ends,
        admit=lambda config: admission.refusal(config, desk.forecast().seconds(config), time.time()),
        describe=desk.describe(tier.name),
    )
    desk.progress.tier_started(tier.name, tier.question, plan.most_trials)
    for refusal in run_tier(plan, desk.order, desk.workers, desk.record):
        if refusal.config in starts:
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


def _lightest(desk: Desk, tier: TierSpace) -> TrialConfig:
    return min(_starts(desk, tier), key=lambda config: _macs(desk, config))


def _macs(desk: Desk, config: TrialConfig) -> int:
    return desk.prepared.facts[config.backbone, config.resolution].macs


def _cheapest(desk: Desk, tier: TierSpace) -> float:
    """Return the predicted seconds of a tier's cheapest start recipe; 0 where nothing was measured."""
    forecast = desk.forecast()
    return min((forecast.seconds(config) or 0.0) for config in _starts(desk, tier))


def _reserve(desk: Desk, space: Space, place: int, budget: Budget) -> float:
    ends = budget.training_ends
    if ends is None:
        return 0.0
    first, *later = (_cheapest(desk, tier) for tier in space.tiers[place:])
    return held_back(later, ends - time.time() - first)


def _fits(desk: Desk, tier: TierSpace, budget: Budget) -> bool:
    ends = budget.training_ends
    return ends is None or time.time() + _cheapest(desk, tier) <= ends
