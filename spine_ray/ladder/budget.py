"""What a trial will cost in seconds, and whether there is still time for it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from spine_ray.space.config import TrialConfig
from spine_ray.study.tables import Cost, cost_key
from spine_ray.study.trials import Trial

TRAINING_PASSES = 4.0
"""Training one image takes as long as so many forward passes, where only these were measured.

By arithmetic 3; on processors 4 to 5 of nets with depthwise convolutions, which wait for memory (docs/log.md).
"""
_PROBE_START_S = 2.0
"""Building a backbone with its weights, before a probe's first batch, where no probe was measured."""
_SLACK = 1.15
"""Predictions are stretched by this: workers slow each other down."""
RECKONING_IS_OFF = 4.0
"""Seconds by arithmetic alone can be too many by this factor: depthwise convolutions wait for memory (docs/log.md)."""
_LATELY = 200
"""Completed trials, the newest, that tell how far predictions are off."""
SAFE = 0.85
"""Of the time that is left, what a shortened trial is made to fill where there is no answer unless it ends."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldSizes:
    """How many rows a fold trains on and holds out, on average, and how many folds there are."""

    train: float
    held_out: float
    folds: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """Predicts trials from measured costs.

    Args:
        costs: Measured, by (backbone, resolution, freeze).
        sizes: The folds.
        stretch: Actual seconds over predicted ones, as seen so far; at least the customary slack.
        built: Whose prefix's activations are on disk.
    """

    costs: Mapping[tuple[str, int, float], Cost]
    sizes: FoldSizes
    stretch: float = _SLACK
    built: frozenset[tuple[str, int, float]] = frozenset()

    def seconds(self, config: TrialConfig) -> float | None:
        """Return the predicted wall time of a trial on one worker, s; None where its backbone was never measured."""
        if config.is_probe:
            return self._probe_seconds(config)
        parts = self.parts(config)
        if parts is None:
            return None
        return parts.epoch * config.training.epochs * self.sizes.folds + parts.prefix

    def _probe_seconds(self, config: TrialConfig) -> float | None:
        cost = self.costs.get(cost_key(config))
        if cost is None or cost.prefix_images_s is None:
            return None
        passes = 0.0 if cost_key(config) in self.built else (self.sizes.train + self.sizes.held_out)
        return self.stretch * (
            passes / cost.prefix_images_s + self.sizes.folds * self.sizes.train / cost.train_images_s
        )

    def refit_seconds(self, configs: Sequence[TrialConfig], workers: int) -> float:
        """Return the predicted wall time of fitting configurations once more on all dev rows, s.

        One such fit takes what one fold takes, times folds / (folds - 1), without the scoring.
        """
        return side_by_side([(self.seconds(each) or 0.0) / (self.sizes.folds - 1) for each in configs], workers)

    def parts(self, config: TrialConfig) -> "TrialSeconds | None":
        """Return what the predicted wall time of a fine-tune is made of; None where its backbone was never measured.

        A resolution that was not measured is scaled by its pixels. A freeze depth that was not is reckoned from one
        with less frozen, as if every share of the depth took the same time.
        """
        known = [cost for cost in self.costs.values() if cost.backbone == config.backbone and cost.freeze < 1.0]
        if not known:
            return None
        best = min(known, key=lambda cost: _distance(cost, config))
        scale = (config.resolution / best.resolution) ** 2 * self.stretch
        trained = min(1.0, (1.0 - config.freeze) / (1.0 - best.freeze))
        epoch = trained * (self.sizes.train / best.train_images_s + self.sizes.held_out / best.score_images_s)
        forward = 0.0 if best.prefix_images_s is None else 1.0 / best.prefix_images_s
        forward += (1.0 - trained) / best.score_images_s
        views = 0 if cost_key(config) in self.built else config.training.epochs + 1  # the scoring view
        prefix = forward * views * (self.sizes.train + self.sizes.held_out)
        return TrialSeconds(epoch=epoch * scale, prefix=prefix * scale)


@dataclass(frozen=True, slots=True)
class TrialSeconds:
    """What a trial's wall time on one worker is made of, s."""

    epoch: float
    """Training and scoring what is trained, one epoch of one fold."""
    prefix: float
    """What is frozen, once for all epochs and folds; 0 where its activations are on disk."""


