"""The one question this room answers: which models, with which weights, and is it worth it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.choose import (
    Candidates,
    Chosen,
    best_single,
    calibrated,
    choose,
    chosen_log_probs,
    member_log_probs,
)
from spine_ray.ensemble.greedy import Rules, Selection, Traits
from spine_ray.ensemble.honest import HonestLosses, cross_fit
from spine_ray.ensemble.inputs import Inputs, check_inputs, check_pool
from spine_ray.ensemble.metrics import accuracy, bootstrap_interval, row_losses
from spine_ray.ensemble.objective import OBJECTIVES, duality_gap
from spine_ray.ensemble.pool import PoolName, member_disagreement, pooled

NOTE = (
    "intervals cover rows, not seeds; OOF levels are somewhat optimistic, because the trials themselves were "
    "chosen on these rows"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """The answer of a selection: one model or several, how to pool them, and the evidence."""

    members: tuple[int, ...]
    """Indices of the candidates, in the order of their first pick."""
    weights: tuple[float, ...]
    """One a member, above 0, summing to 1."""
    temperatures: tuple[float, ...]
    """One a member; its logits are divided by it."""
    final_temperature: float
    """The pool's log-probabilities are divided by it, then normalised."""
    pool: PoolName
    trajectory: tuple[float, ...]
    """Log-loss plus price of cost after each greedy step, nats, whatever was answered in the end."""
    certificate: float | None
    """Bound on what other convex weights of any allowed candidates could gain on OOF, nats; None for a single."""
    report: dict[str, Any]
    """Plain values: levels, gains with intervals, contributions, and why."""

    def __post_init__(self) -> None:
        """Refuse lists of different lengths, weights that are no shares and temperatures that are none."""
        lengths = {len(self.members), len(self.weights), len(self.temperatures)}
        if len(lengths) != 1 or not self.members:
            raise ValueError("an ensemble needs one weight and one temperature a member, and a member")
        if min(self.weights) <= 0.0 or not math.isclose(sum(self.weights), 1.0, rel_tol=1e-9):
            raise ValueError(f"weights must be above 0 and sum to 1, not {self.weights}")
        if min(*self.temperatures, self.final_temperature) <= 0.0:
            raise ValueError("temperatures must be above 0")


def pooled_log_probs(ensemble: Ensemble, logits: ArrayLike) -> NDArray[np.float64]:
    """Apply an ensemble to logits.

    Args:
        ensemble: What `select` answered.
        logits: (members, samples, classes), the members' alone, in the ensemble's order.

    Returns:
        Log-probabilities (samples, classes).

    Raises:
        ValueError: If there is not one block of logits a member.
    """
    blocks = np.asarray(logits)
    if blocks.ndim != 3 or len(blocks) != len(ensemble.members):
        raise ValueError(
            f"the ensemble has {len(ensemble.members)} members: logits must be "
            f"({len(ensemble.members)}, samples, classes), not {blocks.shape}"
        )
    pool = pooled(ensemble.pool, member_log_probs(blocks, ensemble.temperatures), ensemble.weights)
    return log_probs(pool, ensemble.final_temperature)


