"""What a set of models costs to run: whatever several of them share is paid once."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Amount:
    """What running something on one image takes."""

    ms: float = 0.0
    """Milliseconds, measured."""
    macs: int = 0
    """Multiply-accumulates, counted: the same on every machine, so they decide where milliseconds are equal."""
    megabytes: float = 0.0
    """Weights to ship."""

    def __post_init__(self) -> None:
        """Refuse what cannot be paid."""
        for name, value in (("ms", self.ms), ("macs", self.macs), ("megabytes", self.megabytes)):
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"costs must be at least 0, not {value} {name}")

    def __add__(self, other: "Amount") -> "Amount":
        """Return both together."""
        return Amount(ms=self.ms + other.ms, macs=self.macs + other.macs, megabytes=self.megabytes + other.megabytes)

    def part(self, sharers: int) -> "Amount":
        """Return an equal part of it for each of some sharers."""
        return Amount(ms=self.ms / sharers, macs=round(self.macs / sharers), megabytes=self.megabytes / sharers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a model costs, with the parts that others may share."""

    own: Amount
    shared: tuple[tuple[str, Amount], ...] = ()
    """By name: whoever has a part of this name shares it, such as a frozen prefix at one resolution."""

    def __post_init__(self) -> None:
        """Refuse a part that is named twice."""
        names = [name for name, _ in self.shared]
        if len(set(names)) < len(names):
            raise ValueError(f"a cost names a shared part twice: {', '.join(sorted(names))}")

    @property
    def alone(self) -> Amount:
        """What the model costs when nothing is shared."""
        return sum((amount for _, amount in self.shared), self.own)


@dataclass(frozen=True, slots=True)
class PriceList:
    """The costs of all candidates, ready to price any set of them.

    Raises:
        ValueError: If a shared part has two different amounts.
    """

    costs: tuple[Cost, ...]
    _names: tuple[str, ...] = field(init=False)
    _amounts: dict[str, Amount] = field(init=False)
    _has: NDArray[np.float64] = field(init=False)
    """(members, shared parts), 1 where a member has a part."""

    def __post_init__(self) -> None:
        """Gather the shared parts."""
        amounts: dict[str, Amount] = {}
        for name, amount in (part for cost in self.costs for part in cost.shared):
            if amounts.setdefault(name, amount) != amount:
                raise ValueError(f"the shared part {name!r} is given as {amount} and as {amounts[name]}")
        names = tuple(amounts)
        place = {name: column for column, name in enumerate(names)}
        has = np.zeros((len(self.costs), len(names)))
        for row, cost in enumerate(self.costs):
            has[row, [place[name] for name, _ in cost.shared]] = 1.0
        for attribute, value in (("_names", names), ("_amounts", amounts), ("_has", has)):
            object.__setattr__(self, attribute, value)

    def total(self, members: Iterable[int]) -> Amount:
        """Return what a set of members costs; one that stands there twice is paid once."""
        distinct = sorted(set(members))
        shared = dict.fromkeys(name for member in distinct for name, _ in self.costs[member].shared)
        own = sum((self.costs[member].own for member in distinct), Amount())
        return sum((self._amounts[name] for name in shared), own)

    def rises(self, members: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return how many ms and MACs each candidate would add to a set, (members,) each; 0 for those in it."""
        distinct = sorted(set(members))
        is_paid = self._has[distinct].any(axis=0) if distinct else np.zeros(len(self._names), np.bool_)
        rises = []
        for of in (lambda amount: amount.ms, lambda amount: float(amount.macs)):
            parts = np.array([of(self._amounts[name]) for name in self._names]) * ~is_paid
            rise = np.array([of(cost.own) for cost in self.costs]) + self._has @ parts
            rise[distinct] = 0.0
            rises.append(rise)
        return rises[0], rises[1]

    def parts(self, members: Sequence[int]) -> list[Amount]:
        """Return each member's part of what the set costs: its own, and an equal part of what it shares.

        It is the Shapley value of the set's cost.
        """
        sharers: dict[str, int] = {}
        for name in (name for member in members for name, _ in self.costs[member].shared):
            sharers[name] = sharers.get(name, 0) + 1
        return [
            sum((amount.part(sharers[name]) for name, amount in self.costs[member].shared), self.costs[member].own)
            for member in members
        ]


def as_cost(value: "float | Cost") -> Cost:
    """Return a cost; a plain number is milliseconds, or any other unit, with nothing shared."""
    return value if isinstance(value, Cost) else Cost(own=Amount(ms=float(value)))