def cost_from_probe(probe: Cost, config: TrialConfig, macs: int) -> Cost:
    """Return what a fine-tune would cost by the forward passes of its backbone's probe, with nothing frozen.

    Args:
        probe: Measured, at any resolution.
        config: The fine-tune.
        macs: Multiply-accumulates of one forward pass of one image at the fine-tune's resolution.
    """
    forward = (probe.prefix_images_s or probe.infer_images_s) * probe.macs / macs
    return replace(
        probe,
        resolution=config.resolution,
        freeze=0.0,
        train_images_s=forward / TRAINING_PASSES,
        infer_images_s=forward,
        score_images_s=forward,
        prefix_images_s=None,
        activation_mb=None,
        macs=macs,
        prefix_macs=0,
        prefix_params=0,
    )


def probe_seconds(measured: Iterable[tuple[Cost, float]], macs: int, rows: int) -> float | None:
    """Return the predicted wall time of a probe by the probe whose arithmetic is nearest, s; None without one.

    Args:
        measured: Costs of completed probes, with the wall time of each, s.
        macs: Multiply-accumulates of one forward pass of one image.
        rows: Images that are passed.
    """
    nearest = min(measured, key=lambda pair: abs(math.log(pair[0].macs / macs)), default=None)
    if nearest is None:
        return None
    cost, seconds = nearest
    passes = rows / cost.infer_images_s
    return _SLACK * (passes * macs / cost.macs + max(_PROBE_START_S, seconds - passes))


def reckon(measured: Iterable[Cost], config: TrialConfig, macs: int) -> Cost:
    """Return what a configuration would cost if its arithmetic ran as fast as that of the backbone next to it.

    Args:
        measured: At least one.
        config: Of a backbone that was not measured.
        macs: Multiply-accumulates of one forward pass of one image.
    """
    nearest = min(measured, key=lambda each: (abs(math.log(each.macs / macs)), each.freeze != config.freeze))
    slower = macs / nearest.macs
    prefix = nearest.prefix_images_s
    return replace(
        nearest,
        backbone=config.backbone,
        resolution=config.resolution,
        freeze=config.freeze if prefix is not None else 0.0,
        train_images_s=nearest.train_images_s / slower,
        infer_images_s=nearest.infer_images_s / slower,
        score_images_s=nearest.score_images_s / slower,
        prefix_images_s=None if prefix is None else prefix / slower,
        macs=macs,
        prefix_macs=round(nearest.prefix_macs * slower),
    )


def longest_within(seconds: Sequence[float | None], room: float) -> int:
    """Return how long something can be that is to end in time; 0 where it cannot be at all.

    Args:
        seconds: What lengths 1, 2, 3, ... take, s; None where nothing tells.
        room: The time there is, s.
    """
    return max((length for length, each in enumerate(seconds, 1) if each is not None and each <= room), default=0)


def least_budget(seconds: float) -> float:
    """Return the budget to name where so many seconds are needed: whole tens of seconds, rounded up."""
    return 10.0 * math.ceil(seconds / 10.0)


def _distance(cost: Cost, config: TrialConfig) -> tuple[int, bool, float]:
    """Order measurements: the nearest resolution first, then those with no more frozen, then the nearest freeze."""
    deeper = cost.freeze > config.freeze
    return abs(cost.resolution - config.resolution), deeper, abs(cost.freeze - config.freeze)


