"""Cheap first: which members an image is shown to before the others, and how sure they must be to answer alone.

The members are tried in the order of what each adds to the measured cost. After each, the pool of those tried so far,
calibrated on OOF logits, answers if its confidence reaches one threshold, the same at every stage; else the next is
tried. The threshold is the one of least cost that loses hardly any accuracy; what it loses and saves is measured on
folds that it was not chosen on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import bootstrap_interval, row_losses, share_interval, wilson_interval
from spine_ray.ensemble.mix import Mix, Said
from spine_ray.ensemble.price import Cost, PriceList, as_cost

ALLOWED_LOSS = 0.002
"""Share of the rows that a threshold may lose, net, on the rows it is chosen on."""
MOST_LOSS = 0.01
"""A cascade whose interval reaches a larger loss of accuracy is not worth its risk."""
LEAST_SAVING = 0.1
"""Share of the cost that a cascade must save to be worth having."""
_TRIED = 256
"""Thresholds that are tried: as many quantiles of the confidences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What OOF logits predict of a cascade; of folds on which it was not chosen. Intervals are of 95 %, over rows."""

    rows: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    whole_accuracy: float
    """Of all members, on the same rows."""
    change: float
    """Accuracy of the cascade minus that of all members; below 0 is a loss."""
    change_low: float
    """With `change_high`: where the change of as many new rows will lie."""
    change_high: float
    log_loss: float
    """nats."""
    whole_log_loss: float
    cost: float
    """Mean cost of an image, in the unit of the members' costs."""
    cost_low: float
    cost_high: float
    whole_cost: float

    @property
    def saving(self) -> float:
        """Times less cost."""
        return self.whole_cost / self.cost if self.cost else 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cascade:
    """The plan: an order, a temperature a stage, one threshold; with what it is predicted to do."""

    order: tuple[int, ...]
    """Members of the ensemble, those tried first first; stage k pools the first k + 1."""
    temperatures: tuple[float, ...]
    """Final temperature of each stage's pool; the last is the ensemble's own."""
    threshold: float
    """A stage answers where its confidence is at least this; above 1: none but the last does."""
    costs: tuple[float, ...]
    """What an image has cost that is answered by each stage."""
    predicted: Predicted | None
    """None where there is one member only."""
    pays: bool
    reason: str
    """Why it is worth having, or why not; one sentence."""

    def stage(self, mix: Mix, stage: int) -> Mix:
        """Return the pool that answers after a stage, its members in the order of this plan."""
        return mix.part(self.order[: stage + 1], self.temperatures[stage])

    def is_answered(self, said: Said, stage: int) -> NDArray[np.bool_]:
        """Say which rows need no further member, (rows,)."""
        if stage == len(self.order) - 1:
            return np.ones(len(said.log_probs), np.bool_)
        return said.confidence >= self.threshold


@dataclass(frozen=True, kw_only=True, slots=True)
class OofRows:
    """What a cascade is planned from."""

    logits: NDArray[np.float32]
    """(members, rows, classes), in the ensemble's order."""
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    groups: ArrayLike | None = None
    """(rows,), rows of one group stay together in intervals."""


@dataclass(frozen=True, slots=True)
class _Stages:
    """What each stage would say of each row, (stages, rows), with final temperatures fitted on some of the rows."""

    temperatures: tuple[float, ...]
    confidence: NDArray[np.float64]
    hits: NDArray[np.float64]
    losses: NDArray[np.float64]
    costs: NDArray[np.float64]
    """(stages,)."""

    def answering(self, threshold: float) -> NDArray[np.int64]:
        """Return which stage answers each row, (rows,)."""
        sure = self.confidence >= threshold
        sure[-1] = True
        return np.asarray(sure.argmax(axis=0))

    def taken(self, rows: NDArray[np.bool_]) -> "_Stages":
        """Return the stages on some of the rows."""
        return replace(self, confidence=self.confidence[:, rows], hits=self.hits[:, rows], losses=self.losses[:, rows])