def select(  # noqa: PLR0913 - the one public entry: every argument is a fact or a wish of the caller
    logits: NDArray[np.float32],
    labels: ArrayLike,
    *,
    families: Sequence[str],
    resolutions: Sequence[int],
    costs: Sequence[float],
    folds: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    pool: Literal["auto", "log", "prob"] = "auto",
    max_members: int = 8,
    max_cost: float | None = None,
    price: float = 0.0,
    pinned: Sequence[int] = (),
    banned: Sequence[int] = (),
    seed: int = 0,
) -> Ensemble:
    """Choose the ensemble from OOF logits, or the single best model where an ensemble is not worth it.

    Members are calibrated by a temperature, pooled and picked greedily on OOF log-loss. The gain over the single best
    is measured by doing all of this again along the folds; where its 95 % interval includes 0, the answer is the
    single best model (unless members are pinned).

    Args:
        logits: (members, samples, classes), OOF logits of the candidates, all on the same rows.
        labels: (samples,), class indices.
        families: One a candidate.
        resolutions: One a candidate, px.
        costs: One a candidate, at least 0, any unit.
        folds: (samples,), the training folds; None: the gain is only the apparent one, and says so.
        groups: (samples,), rows of one group stay together in intervals; None: every row for itself.
        pool: `log`, `prob`, or `auto`: the lower cross-fitted log-loss (`log` without folds).
        max_members: Most distinct members, at least 1.
        max_cost: Largest sum of the costs of distinct members.
        price: Nats of log-loss that one unit of cost must bring, at least 0.
        pinned: Candidates that must be in.
        banned: Candidates that must not.
        seed: Seed of the intervals' resampling.

    Raises:
        ValueError: If shapes disagree, a logit is not finite, a label or index is out of range, or the limits
            leave no candidate.
    """
    check_pool(pool)
    traits = Traits(
        families=tuple(map(str, families)), resolutions=tuple(map(int, resolutions)), costs=tuple(map(float, costs))
    )
    rules = Rules(max_members=max_members, max_cost=max_cost, price=price)
    inputs = check_inputs(
        logits=logits,
        labels=labels,
        folds=folds,
        groups=groups,
        pinned=pinned,
        banned=banned,
        traits=traits,
        rules=rules,
    )
    pools: tuple[PoolName, ...] = ("log", "prob") if pool == "auto" else (pool,)
    return _answer(_evidence(inputs, pools, seed), inputs.kept)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Gain:
    """Log-loss of the single best minus that of the ensemble, nats, with its interval over rows."""

    mean: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return {"gain": self.mean, "low": self.low, "high": self.high}

    def text(self) -> str:
        return f"{self.mean:.4f} nats (95 % interval {self.low:.4f} to {self.high:.4f} over rows)"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Evidence:
    """All that is known when the answer is given; indices are those of the allowed candidates."""

    candidates: Candidates
    temperatures: tuple[float, ...]
    members: NDArray[np.float64]
    """Calibrated, floored log-probabilities, (members, samples, classes)."""
    losses: NDArray[np.float64]
    single: int
    chosen: Chosen
    apparent: _Gain
    honest: _Gain | None
    pool_losses: dict[PoolName, float]
    """Cross-fitted log-loss of the ensemble in each pool tried, nats; empty without folds."""


def _evidence(inputs: Inputs, pools: tuple[PoolName, ...], seed: int) -> _Evidence:
    """Choose the pool by cross-fit, then the members on all rows, and measure the gain in both ways."""
    candidates = inputs.candidates
    labels, groups = candidates.labels, candidates.groups
    temperatures = calibrated(candidates.logits, labels)
    honest: dict[PoolName, HonestLosses] = {}
    if inputs.folds is not None and len(inputs.kept) > 1:
        honest = cross_fit(candidates, inputs.folds, pools=pools, starts=temperatures)
    pool_losses = {name: float(losses.ensemble.mean()) for name, losses in honest.items()}
    pool = min(pools, key=lambda name: pool_losses.get(name, 0.0))  # the first, log, where nothing is measured
    members = member_log_probs(candidates.logits, temperatures)
    losses = np.array([row_losses(member, labels).mean() for member in members])
    single = best_single(losses, candidates.traits, candidates.rules)
    chosen = choose(members, labels, candidates, pool=pool, groups=len(np.unique(groups)))
    mixed = chosen_log_probs(chosen, members[list(chosen.selection.members)])

    def gain(single_rows: NDArray[np.float64], rows: NDArray[np.float64]) -> _Gain:
        difference = single_rows - rows
        low, high = bootstrap_interval(difference, groups, seed=seed)
        return _Gain(mean=float(difference.mean()), low=low, high=high)

    return _Evidence(
        candidates=candidates,
        temperatures=temperatures,
        members=members,
        losses=losses,
        single=single,
        chosen=chosen,
        apparent=gain(row_losses(members[single], labels), row_losses(mixed, labels)),
        honest=gain(honest[pool].single, honest[pool].ensemble) if honest else None,
        pool_losses=pool_losses,
    )


def _verdict(evidence: _Evidence) -> tuple[bool, str]:
    """Say whether the selected ensemble is the answer, and why, in one sentence."""
    members = evidence.chosen.selection.members
    traits, rules = evidence.candidates.traits, evidence.candidates.rules
    if len(evidence.losses) == 1:
        return False, "only one candidate is allowed, so it answers alone"
    if members == (evidence.single,):
        return False, "the selection itself picked the single best model alone"
    gain, kind = (
        (evidence.honest, "cross-fitted along the folds")
        if evidence.honest
        else (evidence.apparent, "apparent only: no folds were given, so it is optimistic")
    )
    extra = rules.price * (math.fsum(traits.costs[m] for m in members) - traits.costs[evidence.single])
    text = f"{len(members)} members gain {gain.text()} over the single best model, {kind}"
    if gain.low > 0.0 and gain.mean >= extra:
        return True, text
    doubt = "which is not surely above 0" if gain.low <= 0.0 else f"less than the price of {extra:.4f} nats"
    if not set(rules.pinned) <= {evidence.single}:
        return True, f"{text}, {doubt}; kept because members are pinned"
    return False, f"{text}, {doubt}: the single best model answers"