def observed_stretch(trials: Sequence[Trial], forecast: Forecast) -> float:
    """Return the median of actual over predicted seconds of completed fine-tunes, never below the customary slack.

    Args:
        trials: In the order in which they started: the first of a frozen prefix pays for its activations. The newest
            `_LATELY` that completed are looked at.
        forecast: Its costs and folds.
    """
    completed = [trial for trial in trials if trial.is_completed and not trial.config.is_probe]
    first = {cost_key(trial.config): trial for trial in reversed(completed)}
    plain = replace(forecast, stretch=1.0, built=frozenset())
    warm = replace(plain, built=frozenset(first))
    ratios = [
        trial.seconds / predicted
        for trial in completed[-_LATELY:]
        if (predicted := (plain if first[cost_key(trial.config)] is trial else warm).seconds(trial.config))
    ]
    return max(_SLACK, float(np.median(ratios))) if ratios else _SLACK


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The wall time of a search."""

    began: float
    """Seconds since 1970."""
    seconds: float | None
    """None for no limit."""
    reserve: float = 0.0
    """Seconds kept for the selection, the refits of the members, the test split and the report."""

    @property
    def training_ends(self) -> float | None:
        """When nothing may train any more but the refits, in seconds since 1970."""
        return None if self.seconds is None else self.began + self.seconds - self.reserve

    def keeping(self, reserve: float) -> "Budget":
        """Return the budget with another reserve, s."""
        return replace(self, reserve=reserve)

    def share_ends(self, tier: int, tiers: int, since: float) -> float | None:
        """Return when a tier may begin nothing but start recipes: the first tier has half the share of the others.

        Args:
            tier: Its index.
            tiers: How many share the time.
            since: When the first of them began, seconds since 1970.
        """
        if self.training_ends is None:
            return None
        share = (2 * (tier + 1) - 1) / (2 * tiers - 1)
        return since + max(0.0, self.training_ends - since) * share


@dataclass(frozen=True, kw_only=True, slots=True)
class Admission:
    """Decides whether a configuration may begin.

    A start recipe may begin while it leaves room for the cheapest start of every later tier; the first of a tier while
    it ends in time at all; anything else while it ends within its tier's share.
    """

    budget: Budget
    since: float
    """When the fine-tunes of the first tier began, seconds since 1970."""
    tier: int
    tiers: int
    reserve: float
    """Seconds that the cheapest starts of the later tiers need."""
    starts: frozenset[str]
    """Trial ids of this tier's start recipes."""
    first: str
    """Trial id of the tier's cheapest start recipe."""

    def refusal(self, config: TrialConfig, predicted: float | None, now: float) -> str | None:
        """Return why the configuration may not begin, or None."""
        ends, share_ends = self.budget.training_ends, self.budget.share_ends(self.tier, self.tiers, self.since)
        if ends is None or share_ends is None or predicted is None:
            return None
        if config.trial_id == self.first:
            limit, what = ends, "the time for training"
        elif config.trial_id in self.starts:
            limit, what = max(share_ends, ends - self.reserve), "the time that the later tiers leave"
        else:
            limit, what = share_ends, "its tier's share of the budget"
        left = limit - now
        if predicted <= left:
            return None
        return f"needs about {predicted:.0f} s, and {what} has {max(0.0, left):.0f} s left"


@dataclass(frozen=True, slots=True)
class EndsInTime:
    """Decides whether a configuration may begin: if it is predicted to end while there is time for training."""

    budget: Budget

    def refusal(self, config: TrialConfig, predicted: float | None, now: float) -> str | None:
        """Return why the configuration may not begin, or None."""
        ends = self.budget.training_ends
        if ends is None or predicted is None or predicted <= ends - now:
            return None
        return f"needs about {predicted:.0f} s, and the time for training has {max(0.0, ends - now):.0f} s left"


def held_back(cheapest: Sequence[float], room: float) -> float:
    """Return how many seconds to keep for the later tiers: for one start of each that there is room for.

    Args:
        cheapest: Predicted seconds of the cheapest start of each later tier, in climbing order.
        room: Seconds that are left behind the cheapest start of the tier that begins.
    """
    kept = 0.0
    for seconds in cheapest:
        if kept + seconds <= room:
            kept += seconds
    return kept


def side_by_side(seconds: Sequence[float], workers: int) -> float:
    """Return how long pieces of work take, s, that workers take up in turn."""
    free = [0.0] * workers
    for each in seconds:
        place = free.index(min(free))
        free[place] += each
    return max(free)


def order_starts(
    starts: Sequence[TrialConfig], families: Mapping[str, str], seconds: Mapping[str, float], macs: Mapping[str, int]
) -> tuple[TrialConfig, ...]:
    """Order start recipes: cheapest first, every family once before any family twice; ties fall by MACs.

    Args:
        starts: The tier's start recipes.
        families: By backbone.
        seconds: Predicted, by trial id; what is missing, because nothing could be measured, comes last.
        macs: By trial id.
    """
    cheapest = sorted(
        starts, key=lambda each: (seconds.get(each.trial_id, math.inf), macs[each.trial_id], each.trial_id)
    )
    turn: dict[str, int] = {}
    ranked = []
    for place, config in enumerate(cheapest):
        family = families[config.backbone]
        ranked.append((turn.get(family, 0), place, config))
        turn[family] = turn.get(family, 0) + 1
    return tuple(config for _, _, config in sorted(ranked, key=lambda each: each[:2]))
