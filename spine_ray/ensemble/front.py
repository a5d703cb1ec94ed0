"""From one model to the best ensemble: what each amount of cost can buy, beside the best single model for as much."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spine_ray.ensemble.greedy import TIE, Problem, walk
from spine_ray.ensemble.polish import objective_of, polish
from spine_ray.ensemble.price import Amount

_PRICES = 8
"""Prices tried besides none, from a thousandth to ten times what separates the candidates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A set of members that nothing cheaper beats. Losses are apparent: of the rows it was chosen on."""

    members: tuple[int, ...]
    weights: tuple[float, ...]
    cost: Amount
    log_loss: float
    """Before the final temperature, nats."""
    single: int
    """The best single model that costs no more."""
    single_log_loss: float


def front(problem: Problem) -> tuple[Point, ...]:
    """Return the non-dominated sets by cost and log-loss, the cheapest first.

    Greedy ways at several prices of cost, all their prefixes, the ends polished; the best single models too.
    """
    found: dict[tuple[tuple[int, int], ...], dict[int, int]] = {}

    def keep(counts: dict[int, int]) -> None:
        found.setdefault(tuple(sorted(counts.items())), counts)

    for price in _prices(problem):
        priced = replace(problem, rules=replace(problem.rules, price=price))
        way = walk(priced)
        for end in range(max(1, len(problem.rules.pinned)), len(way.picks) + 1):
            picks = way.picks[:end]
            keep({pick: picks.count(pick) for pick in picks})
        keep(polish(priced, {pick: way.best.count(pick) for pick in way.best}))
    if not problem.rules.pinned:
        for index in range(len(problem.losses)):
            if problem.allows([index]):
                keep({index: 1})
    return tuple(_point(problem, counts) for counts in _best(problem, list(found.values())))


def _prices(problem: Problem) -> list[float]:
    """Return prices, nats per unit of cost, whose span is that of the candidates' losses over that of their costs."""
    costs = np.array([cost.alone.ms for cost in problem.traits.costs])
    if costs.max() <= 0.0 or len(costs) < 2:
        return [0.0]
    unit = float(np.median(problem.losses) - problem.losses.min()) / float(np.median(costs[costs > 0.0]))
    return [0.0] if unit <= 0.0 else [0.0, *(unit * np.geomspace(1e-3, 10.0, _PRICES))]


def _best(problem: Problem, sets: Sequence[dict[int, int]]) -> list[dict[int, int]]:
    """Return the sets that no cheaper (by ms, then MACs) or smaller one equals in log-loss, the cheapest first."""
    free = replace(problem, rules=replace(problem.rules, price=0.0))
    priced = [(problem.prices.total(counts), objective_of(free, counts), counts) for counts in sets]
    order = sorted(priced, key=lambda entry: (entry[0].ms, entry[1], entry[0].macs, len(entry[2]), tuple(entry[2])))
    kept, least = [], float("inf")
    for _, loss, counts in order:
        if loss < least - TIE:
            least = loss
            kept.append(counts)
    return kept


def _point(problem: Problem, counts: dict[int, int]) -> Point:
    cost = problem.prices.total(counts)
    affordable = [index for index, each in enumerate(problem.traits.costs) if each.alone.ms <= cost.ms * (1.0 + TIE)]
    single = min(affordable, key=lambda index: (float(problem.losses[index]), index))
    total = sum(counts.values())
    free = replace(problem, rules=replace(problem.rules, price=0.0))
    return Point(
        members=tuple(counts),
        weights=tuple(count / total for count in counts.values()),
        cost=cost,
        log_loss=objective_of(free, counts),
        single=single,
        single_log_loss=float(problem.losses[single]),
    )
