"""Greedy selection with replacement on OOF log-loss (Caruana et al. 2004), then drop and swap.

The loss is convex in the weights, so one product of all encodings with the loss's derivative bounds every
candidate's loss from below; candidates are computed in the order of their bounds, until no bound can win.
The result is that of the plain loop over all candidates.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.objective import Objective

TIE = 1e-12
"""Losses closer than this are equal, nats."""
_SLACK = 1e-10  # rounding of the bounds, far above that of a float64 mean and far below any loss that matters


@dataclass(frozen=True, kw_only=True, slots=True)
class Traits:
    """What is known of the candidates besides their logits; one entry a candidate."""

    families: tuple[str, ...]
    resolutions: tuple[int, ...]
    costs: tuple[float, ...]

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
    """Largest sum of the costs of distinct members."""
    price: float = 0.0
    """Nats of log-loss per unit of cost, paid once for each distinct member."""
    pinned: tuple[int, ...] = ()
    max_steps: int = 40
    tie_band: float = 1.0
    """Paired standard errors within which candidates for the next pick count as equal; 0 for exact ties only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One selection: encoded candidates, what is minimised, and under which rules."""

    encodings: NDArray[np.float64]
    """(members, numbers, samples), see `objective`."""
    objective: Objective
    traits: Traits
    rules: Rules
    groups: int
    """Number of independent groups of rows, for standard errors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Members in the order of their first pick, how often each was picked, and the way there."""

    members: tuple[int, ...]
    counts: tuple[int, ...]
    trajectory: tuple[float, ...]
    """Log-loss plus price of cost after each greedy step, nats."""

    @property
    def weights(self) -> tuple[float, ...]:
        """Each member's share of the picks."""
        total = sum(self.counts)
        return tuple(count / total for count in self.counts)


def greedy(problem: Problem) -> Selection:
    """Pick with replacement for all steps, keep the best prefix, then drop and swap members.

    There is no stop at the first step without gain: two more picks of the leader may be what lets a third
    candidate in. Pinned candidates are picked first and never leave.
    """
    losses = np.array([problem.objective.row_losses(encoding).mean() for encoding in problem.encodings])
    picks: list[int] = list(problem.rules.pinned)
    total = problem.encodings[picks].sum(axis=0) if picks else np.zeros(problem.encodings.shape[1:])
    trajectory = [_objective(problem, total / len(picks), picks)] if picks else []
    while len(picks) < max(problem.rules.max_steps, 1):
        pick, value = _next_pick(problem, total, picks, losses)
        picks.append(pick)
        total += problem.encodings[pick]
        trajectory.append(value)
    least = min(trajectory)
    best = next(step for step, value in enumerate(trajectory) if value <= least + TIE)
    kept = picks[: best + max(len(problem.rules.pinned), 1)]
    counts = _polish(problem, {pick: kept.count(pick) for pick in kept})
    return Selection(
        members=tuple(counts), counts=tuple(counts.values()), trajectory=tuple(float(v) for v in trajectory)
    )


def _cost(problem: Problem, members: Iterable[int]) -> float:
    return math.fsum(problem.traits.costs[member] for member in set(members))


def _objective(problem: Problem, mean: NDArray[np.float64], members: Iterable[int]) -> float:
    loss = float(problem.objective.row_losses(mean).mean())
    return loss + problem.rules.price * _cost(problem, members)


