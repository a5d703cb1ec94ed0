"""The one question this room answers: which models, with which weights, and is it worth it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import Model, calibrate, choose
from spine_ray.ensemble.greedy import Rules
from spine_ray.ensemble.honest import CrossFit, cross_fit, deal_again
from spine_ray.ensemble.inputs import Inputs, Rows, check_inputs, checked_costs, checked_traits, pools_of
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.pool import PoolName, floored, pooled
from spine_ray.ensemble.price import Cost, PriceList
from spine_ray.ensemble.report import Evidence, certificate_of, gain_of, honest_gain, report_of
from spine_ray.ensemble.shortlist import shortlist

_CROSS_FITS = 3
"""One along the training folds, the others with the rows dealt again: one alone hides the luck of the folds."""


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
    """Bound on what other convex weights of the candidates pooled could gain on OOF, nats; None for a single."""
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
    values = [floored(log_probs(block, each)) for block, each in zip(blocks, ensemble.temperatures, strict=True)]
    return log_probs(pooled(ensemble.pool, np.stack(values), ensemble.weights), ensemble.final_temperature)


def select(  # noqa: PLR0913 - the one public entry: every argument is a fact or a wish of the caller
    logits: NDArray[np.float32],
    labels: ArrayLike,
    *,
    families: Sequence[str],
    resolutions: Sequence[int],
    costs: Sequence[float | Cost],
    folds: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    pool: Literal["auto", "log", "prob"] = "auto",
    max_members: int = 8,
    max_cost: float | None = None,
    price: float = 0.0,
    max_per_family: int | None = None,
    pinned: Sequence[int] = (),
    banned: Sequence[int] = (),
    cost_matrix: ArrayLike | None = None,
    seed: int = 0,
) -> Ensemble:
    """Choose the ensemble from OOF logits, or the single best model where an ensemble is not worth it.

    Members are calibrated by a temperature, pooled and picked greedily on OOF log-loss. The gain over the single best
    is measured by doing all of this again along the folds; where it is not above 0, the answer is the single best
    model (unless members are pinned). Where its 95 % interval includes 0 the reason says so. Of more than 64
    candidates, a greedy search on the probability of the true class alone picks those that are calibrated and pooled.

    Args:
        logits: (members, samples, classes), OOF logits of the candidates, all on the same rows; may be memory-mapped.
        labels: (samples,), class indices.
        families: One a candidate.
        resolutions: One a candidate, px.
        costs: One a candidate, at least 0: any unit, or a `Cost` with the parts that candidates share.
        folds: (samples,), the training folds; None: the gain is only the apparent one, and says so.
        groups: (samples,), rows of one group stay together in intervals; None: every row for itself.
        pool: `log`, `prob`, or `auto`: the lower cross-fitted log-loss (`log` without folds).
        max_members: Most distinct members, at least 1.
        max_cost: Most that the whole set may cost.
        price: Nats of log-loss that one unit of the set's cost must bring, at least 0.
        max_per_family: Most distinct members of one family, at least 1; None for no limit.
        pinned: Candidates that must be in.
        banned: Candidates that must not.
        cost_matrix: (classes, classes), what deciding the second costs where the first is true; None: 1 a mistake.
        seed: Seed of the intervals' resampling.

    Raises:
        ValueError: If shapes disagree, a logit is not finite, a label or index is out of range, or the limits
            leave no candidate.
    """
    rules = Rules(max_members=max_members, max_cost=max_cost, price=price, max_per_family=max_per_family)
    rows = Rows(labels=labels, folds=folds, groups=groups)
    traits = checked_traits(families, resolutions, costs)
    inputs = check_inputs(logits, rows, traits, rules, pinned=pinned, banned=banned)
    mistakes = checked_costs(cost_matrix, inputs.candidates.logits.shape[2])
    return _answer(_evidence(inputs, pools_of(pool), seed), mistakes)


def _evidence(inputs: Inputs, pools: tuple[PoolName, ...], seed: int) -> Evidence:
    """Choose the pool by cross-fit, then the members on all rows, and measure the gain in both ways."""
    candidates = inputs.candidates
    fits = _cross_fits(candidates, inputs.folds, pools, seed)
    losses = {name: _loss(values, candidates) for name, values in fits[0].ensemble.items()} if fits else {}
    pool = _lowest(pools, losses)
    calibrated, problems = calibrate(candidates, (pool,))
    chosen = choose(candidates, calibrated, pool, problems[pool])
    single = calibrated.alone(calibrated.single).apply(candidates)
    labels = candidates.labels
    apart = [row_losses(each.single, labels) - row_losses(each.ensemble[pool], labels) for each in fits]
    return Evidence(
        candidates=candidates,
        calibrated=calibrated,
        chosen=chosen,
        apparent=gain_of(single, chosen.model.apply(candidates), candidates, seed),
        honest=honest_gain(apart, candidates.groups) if fits else None,
        cross_fits=fits,
        pool_losses=losses,
    )


def _cross_fits(
    candidates: Candidates, folds: NDArray[np.int64] | None, pools: tuple[PoolName, ...], seed: int
) -> tuple[CrossFit, ...]:
    """Cross-fit along the training folds in every pool, then with the rows dealt again in the better one."""
    if folds is None or len(candidates.kept) == 1:
        return ()
    starts = {member: candidates.temperature(member) for member in shortlist(candidates)}
    first = cross_fit(candidates, folds, pools, starts)
    pool = _lowest(pools, {name: _loss(values, candidates) for name, values in first.ensemble.items()})
    # Where the members are given, nothing hangs on how the rows are dealt.
    times = 1 if len(candidates.rules.pinned) == candidates.rules.max_members else _CROSS_FITS
    dealt = [deal_again(candidates.groups, folds, seed + time) for time in range(1, times)]
    return (first, *(cross_fit(candidates, each, (pool,), starts) for each in dealt))


def _lowest(pools: tuple[PoolName, ...], losses: dict[PoolName, float]) -> PoolName:
    """Return the pool with the lower loss; the first, log, where nothing is measured."""
    return min(pools, key=lambda name: losses.get(name, 0.0))


def _loss(values: NDArray[np.float64], candidates: Candidates) -> float:
    return float(row_losses(values, candidates.labels).mean())


def _verdict(evidence: Evidence) -> tuple[bool, str]:
    """Say whether the selected ensemble is the answer, and why, in one sentence."""
    members, single = evidence.chosen.model.members, evidence.calibrated.single
    rules = evidence.candidates.rules
    if len(evidence.candidates.kept) == 1:
        return False, "only one candidate is allowed, so it answers alone"
    if members == (single,):
        return False, "the selection itself picked the single best model alone"
    gain, kind = (
        (evidence.honest, "cross-fitted along the folds")
        if evidence.honest
        else (evidence.apparent, "apparent only: no folds were given, so it is optimistic")
    )
    prices = PriceList(evidence.candidates.traits.costs)
    extra = rules.price * (prices.total(members).ms - prices.total([single]).ms)
    who = f"{len(members)} members gain" if len(members) > 1 else "the one member gains"
    text = f"{who} {gain.text()} over the single best model, {kind}"
    if gain.mean > 0.0 and gain.mean >= extra:
        return True, text if gain.low > 0.0 else f"{text}: likely, not surely above 0"
    doubt = "which is not above 0" if gain.mean <= 0.0 else f"less than the price of {extra:.4f} nats"
    if not set(rules.pinned) <= {single}:
        return True, f"{text}, {doubt}; kept because members are pinned"
    return False, f"{text}, {doubt}: the single best model answers"


def _answer(evidence: Evidence, mistakes: NDArray[np.float64]) -> Ensemble:
    """Turn the evidence into an ensemble in the caller's indices."""
    is_ensemble, reason = _verdict(evidence)
    answer: Model = evidence.chosen.model if is_ensemble else evidence.calibrated.alone(evidence.calibrated.single)
    kept = evidence.candidates.kept
    return Ensemble(
        members=tuple(kept[member] for member in answer.members),
        weights=answer.weights,
        temperatures=answer.temperatures,
        final_temperature=answer.final_temperature,
        pool=answer.pool,
        trajectory=evidence.chosen.selection.trajectory,
        certificate=certificate_of(evidence.chosen) if len(answer.members) > 1 else None,
        report=report_of(evidence, answer, reason, mistakes),
    )
