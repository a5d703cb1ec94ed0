"""The checks a selection makes once, and its inputs in the form the rest relies on."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.candidates import Candidates, screened
from spine_ray.ensemble.greedy import Rules, Traits
from spine_ray.ensemble.pool import PoolName
from spine_ray.ensemble.price import Cost, PriceList, as_cost

POOL_CHOICES: dict[str, tuple[PoolName, ...]] = {"auto": ("log", "prob"), "log": ("log",), "prob": ("prob",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Checked inputs; the candidates are only those that may be chosen."""

    candidates: Candidates
    folds: NDArray[np.int64] | None
    """(samples,), codes from 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """What the caller says of the rows, (samples,) each."""

    labels: ArrayLike
    folds: ArrayLike | None
    groups: ArrayLike | None


def check_inputs(
    logits: NDArray[np.float32],
    given: Rows,
    traits: Traits,
    rules: Rules,
    *,
    pinned: Sequence[int],
    banned: Sequence[int],
) -> Inputs:
    """Check what `select` was given and leave out the candidates that bans and `max_cost` exclude.

    Raises:
        ValueError: As `select` says.
    """
    blocks = _checked_logits(logits)
    truth = _checked_labels(given.labels, blocks)
    _check_lengths(traits, len(blocks))
    _check_limits(rules)
    kept = _allowed(traits, rules, pinned, banned)
    place = {index: position for position, index in enumerate(kept)}
    rows = len(truth)
    fold_codes = None if given.folds is None else _codes(given.folds, rows, "folds")
    if fold_codes is not None and fold_codes.max() == 0:
        raise ValueError("folds must have at least two different values, or be None")
    candidates = Candidates(
        logits=blocks,
        kept=kept,
        rows=None,
        labels=truth,
        groups=np.arange(rows) if given.groups is None else _codes(given.groups, rows, "groups"),
        traits=traits.taken(kept),
        rules=replace(rules, pinned=tuple(place[pin] for pin in dict.fromkeys(pinned))),
        screen=None,
    )
    return Inputs(candidates=screened(candidates), folds=fold_codes)


def pools_of(choice: str) -> tuple[PoolName, ...]:
    """Return the pools to try.

    Raises:
        ValueError: If there is no such choice, with those there are.
    """
    if choice not in POOL_CHOICES:
        raise ValueError(f"unknown pool {choice!r}: choose one of {', '.join(POOL_CHOICES)}")
    return POOL_CHOICES[choice]


def checked_costs(cost_matrix: ArrayLike | None, classes: int) -> NDArray[np.float64]:
    """Return what mistakes cost, (classes, classes); 1 each where nothing is said.

    Raises:
        ValueError: If it is not one number of at least 0 for every two classes.
    """
    if cost_matrix is None:
        return 1.0 - np.eye(classes)
    costs = np.asarray(cost_matrix, np.float64)
    if costs.shape != (classes, classes) or not np.isfinite(costs).all() or costs.min() < 0.0:
        raise ValueError(f"cost_matrix must be ({classes}, {classes}) numbers of at least 0, not {costs.shape}")
    return costs


def checked_traits(families: Sequence[str], resolutions: Sequence[int], costs: Sequence[float | Cost]) -> Traits:
    """Return the traits of all candidates.

    Raises:
        ValueError: If a cost is none, with whose it is.
    """
    checked = []
    for member, cost in enumerate(costs):
        try:
            checked.append(as_cost(cost))
        except ValueError as error:
            raise ValueError(f"{error} (member {member})") from error
    return Traits(families=tuple(map(str, families)), resolutions=tuple(map(int, resolutions)), costs=tuple(checked))


def _checked_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    blocks = np.asarray(logits)
    if blocks.ndim != 3 or min(blocks.shape) < 1 or blocks.shape[1] < 2 or blocks.shape[2] < 2:
        raise ValueError(
            f"logits must be (members, samples, classes) with at least 2 samples and classes, not {blocks.shape}"
        )
    for index, block in enumerate(blocks):
        if not np.isfinite(block).all():
            raise ValueError(f"the logits of member {index} are not all finite")
    return blocks


def _checked_labels(labels: ArrayLike, blocks: NDArray[np.float32]) -> NDArray[np.int64]:
    truth = np.asarray(labels)
    _, rows, classes = blocks.shape
    if truth.shape != (rows,) or not np.issubdtype(truth.dtype, np.integer):
        raise ValueError(f"labels must be one whole number a row: {rows} rows, labels {truth.shape} {truth.dtype}")
    if truth.min() < 0 or truth.max() >= classes:
        raise ValueError(f"labels must be 0 to {classes - 1}, not {truth.min()} to {truth.max()}")
    return truth.astype(np.int64)


def _codes(values: ArrayLike, rows: int, name: str) -> NDArray[np.int64]:
    entries = np.asarray(values)
    if entries.shape != (rows,):
        raise ValueError(f"{name} must have one entry a row: {rows} rows, {name} {entries.shape}")
    return np.unique(entries, return_inverse=True)[1].astype(np.int64)


def _check_lengths(traits: Traits, members: int) -> None:
    given = {"families": traits.families, "resolutions": traits.resolutions, "costs": traits.costs}
    for name, entries in given.items():
        if len(entries) != members:
            raise ValueError(f"{name} must have one entry a member: {members} members, {len(entries)} {name}")


def _check_limits(rules: Rules) -> None:
    if rules.max_members < 1:
        raise ValueError(f"max_members must be at least 1, not {rules.max_members}")
    if rules.max_cost is not None and not math.isfinite(rules.max_cost):
        raise ValueError(f"max_cost must be a finite number, not {rules.max_cost}")
    if rules.max_per_family is not None and rules.max_per_family < 1:
        raise ValueError(f"max_per_family must be at least 1, not {rules.max_per_family}")
    if not math.isfinite(rules.price) or rules.price < 0:
        raise ValueError(f"price must be at least 0, not {rules.price}")


def _allowed(traits: Traits, rules: Rules, pinned: Sequence[int], banned: Sequence[int]) -> tuple[int, ...]:
    """Return the candidates that may be chosen, after checking that the wishes can be met."""
    members = len(traits.costs)
    for name, indices in (("pinned", pinned), ("banned", banned)):
        wrong = [index for index in indices if not 0 <= index < members]
        if wrong:
            raise ValueError(f"{name} must be members 0 to {members - 1}, not {wrong[0]}")
    both = sorted(set(pinned) & set(banned))
    if both:
        raise ValueError(f"member {both[0]} is pinned and banned at once")
    free = [index for index in range(members) if index not in set(banned)]
    if not free:
        raise ValueError(f"all {members} members are banned")
    if len(set(pinned)) > rules.max_members:
        raise ValueError(f"{len(set(pinned))} members are pinned, but max_members is {rules.max_members}")
    families = Counter(traits.families[index] for index in set(pinned))
    if rules.max_per_family is not None and max(families.values(), default=0) > rules.max_per_family:
        family, count = families.most_common(1)[0]
        raise ValueError(f"{count} members of {family} are pinned, but max_per_family is {rules.max_per_family}")
    if rules.max_cost is None:
        return tuple(free)
    return _affordable(traits, rules.max_cost, free, pinned)


def _affordable(traits: Traits, max_cost: float, free: Sequence[int], pinned: Sequence[int]) -> tuple[int, ...]:
    """Return the candidates that fit beside the pinned ones."""
    prices = PriceList(traits.costs)
    cheapest = min(traits.costs[index].alone.ms for index in free)
    if max_cost < cheapest:
        raise ValueError(f"max_cost {max_cost:g} is below the cheapest member's cost of {cheapest:g}")
    needed = prices.total(pinned).ms
    if max_cost < needed:
        raise ValueError(f"max_cost {max_cost:g} is below the pinned members' cost of {needed:g}")
    return tuple(index for index in free if prices.total([index, *pinned]).ms <= max_cost)