def _slopes(problem: Problem, mean: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the derivative of the loss along each candidate, (members,), and along the pool itself."""
    direction = problem.objective.direction(mean).ravel()
    flat = problem.encodings.reshape(len(problem.encodings), -1)
    return flat @ direction, float(mean.ravel() @ direction)


def _fits(problem: Problem, members: Iterable[int]) -> bool:
    distinct = set(members)
    limit = problem.rules.max_cost
    return len(distinct) <= problem.rules.max_members and (
        limit is None or _cost(problem, distinct) <= limit * (1.0 + TIE)
    )


@dataclass(frozen=True, slots=True)
class _Option:
    index: int
    value: float
    rows: NDArray[np.float64]


def _next_pick(
    problem: Problem, total: NDArray[np.float64], picks: list[int], losses: NDArray[np.float64]
) -> tuple[int, float]:
    """Return the next candidate and the objective with it."""
    size = len(picks)
    price = problem.rules.price
    allowed = [index for index in range(len(losses)) if index in picks or _fits(problem, [*picks, index])]
    costs = {index: price * _cost(problem, [*picks, index]) for index in allowed}
    bounds = {index: losses[index] + costs[index] for index in allowed}
    now: NDArray[np.float64] | None = None
    if size:
        mean = total / size
        slopes, own = _slopes(problem, mean)
        now = problem.objective.row_losses(mean)
        loss = float(now.mean())
        bounds = {index: loss + (slopes[index] - own) / (size + 1) + costs[index] for index in allowed}
    options: list[_Option] = []
    best, reach = math.inf, 0.0
    for index in sorted(allowed, key=lambda index: bounds[index]):
        if bounds[index] - _SLACK > best + reach:
            break
        rows = problem.objective.row_losses((total + problem.encodings[index]) / (size + 1))
        option = _Option(index, float(rows.mean()) + costs[index], rows)
        options.append(option)
        if option.value < best:
            best, reach = option.value, _reach(problem, option, now)
    # the same candidates whatever the order of the visits, so that the tie does not hang on it
    options = [option for option in options if bounds[option.index] - _SLACK <= best + reach]
    chosen = _break_tie(problem, options, picks, losses)
    return chosen.index, chosen.value


def _reach(problem: Problem, best: _Option, now: NDArray[np.float64] | None) -> float:
    """Return how far above the best a bound may lie and still be looked at for a tie.

    Twice the band of the step itself: a candidate with a band still wider would be equal only for being noisy.
    """
    if now is None:
        return 0.0
    error = float((best.rows - now).std()) / math.sqrt(problem.groups)
    return 2.0 * problem.rules.tie_band * error


def _break_tie(problem: Problem, options: list[_Option], picks: list[int], losses: NDArray[np.float64]) -> _Option:
    """Among options as good as the best: one picked before, else cheaper, new family, new resolution, ..."""
    best = min(options, key=lambda option: (option.value, option.index))
    equal = [option for option in options if option.value - best.value <= _band(problem, option, best, picks)]
    traits = problem.traits
    families = {traits.families[pick] for pick in picks}
    resolutions = {traits.resolutions[pick] for pick in picks}
    members_loss = float(sum(losses[pick] for pick in picks))

    def rank(option: _Option) -> tuple[float, ...]:
        index = option.index
        if index in picks:
            return (0.0, round(option.value, 12), traits.costs[index], index)
        disagreement = (members_loss + losses[index]) / (len(picks) + 1) - float(option.rows.mean())
        is_known = (traits.families[index] in families, traits.resolutions[index] in resolutions)
        return (1.0, traits.costs[index], *map(float, is_known), -round(disagreement, 12), index)

    return min(equal, key=rank)


def _band(problem: Problem, option: _Option, best: _Option, picks: list[int]) -> float:
    """Return the difference up to which an option counts as equal to the best; the first pick is exact."""
    if not picks or problem.rules.tie_band <= 0.0 or option is best:
        return TIE
    error = float((option.rows - best.rows).std()) / math.sqrt(problem.groups)
    return max(TIE, problem.rules.tie_band * error)


def _polish(problem: Problem, counts: dict[int, int]) -> dict[int, int]:
    """Drop and swap members while the objective allows it; each round lowers it or the number of members."""
    for _ in range(4 * problem.rules.max_members):
        changed = _dropped(problem, counts) or _swapped(problem, counts)
        if changed is None:
            break
        counts = changed
    return counts


def _mean(problem: Problem, counts: dict[int, int]) -> NDArray[np.float64]:
    shares = np.array(list(counts.values()), dtype=np.float64)
    return np.asarray(np.tensordot(shares / shares.sum(), problem.encodings[list(counts)], axes=1))


def _dropped(problem: Problem, counts: dict[int, int]) -> dict[int, int] | None:
    """Leave out the member whose absence helps most, if none of it is missed."""
    best, found = _objective(problem, _mean(problem, counts), counts) + TIE, None
    for member in counts:
        rest = {other: count for other, count in counts.items() if other != member}
        if not rest or member in problem.rules.pinned:
            continue
        value = _objective(problem, _mean(problem, rest), rest)
        if value <= best:
            best, found = value, rest
    return found


def _swapped(problem: Problem, counts: dict[int, int]) -> dict[int, int] | None:
    """Give one member's weight to the candidate outside that lowers the objective most, if any does."""
    mean = _mean(problem, counts)
    size = sum(counts.values())
    price = problem.rules.price
    now = float(problem.objective.row_losses(mean).mean())
    slopes, _ = _slopes(problem, mean)
    trials: list[tuple[float, int, dict[int, int]]] = []
    for member in counts:
        for index in range(len(slopes)):
            swapped = {index if other == member else other: count for other, count in counts.items()}
            if index in counts or member in problem.rules.pinned or not _fits(problem, swapped):
                continue
            bound = now + counts[member] / size * (slopes[index] - slopes[member])
            trials.append((float(bound + price * _cost(problem, swapped)), index, swapped))
    best, found = now + price * _cost(problem, counts) - TIE, None
    for bound, _, swapped in sorted(trials, key=lambda trial: trial[:2]):
        if bound - _SLACK > best:
            break
        value = _objective(problem, _mean(problem, swapped), swapped)
        if value < best:
            best, found = value, swapped
    return found