def plan_cascade(mix: Mix, oof: OofRows, costs: Sequence[float | Cost], *, seed: int = 0) -> Cascade:
    """Plan a cascade of an ensemble's members, and say whether it is worth having.

    Args:
        mix: The ensemble.
        oof: Its members' OOF logits.
        costs: One a member; what members share is paid once.
        seed: Seed of the intervals' resampling.

    Raises:
        ValueError: If there is not one block of logits and one cost a member.
    """
    members = len(mix.weights)
    if len(oof.logits) != members or len(costs) != members:
        raise ValueError(f"{members} members need as many blocks of logits and costs")
    order, paid = _cheap_first(costs)
    if members == 1:
        return Cascade(
            order=order, temperatures=(mix.final_temperature,), threshold=2.0, costs=paid, predicted=None, pays=False,
            reason="there is one member only, so there is nothing to leave out",
        )  # fmt: skip
    others = [oof.folds != fold for fold in np.unique(oof.folds)]
    whole, *by_fold = _stages(mix, oof, order, np.array(paid), [np.ones(len(oof.labels), np.bool_), *others])
    predicted = _predict(whole, by_fold, others, oof.groups, seed)
    pays, reason = _verdict(predicted)
    return Cascade(
        order=order, temperatures=whole.temperatures, threshold=_threshold(whole), costs=paid, predicted=predicted,
        pays=pays, reason=reason,
    )  # fmt: skip


