"""After the greedy way: leave out members that are not missed, change members for better ones."""

from dataclasses import dataclass

import numpy as np

from spine_ray.ensemble.greedy import SLACK, TIE, Problem, slopes, walk
from spine_ray.ensemble.objective import Encoding, mean_loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Members in the order of their first pick, how often each was picked, and the way there."""

    members: tuple[int, ...]
    counts: tuple[int, ...]
    trajectory: tuple[float, ...]
    """Log-loss plus price of cost after each greedy step, nats."""
    picks: tuple[int, ...]
    """The greedy steps themselves, the pinned first."""

    @property
    def weights(self) -> tuple[float, ...]:
        """Each member's share of the picks."""
        total = sum(self.counts)
        return tuple(count / total for count in self.counts)


def search(problem: Problem) -> Selection:
    """Walk, keep the best prefix, then drop and swap members as long as that helps. Pinned members never leave."""
    way = walk(problem)
    counts = polish(problem, {pick: way.best.count(pick) for pick in way.best})
    return Selection(members=tuple(counts), counts=tuple(counts.values()), trajectory=way.trajectory, picks=way.picks)


def polish(problem: Problem, counts: dict[int, int]) -> dict[int, int]:
    """Drop and swap members while the objective allows it; each round lowers it or the number of members."""
    for _ in range(4 * problem.rules.max_members):
        changed = _dropped(problem, counts) or _swapped(problem, counts)
        if changed is None:
            break
        counts = changed
    return counts


def mean_encoding(problem: Problem, counts: dict[int, int]) -> Encoding:
    """Return the encoding of the pool in which each member has so many picks."""
    total = np.zeros(problem.encodings.shape[1:], np.float32)
    size = sum(counts.values())
    for member, count in counts.items():
        total += np.float32(count / size) * problem.encodings[member]
    return total


def objective_of(problem: Problem, counts: dict[int, int]) -> float:
    """Return log-loss plus price of the set's cost, nats."""
    return mean_loss(problem.objective.row_losses(mean_encoding(problem, counts))) + problem.charge(counts)


def _dropped(problem: Problem, counts: dict[int, int]) -> dict[int, int] | None:
    """Leave out the member whose absence helps most, if none of it is missed."""
    best, found = objective_of(problem, counts) + TIE, None
    for member in counts:
        rest = {other: count for other, count in counts.items() if other != member}
        if not rest or member in problem.rules.pinned:
            continue
        value = objective_of(problem, rest)
        if value <= best:
            best, found = value, rest
    return found


def _swapped(problem: Problem, counts: dict[int, int]) -> dict[int, int] | None:
    """Give one member's weight to the candidate outside that lowers the objective most, if any does."""
    mean = mean_encoding(problem, counts)
    size = sum(counts.values())
    now = mean_loss(problem.objective.row_losses(mean))
    along, _ = slopes(problem, mean)
    trials: list[tuple[float, int, dict[int, int]]] = []
    for member in counts:
        if member in problem.rules.pinned:
            continue
        for index in range(len(along)):
            bound = now + counts[member] / size * float(along[index] - along[member])
            if index in counts or bound - SLACK > now + problem.charge(counts):
                continue  # no price can be below 0
            swapped = {index if other == member else other: count for other, count in counts.items()}
            if problem.allows(swapped):
                trials.append((bound + problem.charge(swapped), index, swapped))
    best, found = now + problem.charge(counts) - TIE, None
    for bound, _, swapped in sorted(trials, key=lambda trial: trial[:2]):
        if bound - SLACK > best:
            break
        value = objective_of(problem, swapped)
        if value < best:
            best, found = value, swapped
    return found
