"""One whole selection on one set of rows: temperatures, short list, greedy search, final temperature."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.greedy import Problem, Rules, Selection, Traits, greedy
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.objective import OBJECTIVES, encoded
from spine_ray.ensemble.pool import PoolName, floored, pooled

SHORT_LIST = 48
"""Candidates a greedy search looks at; beyond that, more of the same."""
_LEADERS = 24  # of which the best by log-loss alone, before the best of each (family, resolution)


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """Everything a selection is made from; checked by `select`."""

    logits: NDArray[np.float32]
    """(members, samples, classes)."""
    labels: NDArray[np.int64]
    """(samples,)."""
    groups: NDArray[np.int64]
    """(samples,); rows of one group are not independent."""
    traits: Traits
    rules: Rules


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A selection with its final temperature."""

    selection: Selection
    pool: PoolName
    final_temperature: float


def calibrated(
    logits: NDArray[np.float32], labels: NDArray[np.int64], *, starts: Sequence[float] | None = None
) -> tuple[float, ...]:
    """Fit one temperature a member to (members, samples, classes) logits; `starts` only saves time."""
    begin = [1.0] * len(logits) if starts is None else starts
    return tuple(fit_temperature(member, labels, start=start) for member, start in zip(logits, begin, strict=True))


def member_log_probs(logits: NDArray[np.float32], temperatures: Sequence[float]) -> NDArray[np.float64]:
    """Return calibrated, floored log-probabilities of (members, samples, classes) logits, same shape."""
    return np.stack(
        [floored(log_probs(member, temperature)) for member, temperature in zip(logits, temperatures, strict=True)]
    )


def best_single(losses: NDArray[np.float64], traits: Traits, rules: Rules) -> int:
    """Return the candidate with the lowest log-loss plus price of cost; ties go to the cheaper, then the first."""
    values = losses + rules.price * np.asarray(traits.costs)
    return min(range(len(losses)), key=lambda index: (round(float(values[index]), 12), traits.costs[index], index))


def shortlist(losses: NDArray[np.float64], traits: Traits, rules: Rules) -> list[int]:
    """Return at most `SHORT_LIST` candidates, in rising order.

    First the pinned, the best of each family, the best by log-loss plus price of cost, the best of each
    (family, resolution); then whoever follows by log-loss.
    """
    values = losses + rules.price * np.asarray(traits.costs)
    order = sorted(range(len(losses)), key=lambda index: (values[index], index))
    pairs = list(zip(traits.families, traits.resolutions, strict=True))
    best_of_family = {traits.families[index]: index for index in reversed(order)}.values()
    best_of_pair = {pairs[index]: index for index in reversed(order)}.values()
    by_loss = sorted(best_of_family, key=order.index), sorted(best_of_pair, key=order.index)
    wanted = [*rules.pinned, order[0], *by_loss[0], *order[:_LEADERS], *by_loss[1], *order]
    return sorted(list(dict.fromkeys(wanted))[: max(SHORT_LIST, len(rules.pinned))])


def choose(
    members: NDArray[np.float64],
    labels: NDArray[np.int64],
    candidates: Candidates,
    *,
    pool: PoolName,
    groups: int,
) -> Chosen:
    """Run the whole selection in one pool.

    Args:
        members: (members, samples, classes), calibrated and floored, of some of the candidates' rows.
        labels: (samples,), of these rows.
        candidates: Traits and rules.
        pool: Which pool.
        groups: Number of independent groups among the rows.
    """
    losses = np.array([row_losses(member, labels).mean() for member in members])
    short = shortlist(losses, candidates.traits, candidates.rules)
    rules = candidates.rules
    problem = Problem(
        encodings=encoded(OBJECTIVES[pool], members[short], labels),
        objective=OBJECTIVES[pool],
        traits=candidates.traits.taken(short),
        rules=replace(rules, pinned=tuple(short.index(pin) for pin in rules.pinned)),
        groups=groups,
    )
    found = greedy(problem)
    chosen = tuple(short[member] for member in found.members)
    mixed = pooled(pool, members[list(chosen)], found.weights)
    return Chosen(
        selection=Selection(members=chosen, counts=found.counts, trajectory=found.trajectory),
        pool=pool,
        final_temperature=fit_temperature(mixed, labels),
    )


def chosen_log_probs(chosen: Chosen, members: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the pool's final log-probabilities (samples, classes); `members` are those chosen, in order."""
    return log_probs(pooled(chosen.pool, members, chosen.selection.weights), chosen.final_temperature)
