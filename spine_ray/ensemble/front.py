"""From one model to the best ensemble: what each amount of cost can buy, beside the best single model for as much."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from spine_ray.ensemble.greedy import TIE, Problem, Rules, walk
from spine_ray.ensemble.objective import mean_loss
from spine_ray.ensemble.polish import mean_encoding, objective_of, polish
from spine_ray.ensemble.price import Amount

_PRICES, _SPAN = 4, (1e-2, 3.0)
_BUDGETS = 12
_FEW = 24
"""Models up to which every pair of them is tried."""
_STEPS = 12
"""Picks on the way to a point: a front needs the right members more than the last digit of their weights."""


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

    Greedy ways within several budgets and at several prices of cost, with all their prefixes; their ends polished, then
    taken apart member by member; every model alone and, of few, every pair. Budgets find what prices alone step over:
    against all subsets of 8 models, prices alone forgo 6 to 9 % of what an ensemble can bring, all of this nothing.
    """
    sets = _Sets()
    for rules in _ways(problem):
        ruled = replace(problem, rules=rules)
        way = walk(ruled)
        for end in range(max(1, len(rules.pinned)), len(way.picks) + 1):
            sets.keep(Counter(way.picks[:end]))
        counts: dict[int, int] | None = polish(ruled, dict(Counter(way.best)))
        while counts is not None:
            sets.keep(counts)
            counts = _with_the_dearest_dropped(ruled, counts)
    if not problem.rules.pinned:
        for few in _few(problem):
            if problem.allows(few):
                sets.keep(dict.fromkeys(few, 1))
    return tuple(_point(problem, counts) for counts in _best(problem, list(sets.found.values())))


def _few(problem: Problem) -> list[tuple[int, ...]]:
    """Return every model alone and, of few, every pair: a way begins at the best it can pay, which may fill it."""
    every = range(len(problem.losses))
    return [*combinations(every, 1), *(combinations(every, 2) if len(every) <= _FEW else ())]


class _Sets:
    """Members with their numbers of picks, each set once."""

    def __init__(self) -> None:
        self.found: dict[tuple[tuple[int, int], ...], dict[int, int]] = {}

    def keep(self, counts: Mapping[int, int]) -> None:
        self.found.setdefault(tuple(sorted(counts.items())), dict(counts))


def _ways(problem: Problem) -> list[Rules]:
    """Return the rules of each way: no price, some prices in units of what separates the candidates, some budgets."""
    whole = replace(problem.rules, price=0.0)
    # Ties are not broken on the way: who is cheaper among equals is what the prices and the budgets ask.
    free = replace(whole, max_steps=min(whole.max_steps, _STEPS), tie_band=0.0)
    costs = np.array([cost.alone.ms for cost in problem.traits.costs])
    if costs.max() <= 0.0 or len(costs) < 2:
        return [whole]
    unit = float(np.median(problem.losses) - problem.losses.min()) / float(np.median(costs[costs > 0.0]))
    prices = [price for price in unit * np.geomspace(*_SPAN, _PRICES) if price > 0.0]
    low = problem.prices.total(problem.rules.pinned).ms if problem.rules.pinned else float(costs.min())
    budgets = np.linspace(low, problem.prices.total(walk(replace(problem, rules=free)).picks).ms, _BUDGETS + 2)[1:-1]
    most = math.inf if problem.rules.max_cost is None else problem.rules.max_cost
    return [
        whole,
        replace(whole, tie_band=1.0),  # in which equal candidates are left out: fewer members
        *(replace(free, price=float(price)) for price in prices),
        *(replace(free, max_cost=float(budget)) for budget in budgets if low < budget < most),
    ]


def _with_the_dearest_dropped(problem: Problem, counts: dict[int, int]) -> dict[int, int] | None:
    """Leave out the member that brings least for its cost; None where no member can go."""
    cost = problem.prices.total(counts).ms
    now = mean_loss(problem.objective.row_losses(mean_encoding(problem, counts)))
    best, found = math.inf, None
    for member in counts:
        rest = {other: count for other, count in counts.items() if other != member}
        if not rest or member in problem.rules.pinned:
            continue
        loss = mean_loss(problem.objective.row_losses(mean_encoding(problem, rest)))
        saved = max(cost - problem.prices.total(rest).ms, TIE)
        if (loss - now) / saved < best:
            best, found = (loss - now) / saved, rest
    return found


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