def _answer(evidence: _Evidence, kept: tuple[int, ...]) -> Ensemble:
    """Turn the evidence into an ensemble in the caller's indices."""
    is_ensemble, reason = _verdict(evidence)
    chosen = evidence.chosen
    if not is_ensemble:
        alone = Selection(members=(evidence.single,), counts=(1,), trajectory=chosen.selection.trajectory)
        final = fit_temperature(evidence.members[evidence.single], evidence.candidates.labels)
        chosen = replace(chosen, selection=alone, final_temperature=final)
    report = _levels(evidence, chosen, kept) | {
        "answer": "ensemble" if len(chosen.selection.members) > 1 else "single",
        "reason": reason,
        "pool": chosen.pool,
        "pool_log_loss": {str(name): loss for name, loss in evidence.pool_losses.items()},
        "cross_fit": evidence.honest.to_dict() if evidence.honest else None,
        "apparent": evidence.apparent.to_dict(),
        "considered": {
            "members": [kept[member] for member in evidence.chosen.selection.members],
            "weights": list(evidence.chosen.selection.weights),
        },
        "note": NOTE,
    }
    return Ensemble(
        members=tuple(kept[member] for member in chosen.selection.members),
        weights=chosen.selection.weights,
        temperatures=tuple(evidence.temperatures[member] for member in chosen.selection.members),
        final_temperature=chosen.final_temperature,
        pool=chosen.pool,
        trajectory=chosen.selection.trajectory,
        certificate=_certificate(evidence, chosen) if len(chosen.selection.members) > 1 else None,
        report=report,
    )


def _certificate(evidence: _Evidence, chosen: Chosen) -> float:
    weights = np.zeros(len(evidence.losses))
    weights[list(chosen.selection.members)] = chosen.selection.weights
    return duality_gap(OBJECTIVES[chosen.pool], evidence.members, evidence.candidates.labels, weights)


def _levels(evidence: _Evidence, chosen: Chosen, kept: tuple[int, ...]) -> dict[str, Any]:
    """Return what the answer, the single best and each member score on the OOF rows."""
    labels = evidence.candidates.labels
    index = list(chosen.selection.members)
    answer = chosen_log_probs(chosen, evidence.members[index])
    single = evidence.members[evidence.single]
    contributions = _contributions(evidence, chosen, kept)
    return {
        "log_loss": float(row_losses(answer, labels).mean()),
        "accuracy": accuracy(answer, labels),
        "best_single": kept[evidence.single],
        "best_single_log_loss": float(evidence.losses[evidence.single]),
        "best_single_accuracy": accuracy(single, labels),
        "members": contributions,
        "families": len({each["family"] for each in contributions}),
        "cost": math.fsum(each["cost"] for each in contributions),
    }


def _contributions(evidence: _Evidence, chosen: Chosen, kept: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return for each member what it scores alone, what leaving it out costs and how it disagrees, nats.

    Leaving one out compares pools before the final temperature, the others' weights scaled up to sum to 1.
    """
    labels, traits = evidence.candidates.labels, evidence.candidates.traits
    index = list(chosen.selection.members)
    members, weights = evidence.members[index], np.array(chosen.selection.weights)
    pool = pooled(chosen.pool, members, weights)
    full = float(row_losses(pool, labels).mean())
    apart = member_disagreement(pool, members)
    rows: list[dict[str, Any]] = []
    for place, member in enumerate(index):
        rise = None
        if len(index) > 1:
            rest = np.delete(weights, place)
            without = pooled(chosen.pool, np.delete(members, place, axis=0), rest / rest.sum())
            rise = float(row_losses(without, labels).mean()) - full
        rows.append(
            {
                "index": kept[member],
                "family": traits.families[member],
                "resolution": traits.resolutions[member],
                "cost": traits.costs[member],
                "weight": float(weights[place]),
                "temperature": evidence.temperatures[member],
                "log_loss": float(evidence.losses[member]),
                "leave_one_out_rise": rise,
                "disagreement": float(apart[place]),
            }
        )
    return rows
