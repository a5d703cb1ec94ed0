"""Greedy selection with replacement on OOF log-loss (Caruana et al. 2004).

The loss is convex in the weights, so one product of all encodings with the loss's derivative bounds every
candidate's loss from below; candidates are computed in the order of their bounds, until no bound can win.
The result is that of the plain loop over all candidates.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.objective import Encoding, Objective, gap, mean_loss
from spine_ray.ensemble.price import Cost, PriceList

TIE = 1e-7
"""Losses closer than this are equal, nats: no sum of float32 numbers tells them apart, and nobody needs it to."""
SLACK = 2e-5
"""What rounding in float32 can take from a bound, nats: far more than it does, far less than matters."""
CLOSE = 1e-5
"""Where no weights could gain more than this, nats, no more steps are taken."""
_AT_ONCE = 2**16
"""Numbers that are looked at in one go: of small encodings numpy's calls take longer than their arithmetic."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What is known of the candidates besides their logits; one entry a candidate."""

    families: tuple[str, ...]
    resolutions: tuple[int, ...]
    costs: tuple[Cost, ...]

    def taken(self, indices: Iterable[int]) -> "Traits":
        """Return the traits of the candidates at `indices`."""
        chosen = list(indices)
        return Traits(
            families=tuple(self.families[index] for index in chosen),
            resolutions=tuple(self.resolutions[index] for index in chosen),
            costs=tuple(self.costs[index] for index in chosen),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """Limits and prices of a selection; indices are those of the candidates."""

    max_members: int = 8
    max_cost: float | None = None
    """Most milliseconds (or whatever the costs are given in) of the whole set."""
    price: float = 0.0
    """Nats of log-loss per unit of the set's cost."""
    max_per_family: int | None = None
    """Most distinct members of one family."""
    pinned: tuple[int, ...] = ()
    max_steps: int = 25
    """Picks; AutoGluon found no gain above 25, and harm above 40 on small data (its pull request 4737)."""
    tie_band: float = 0.0
    """Paired standard errors within which candidates for the next pick count as equal; 0 for exact ties only.

    Above 0 a member that was picked before wins most ties, and of few rows nearly all candidates tie: measured on real
    pictures that costs more than the members it saves (docs/log.md).
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One selection: encoded candidates, what is minimised, and under which rules."""

    encodings: NDArray[np.float32]
    """(members, numbers, samples), see `objective`."""
    objective: Objective
    traits: Traits
    rules: Rules
    groups: int
    """Number of independent groups of rows, for standard errors."""
    prices: PriceList
    losses: NDArray[np.float64]
    """(members,) log-loss of each candidate alone, nats."""

    def charge(self, members: Iterable[int]) -> float:
        """Return the price of a set of members, nats."""
        return self.rules.price * self.prices.total(members).ms if self.rules.price else 0.0

    def allows(self, members: Iterable[int]) -> bool:
        """Return whether a set of members keeps to the rules."""
        distinct, rules = set(members), self.rules
        if len(distinct) > rules.max_members:
            return False
        families = Counter(self.traits.families[member] for member in distinct)
        if rules.max_per_family is not None and max(families.values()) > rules.max_per_family:
            return False
        return rules.max_cost is None or self.prices.total(distinct).ms <= rules.max_cost * (1.0 + TIE)


def pose(encodings: NDArray[np.float32], objective: Objective, traits: Traits, rules: Rules, groups: int) -> Problem:
    """Return the problem with every candidate priced and scored alone; arguments as the problem's own."""
    losses = np.array([mean_loss(objective.row_losses(encoding)) for encoding in encodings])
    return Problem(
        encodings=encodings, objective=objective, traits=traits, rules=rules, groups=groups,
        prices=PriceList(traits.costs), losses=losses,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Way:
    """Picks in their order, the pinned first, and the objective from the last pinned or the first pick on."""

    picks: tuple[int, ...]
    trajectory: tuple[float, ...]
    """Log-loss plus price of the set's cost, nats."""

    @property
    def best(self) -> tuple[int, ...]:
        """The shortest prefix with the lowest objective."""
        least = min(self.trajectory)
        end = next(step for step, value in enumerate(self.trajectory) if value <= least + TIE)
        return self.picks[: len(self.picks) - len(self.trajectory) + end + 1]


def walk(problem: Problem) -> Way:
    """Pick with replacement, step by step, the pinned first.

    There is no stop at the first step without gain: two more picks of the leader may be what lets a third
    candidate in. The way ends early only where no weights could gain anything.
    """
    picks = list(problem.rules.pinned)
    total = problem.encodings[picks].sum(axis=0)
    trajectory = [_value(problem, total / np.float32(len(picks)), picks)] if picks else []
    while len(picks) < max(problem.rules.max_steps, 1):
        found = _next_pick(problem, total, picks) if picks else _first_pick(problem)
        if found is None:
            break
        picks.append(found[0])
        total += problem.encodings[found[0]]
        trajectory.append(found[1])
    return Way(tuple(picks), tuple(trajectory))


def slopes(problem: Problem, mean: Encoding) -> tuple[NDArray[np.float64], float]:
    """Return the derivative of the loss along each candidate, (members,), and along the pool itself."""
    direction = problem.objective.direction(mean)
    flat = problem.encodings.reshape(len(problem.encodings), -1)
    # In the probability pool all terms of the pool's own slope are equal, so a float32 sum would round one way.
    own = float(np.multiply(mean, direction, dtype=np.float64).sum())
    return (flat @ direction.ravel()).astype(np.float64), own


def _value(problem: Problem, mean: Encoding, members: Iterable[int]) -> float:
    return mean_loss(problem.objective.row_losses(mean)) + problem.charge(members)


def _first_pick(problem: Problem) -> tuple[int, float]:
    charges = np.array([problem.charge([index]) for index in range(len(problem.losses))])
    is_allowed = np.array([problem.allows([index]) for index in range(len(problem.losses))])
    values = np.where(is_allowed, problem.losses + charges, np.inf)
    ms, macs = problem.prices.rises([])
    pick = min(np.flatnonzero(values <= values.min() + TIE), key=lambda index: (macs[index], ms[index], index))
    return int(pick), float(values[pick])


@dataclass(frozen=True, slots=True)
class _Option:
    index: int
    value: float
    loss: float
    rows: NDArray[np.float32]


def _next_pick(problem: Problem, total: Encoding, picks: list[int]) -> tuple[int, float] | None:
    """Return the next candidate and the objective with it; None where nothing could gain."""
    size, mean = len(picks), total / np.float32(len(picks))
    ms, macs = problem.prices.rises(picks)
    is_allowed = _allowed(problem, picks, ms)
    along, own = slopes(problem, mean)
    if gap(along[is_allowed], own) <= CLOSE:
        return None
    now = problem.objective.row_losses(mean)
    charges = problem.charge(picks) + problem.rules.price * ms
    bounds = mean_loss(now) + (along - own) / (size + 1) + charges
    options: list[_Option] = []
    best, reach = math.inf, 0.0
    order = np.argsort(np.where(is_allowed, bounds, np.inf), kind="stable")[: is_allowed.sum()]
    for block in _blocks(order, total.size):
        if bounds[block[0]] - SLACK > best + reach:
            break
        found = _options(problem, (total + problem.encodings[block]) / np.float32(size + 1), block, charges)
        options += found
        least = min(found, key=lambda option: option.value)
        if least.value < best:
            best, reach = least.value, _reach(problem, least, now)
    # the same candidates whatever the order of the visits, so that the tie does not hang on it
    options = [option for option in options if bounds[option.index] - SLACK <= best + reach]
    chosen = _break_tie(problem, options, picks, list(zip(macs, ms, strict=True)))
    return chosen.index, chosen.value


def _blocks(order: NDArray[np.intp], numbers: int) -> list[NDArray[np.intp]]:
    """Cut an order of candidates into such blocks as are looked at at once: one by one where encodings are large."""
    width = max(1, _AT_ONCE // numbers)
    return [order[start : start + width] for start in range(0, len(order), width)]


def _options(
    problem: Problem, means: NDArray[np.float32], indices: NDArray[np.intp], charges: NDArray[np.float64]
) -> list[_Option]:
    """Return what the next pick could be, from the mean encodings with each, (options, numbers, samples)."""
    rows = problem.objective.row_losses(means)
    losses = rows.mean(axis=-1, dtype=np.float64).tolist()
    return [
        _Option(index, loss + float(charges[index]), loss, of_rows)
        for index, loss, of_rows in zip(indices.tolist(), losses, rows, strict=True)
    ]


def _allowed(problem: Problem, picks: Sequence[int], ms: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which candidates may be picked next, (members,); those picked before always may."""
    rules, traits, distinct = problem.rules, problem.traits, set(picks)
    is_allowed = np.full(len(problem.losses), len(distinct) < rules.max_members)
    if rules.max_cost is not None:
        is_allowed &= problem.prices.total(distinct).ms + ms <= rules.max_cost * (1.0 + TIE)
    if rules.max_per_family is not None:
        counts = Counter(traits.families[pick] for pick in distinct)
        full = {family for family, count in counts.items() if count >= rules.max_per_family}
        is_allowed &= np.array([family not in full for family in traits.families])
    is_allowed[list(distinct)] = True
    return is_allowed


def _reach(problem: Problem, best: _Option, now: NDArray[np.float32]) -> float:
    """Return how far above the best a bound may lie and still be looked at for a tie.

    Twice the band of the step itself: a candidate with a band still wider would be equal only for being noisy.
    """
    if problem.rules.tie_band <= 0.0:
        return 0.0
    error = float((best.rows - now).std()) / math.sqrt(problem.groups)
    return 2.0 * problem.rules.tie_band * error


def _break_tie(problem: Problem, options: list[_Option], picks: list[int], rises: list[tuple[float, float]]) -> _Option:
    """Among options as good as the best: one picked before, else fewer MACs, cheaper, a new family, ..."""
    best = min(options, key=lambda option: (option.value, option.index))
    values = np.array([option.value for option in options])
    equal = [options[place] for place in np.flatnonzero(values - best.value <= _bands(problem, options, best))]
    traits = problem.traits
    families = {traits.families[pick] for pick in picks}
    resolutions = {traits.resolutions[pick] for pick in picks}
    members_loss = float(problem.losses[picks].sum())

    def rank(option: _Option) -> tuple[float, ...]:
        index = option.index
        if index in picks:
            return (0.0, round(option.value, 7), index)
        disagreement = (members_loss + float(problem.losses[index])) / (len(picks) + 1) - option.loss
        is_known = (traits.families[index] in families, traits.resolutions[index] in resolutions)
        return (1.0, *rises[index], *map(float, is_known), -round(disagreement, 7), index)

    return min(equal, key=rank)


def _bands(problem: Problem, options: list[_Option], best: _Option) -> NDArray[np.float64]:
    """Return the difference up to which each option counts as equal to the best, (options,)."""
    if problem.rules.tie_band <= 0.0:
        return np.full(len(options), TIE)
    apart = np.stack([option.rows for option in options]) - best.rows
    errors = apart.std(axis=1).astype(np.float64) / math.sqrt(problem.groups)
    return np.asarray(np.maximum(TIE, problem.rules.tie_band * errors))