def _cheap_first(costs: Sequence[float | Cost]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the members by what each adds to the cost of those before it, and the cost after each."""
    known = tuple(map(as_cost, costs))
    prices = PriceList(known)
    order: list[int] = []
    while len(order) < len(known):
        ms, macs = prices.rises(order)
        left = (member for member in range(len(known)) if member not in order)
        order.append(min(left, key=lambda member: (ms[member], macs[member], member)))
    paid = tuple(prices.total(order[: stage + 1]).ms for stage in range(len(order)))
    return tuple(order), paid


def _stages(
    mix: Mix,
    oof: OofRows,
    order: tuple[int, ...],
    costs: NDArray[np.float64],
    fitted_on: Sequence[NDArray[np.bool_]],
) -> list[_Stages]:
    """Return the stages once for each set of rows that their temperatures are fitted on; the last keeps its own."""
    shape = (len(fitted_on), len(order), len(oof.labels))
    confidence, losses, hits = np.zeros(shape), np.zeros(shape), np.zeros(shape[1:])
    temperatures = np.full(shape[:2], mix.final_temperature)
    for stage in range(len(order)):
        members = order[: stage + 1]
        pool = mix.part(members, 1.0).say([oof.logits[member] for member in members]).log_probs
        hits[stage] = pool.argmax(axis=1) == oof.labels  # whatever the temperature
        for part, rows in enumerate(fitted_on):
            if stage < len(order) - 1:
                temperatures[part, stage] = fit_temperature(pool[rows], oof.labels[rows])
            scaled = log_probs(pool, temperatures[part, stage])
            confidence[part, stage] = np.exp(scaled.max(axis=1))
            losses[part, stage] = row_losses(scaled, oof.labels)
    return [
        _Stages(tuple(temperatures[part].tolist()), confidence[part], hits, losses[part], costs)
        for part in range(len(fitted_on))
    ]


def _threshold(stages: _Stages) -> float:
    """Return the threshold of least cost that loses no more than is allowed; 2 where none does."""
    best, lowest = 2.0, float(stages.costs[-1])
    tried = np.quantile(stages.confidence[:-1], np.linspace(0.0, 1.0, _TRIED), method="lower")
    every = np.arange(stages.hits.shape[1])
    for threshold in np.unique(tried):
        answering = stages.answering(float(threshold))
        lost = float((stages.hits[-1] - stages.hits[answering, every]).mean())
        cost = float(stages.costs[answering].mean())
        if lost <= ALLOWED_LOSS and cost < lowest:
            best, lowest = float(threshold), cost
    return best


def _predict(
    whole: _Stages,
    by_fold: Sequence[_Stages],
    others: Sequence[NDArray[np.bool_]],
    groups: ArrayLike | None,
    seed: int,
) -> Predicted:
    """Look at each fold with temperatures and threshold from the others.

    Args:
        whole: The stages, fitted on all rows.
        by_fold: For each fold, the stages fitted on the others.
        others: For each fold, the rows of the others.
        groups: Of the rows.
        seed: Of the resampling.
    """
    rows = whole.hits.shape[1]
    hits, losses, costs = np.zeros(rows), np.zeros(rows), np.zeros(rows)
    for stages, elsewhere in zip(by_fold, others, strict=True):
        here = ~elsewhere
        there = stages.taken(here)
        answering, every = there.answering(_threshold(stages.taken(elsewhere))), np.arange(int(here.sum()))
        hits[here], losses[here] = there.hits[answering, every], there.losses[answering, every]
        costs[here] = there.costs[answering]
    low, high = _change_interval(hits, whole.hits[-1], groups, seed)
    accuracy_low, accuracy_high = share_interval(hits, groups, seed=seed)
    cost_low, cost_high = bootstrap_interval(costs, groups, seed=seed)
    return Predicted(
        rows=rows, accuracy=float(hits.mean()), accuracy_low=accuracy_low, accuracy_high=accuracy_high,
        whole_accuracy=float(whole.hits[-1].mean()), change=float((hits - whole.hits[-1]).mean()), change_low=low,
        change_high=high, log_loss=float(losses.mean()), whole_log_loss=float(whole.losses[-1].mean()),
        cost=float(costs.mean()), cost_low=cost_low, cost_high=cost_high, whole_cost=float(whole.costs[-1]),
    )  # fmt: skip


def _change_interval(
    cascade: NDArray[np.float64], whole: NDArray[np.float64], groups: ArrayLike | None, seed: int
) -> tuple[float, float]:
    """Return where the paired change of as many new rows will lie: of the bootstrap and of Wilson the wider end.

    Few rows differ, often none, and then the bootstrap would claim certainty. Wilson's intervals of the share lost
    and the share gained are put together as Newcombe (1998) does for a difference. Both are intervals of the mean;
    new rows have luck of their own, which makes each end further away by the square root of 2. Rows of one group count
    as one.
    """
    change = cascade - whole
    low, high = bootstrap_interval(change, groups, seed=seed)
    lost, gained = float((change < 0).mean()), float((change > 0).mean())
    count = len(change) if groups is None else len(np.unique(np.asarray(groups)))
    (lost_low, gained_low), (lost_high, gained_high) = wilson_interval(np.array([lost, gained]), np.full(2, count))
    mean = gained - lost
    down = np.hypot(gained - gained_low, lost_high - lost)
    up = np.hypot(gained_high - gained, lost - lost_low)
    down, up = max(mean - low, float(down)), max(high - mean, float(up))
    return mean - math.sqrt(2.0) * down, mean + math.sqrt(2.0) * up


def _verdict(predicted: Predicted) -> tuple[bool, str]:
    told = (
        f"on OOF rows it costs {predicted.cost:.3g} instead of {predicted.whole_cost:.3g} ms an image "
        f"({predicted.saving:.2f} times less) and changes accuracy by {predicted.change:+.2%} "
        f"({predicted.change_low:+.2%} to {predicted.change_high:+.2%}), log-loss from "
        f"{predicted.whole_log_loss:.4f} to {predicted.log_loss:.4f}"
    )
    if predicted.cost > (1.0 - LEAST_SAVING) * predicted.whole_cost:
        return False, f"{told}: less than {LEAST_SAVING:.0%} saved, so all members run"
    if predicted.change_low < -MOST_LOSS:
        return False, f"{told}: a loss of more than {MOST_LOSS:.0%} is not ruled out, so all members run"
    return True, told
