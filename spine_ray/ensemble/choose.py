"""One whole selection on one set of rows: short list, temperatures, greedy search, final temperature."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.greedy import Problem, pose
from spine_ray.ensemble.objective import OBJECTIVES, mean_loss
from spine_ray.ensemble.polish import Selection, search
from spine_ray.ensemble.pool import PoolName, pooled
from spine_ray.ensemble.shortlist import shortlist


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What can be applied to logits: one candidate or a pool of several, calibrated."""

    members: tuple[int, ...]
    """Candidates, in the order of their first pick."""
    weights: tuple[float, ...]
    temperatures: tuple[float, ...]
    pool: PoolName
    final_temperature: float

    def apply(self, candidates: Candidates) -> NDArray[np.float64]:
        """Return its log-probabilities on the candidates' rows, (samples, classes)."""
        return log_probs(
            pooled(self.pool, candidates.stacked(self.members, self.temperatures), self.weights), self.final_temperature
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """The short list with its temperatures."""

    short: tuple[int, ...]
    """Candidates."""
    temperatures: dict[int, float]
    """By candidate."""
    losses: dict[int, float]
    """By candidate, after calibration; nats."""
    single: int
    """The candidate that is best alone: by log-loss plus price of cost; ties fall by MACs, then by ms."""

    def alone(self, member: int) -> Model:
        """Return a candidate as a model."""
        return Model(
            members=(member,), weights=(1.0,), temperatures=(self.temperatures[member],), pool="log",
            final_temperature=1.0,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A selection in one pool."""

    pool: PoolName
    """The model's own is of no account where it is one candidate alone."""
    model: Model
    problem: Problem
    """What was searched; its candidates are those of the short list."""
    selection: Selection
    """Its members stand in the short list."""


def calibrate(
    candidates: Candidates, pools: Iterable[PoolName], starts: Mapping[int, float] | None = None
) -> tuple[Calibrated, dict[PoolName, Problem]]:
    """Find the short list and its temperatures, and encode it for each pool.

    Args:
        candidates: What there is to choose from.
        pools: Which pools to encode it for.
        starts: Temperatures to start from, by candidate; they save time and change nothing.
    """
    short = shortlist(candidates)
    temperatures = {member: candidates.temperature(member, (starts or {}).get(member)) for member in short}
    shapes = {pool: _shape(pool, candidates) for pool in pools}
    encodings = {pool: np.empty((len(short), *shape), np.float32) for pool, shape in shapes.items()}
    losses, every = {}, np.arange(len(candidates.labels))
    for place, member in enumerate(short):
        lines = candidates.lines(member, temperatures[member])
        losses[member] = mean_loss(-lines[candidates.labels, every])
        for pool, encoded in encodings.items():
            encoded[place] = OBJECTIVES[pool].encode(lines.T, candidates.labels)
    found = Calibrated(
        short=tuple(short), temperatures=temperatures, losses=losses, single=_best_single(candidates, losses)
    )
    rules = replace(candidates.rules, pinned=tuple(short.index(pin) for pin in candidates.rules.pinned))
    traits, groups = candidates.traits.taken(short), candidates.num_groups
    return found, {pool: pose(encoded, OBJECTIVES[pool], traits, rules, groups) for pool, encoded in encodings.items()}


def choose(candidates: Candidates, calibrated: Calibrated, pool: PoolName, problem: Problem) -> Chosen:
    """Search in one pool and fit the final temperature."""
    selection = search(problem)
    members = tuple(calibrated.short[place] for place in selection.members)
    return Chosen(
        pool=pool,
        model=model_of(candidates, calibrated, members, selection.weights, pool),
        problem=problem,
        selection=selection,
    )


def model_of(
    candidates: Candidates, calibrated: Calibrated, members: Sequence[int], weights: Sequence[float], pool: PoolName
) -> Model:
    """Return members and weights as a model with its final temperature; one member alone has none."""
    if len(members) == 1:
        return calibrated.alone(members[0])
    temperatures = tuple(calibrated.temperatures[member] for member in members)
    mixed = pooled(pool, candidates.stacked(members, temperatures), weights)
    return Model(
        members=tuple(members),
        weights=tuple(weights),
        temperatures=temperatures,
        pool=pool,
        final_temperature=fit_temperature(mixed, candidates.labels),
    )


def _shape(pool: PoolName, candidates: Candidates) -> tuple[int, int]:
    return (candidates.logits.shape[2] + 1 if pool == "log" else 1, len(candidates.labels))


def _best_single(candidates: Candidates, losses: dict[int, float]) -> int:
    costs, price = candidates.traits.costs, candidates.rules.price

    def rank(member: int) -> tuple[float, ...]:
        alone = costs[member].alone
        return (round(losses[member] + price * alone.ms, 7), alone.macs, alone.ms, member)

    return min(losses, key=rank)
