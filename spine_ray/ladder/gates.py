"""The decisions between two tiers: `sound` after light, `plateau` after mid; always with their evidence."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.metrics import bootstrap_interval, group_sums, log_loss, row_losses
from spine_ray.ladder.recognition import Recognition, recognition
from spine_ray.ladder.view_check import ViewCheck

GateName = Literal["sound", "plateau"]
Verdict = Literal["climb", "again", "climb_frozen_first", "climb_frozen_only", "stop"]
Setting = Literal["auto", "always", "never"]
SETTINGS = ("auto", "always", "never")

CONTROL_MARGIN = 0.02
"""Nats by which shuffled labels may seem to beat the class prior.

Who truly knows a share f of the labels of K balanced classes gains about f * log(K): 0.02 nats are 1 row in 100
for ten classes, 3 in 100 for two. Less than that cannot be what carries a model; and the interval alone would
raise a false alarm for one clean control in forty.
"""
NOTE = "intervals cover rows, not seeds"
_DRAWS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class GateDecision:
    """What a gate decided and on which evidence."""

    gate: GateName
    after: str
    """The tier that has just ended."""
    verdict: Verdict
    reason: str
    """One plain sentence with the numbers."""
    numbers: dict[str, Any]
    """The evidence as plain values; losses in nats."""
    findings: tuple[str, ...] = ()
    """What the evidence shows besides, whatever was decided; one sentence each, without its full stop."""

    def __post_init__(self) -> None:
        """Refuse a decision without a reason."""
        if not self.reason.strip():
            raise ValueError("a gate's decision needs a reason")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GateDecision":
        """Build the decision that `to_dict` returned, also where it was stored before there were findings.

        Raises:
            TypeError: If a field is missing or unknown.
        """
        return cls(**{**values, "findings": tuple(values.get("findings", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShuffledControl:
    """A trial trained on shuffled labels, scored on its own held-out shuffled labels."""

    losses: NDArray[np.float64]
    """(samples,), log-loss of each row, nats."""
    prior_losses: NDArray[np.float64]
    """(samples,), log-loss of the class prior on the same shuffled labels, nats."""
    groups: ArrayLike | None = None
    """(samples,), rows of one group stay together; None: every row for itself."""

    def __post_init__(self) -> None:
        """Refuse losses of different rows."""
        if self.losses.ndim != 1 or self.losses.shape != self.prior_losses.shape:
            raise ValueError(f"a control needs two losses a row, not {self.losses.shape} and {self.prior_losses.shape}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SoundOptions:
    """What, besides the log-probabilities, decides whether a trial is sound."""

    classes: tuple[str, ...]
    """The classes' names."""
    max_collapsed_share: float
    """Share of the judged classes, 0 to 1, that may collapse; 0 stops at the first, 1 at none."""
    setting: Setting = "auto"

    def __post_init__(self) -> None:
        """Refuse a share that is none and unknown settings."""
        if not 0.0 <= self.max_collapsed_share <= 1.0:
            raise ValueError(f"max_collapsed_share must lie in 0 to 1, not {self.max_collapsed_share}")
        _check_setting(self.setting)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlateauOptions:
    """What, besides the losses, decides where the ladder goes after a tier."""

    min_effect: float
    """Gain that matters, nats, at least 0."""
    moved_late: bool
    """Whether the tier's best still improved in the last third of its trials."""
    may_repeat: bool
    """Whether the tier may have one more helping."""
    can_freeze: bool
    """Whether the next tier can begin frozen or part-frozen."""
    heavy_fits_budget: bool
    """Whether the budget holds a full trial of the next tier."""
    costs: tuple[float, float]
    """Relative compute of this tier's best and of the earlier best, above 0."""
    dev_rows: int
    small_data: int
    """With fewer dev rows the next tier opens frozen or part-frozen only."""
    setting: Setting = "auto"

    def __post_init__(self) -> None:
        """Refuse a negative effect, costs that are none and unknown settings."""
        if not math.isfinite(self.min_effect) or self.min_effect < 0:
            raise ValueError(f"min_effect must be at least 0 nats, not {self.min_effect}")
        if not all(math.isfinite(cost) and cost > 0 for cost in self.costs):
            raise ValueError(f"costs must be above 0, not {self.costs}")
        _check_setting(self.setting)


def prior_losses(labels: ArrayLike) -> NDArray[np.float64]:
    """Return the log-loss of each row, (samples,), nats, under the labels' own class shares.

    No constant prediction has a lower mean on these rows: the strictest prior to beat.
    """
    _, codes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    losses: NDArray[np.float64] = -np.log(counts / counts.sum())[codes]
    return losses


def sound_gate(
    log_probs: NDArray[np.float64],
    labels: ArrayLike,
    *,
    after: str,
    options: SoundOptions,
    groups: ArrayLike | None = None,
    control: ShuffledControl | None = None,
    views: ViewCheck | None = None,
    seed: int = 0,
) -> GateDecision:
    """Decide whether the pipeline learns anything, and nothing that it cannot know.

    Climb if the best trial surely beats the class prior, a shuffled-label control does not beat it by more than
    `CONTROL_MARGIN`, no more than `max_collapsed_share` of the classes with rows enough collapsed (see
    `recognition`), and augmentation does not destroy the classes. A class of which no row is recognised is a finding:
    it says something of that class, and not that nothing was learnt.

    Args:
        log_probs: (samples, classes), OOF log-probabilities of the tier's best trial.
        labels: (samples,), class indices.
        after: The tier.
        options: What else decides; its setting `always` or `never` overrules the evidence.
        groups: (samples,), rows of one group stay together; None: every row for itself.
        control: The shuffled-label trial; None: said in the reason.
        views: What augmentation does to a linear probe; None where nobody looked.
        seed: Seed of the intervals' resampling.

    Raises:
        ValueError: If shapes disagree.
    """
    truth = np.asarray(labels)
    if np.ndim(log_probs) != 2 or truth.shape != np.shape(log_probs)[:1]:
        raise ValueError(
            f"log_probs must be (samples, classes) with one label a row, not {np.shape(log_probs)} with {truth.shape}"
        )
    prior = prior_losses(truth)
    interval = bootstrap_interval(row_losses(log_probs, truth) - prior, groups, seed=seed)
    recognised = recognition(log_probs, truth, options.classes, groups)
    numbers: dict[str, Any] = {
        "log_loss": log_loss(log_probs, truth),
        "prior_log_loss": float(prior.mean()),
        "minus_prior": interval,
        "control_minus_prior": _control_interval(control, seed),
        "control_margin": CONTROL_MARGIN,
        "max_collapsed_share": options.max_collapsed_share,
        **recognised.to_dict(),
        "note": NOTE,
    }
    if views is not None:
        numbers["views"] = views.to_dict()
    verdict, reason = _sound_verdict(numbers, recognised, views)
    decision = _decide("sound", after, verdict, reason, numbers, options.setting)
    return replace(decision, findings=recognised.findings)


def plateau_gate(
    tier_losses: NDArray[np.float64],
    earlier_losses: NDArray[np.float64],
    *,
    after: str,
    options: PlateauOptions,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> GateDecision:
    """Decide whether a tier's best beats the earlier best by an effect that matters, and where to go from there.

    Gain surely above `min_effect`: climb, or once more the same tier if its best still moved late. Surely below:
    plateau; the next tier opens to look for the ceiling if the budget holds a full trial of it. Undecided: the
    next tier opens frozen first.

    Args:
        tier_losses: (trials, samples), OOF row losses of this tier's trials, nats.
        earlier_losses: (trials, samples), the same rows for the trials of the earlier tiers.
        after: The tier.
        options: What else decides.
        groups: (samples,), rows of one group stay together; None: every row for itself.
        seed: Seed of the resampling.

    Raises:
        ValueError: If there are no trials on one side or the rows differ.
    """
    gain, low, high = out_of_bag_gain(tier_losses, earlier_losses, groups, seed=seed)
    tier_means, earlier_means = tier_losses.mean(axis=1), earlier_losses.mean(axis=1)
    ratio = options.costs[0] / options.costs[1]
    numbers: dict[str, Any] = {
        "gain": gain,
        "low": low,
        "high": high,
        "min_effect": options.min_effect,
        "tier_best": int(tier_means.argmin()),
        "tier_best_log_loss": float(tier_means.min()),
        "earlier_best": int(earlier_means.argmin()),
        "earlier_best_log_loss": float(earlier_means.min()),
        "cost_ratio": ratio,
        "moved_late": options.moved_late,
        "dev_rows": options.dev_rows,
        "small_data": options.small_data,
        "note": NOTE,
    }
    verdict, meaning = _for_small_data(*_plateau_verdict(low, high, options), options)
    reason = (
        f"{after}'s best gains {gain:.4f} nats over the earlier best ({_span((low, high))}, each best re-chosen "
        f"out of bag) at {ratio:.2g} times its compute: {meaning}"
    )
    return _decide("plateau", after, verdict, reason, numbers, options.setting)


def out_of_bag_gain(
    tier_losses: NDArray[np.float64],
    earlier_losses: NDArray[np.float64],
    groups: ArrayLike | None,
    *,
    seed: int,
) -> tuple[float, float, float]:
    """Return by how much the best of one set of trials beats the best of another: mean, and 95 % interval, nats.

    In each of 1000 resamples of whole groups each side's best is chosen on the groups drawn and scored on those
    not drawn, so that neither best profits from having been picked on the rows that judge it. Those are about
    37 % of the groups, which makes the interval about 1.3 times as wide as that of a comparison fixed in advance:
    it errs towards "undecided" (the scheme of Tsamardinos et al. 2018).

    Args:
        tier_losses: (trials, samples), nats.
        earlier_losses: (trials, samples), the same rows.
        groups: (samples,); None: every row for itself.
        seed: Seed of the resampling.

    Raises:
        ValueError: If a side has no trials, the rows differ or there are fewer than 5 groups.
    """
    for side in (tier_losses, earlier_losses):
        if side.ndim != 2 or not len(side) or side.shape[1] != tier_losses.shape[1]:
            raise ValueError(
                "both sides need trials on the same rows as (trials, samples), "
                f"not {tier_losses.shape} and {earlier_losses.shape}"
            )
    split = len(tier_losses)
    sums, sizes = group_sums(np.concatenate([tier_losses, earlier_losses]), groups)
    count = len(sizes)
    if count < 5:
        raise ValueError(f"an out-of-bag comparison needs at least 5 groups of rows, not {count}")
    generator = np.random.default_rng(seed)
    table = np.ascontiguousarray(np.vstack([sums, sizes]).T)
    gains: list[NDArray[np.float64]] = []
    batch = max(1, 2**21 // count)
    for start in range(0, _DRAWS, batch):
        size = min(batch, _DRAWS - start)
        drawn = generator.integers(0, count, size=(size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        inside, outside = times @ table, (times == 0.0).astype(np.float64) @ table
        tier = inside[:, :split].argmin(axis=1)
        earlier = split + inside[:, split:-1].argmin(axis=1)
        rows = np.arange(size)[outside[:, -1] > 0]  # with few groups a draw can hold them all
        difference = outside[rows, earlier[rows]] - outside[rows, tier[rows]]
        gains.append(difference / outside[rows, -1])
    values = np.concatenate(gains)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _sound_verdict(numbers: dict[str, Any], recognised: Recognition, views: ViewCheck | None) -> tuple[Verdict, str]:
    """Name everything that is wrong, or say that nothing is."""
    interval, control = numbers["minus_prior"], numbers["control_minus_prior"]
    beats = (
        f"log-loss {numbers['log_loss']:.3f} against {numbers['prior_log_loss']:.3f} of the class prior "
        f"(difference {_span(interval)})"
    )
    wrong = [views.sentence] if views is not None and views.is_destroyed else []
    if interval[1] >= 0.0:
        wrong.append(f"the best trial does not surely beat the class prior: {beats}")
    if control and control[1] < -CONTROL_MARGIN:
        wrong.append(
            f"shuffled labels were learnt: their control beats the class prior by more than {CONTROL_MARGIN:g} nats "
            f"(difference {_span(control)}), so something leaks"
        )
    if recognised.collapsed_share > numbers["max_collapsed_share"]:
        wrong.append(f"{recognised.collapse}, and max_collapsed_share allows {numbers['max_collapsed_share']:.0%}")
    checked = "no shuffled-label control was run"
    if control:
        checked = (
            f"its shuffled-label control does not surely beat the class prior by {CONTROL_MARGIN:g} nats "
            f"(difference {_span(control)})"
        )
    if wrong:
        return "stop", "; ".join(wrong if control else [*wrong, checked])
    kept = "" if views is None else f", {views.sentence}"
    return "climb", f"the best trial is sound: {beats}, {recognised.summary}, {checked}{kept}"


def _plateau_verdict(low: float, high: float, options: PlateauOptions) -> tuple[Verdict, str]:
    """Read the decision table."""
    effect = f"{options.min_effect:g} nats"
    if low > options.min_effect:
        if options.moved_late and options.may_repeat:
            return "again", f"surely above {effect} and still moving late, so one more helping of this tier"
        return "climb", f"surely above {effect}, so the next tier opens"
    if high < options.min_effect:
        if options.heavy_fits_budget:
            return "climb", f"surely below {effect}, a plateau; heavy opens to look for the ceiling"
        return "stop", f"surely below {effect}, a plateau, and the budget does not hold a full heavy trial"
    if options.can_freeze:
        return "climb_frozen_first", f"undecided against {effect}, so heavy opens frozen or part-frozen first"
    return "climb", f"undecided against {effect}; heavy would open frozen first, but cannot, so it opens as it is"


def _for_small_data(verdict: Verdict, meaning: str, options: PlateauOptions) -> tuple[Verdict, str]:
    """Let few rows open a tier of large models only where most of them stays as it was pretrained."""
    if verdict in ("stop", "again") or options.dev_rows >= options.small_data:
        return verdict, meaning
    few = f"{options.dev_rows} dev rows are fewer than small_data, {options.small_data}"
    if options.can_freeze:
        return "climb_frozen_only", f"{meaning}; {few}, so it opens frozen or part-frozen only"
    return verdict, f"{meaning}; {few}, but nothing of it can be frozen"


def _decide(
    gate: GateName, after: str, verdict: Verdict, reason: str, numbers: dict[str, Any], setting: Setting
) -> GateDecision:
    """Build the decision; `always` and `never` overrule the verdict and keep the evidence."""
    if setting != "auto":
        ruled: Verdict = "climb" if setting == "always" else "stop"
        reason = f"{ruled} was set by the user ({setting}); the evidence alone says {verdict}: {reason}"
        verdict = ruled
    return GateDecision(gate=gate, after=after, verdict=verdict, reason=reason, numbers=numbers)


def _control_interval(control: ShuffledControl | None, seed: int) -> tuple[float, float] | None:
    if control is None:
        return None
    return bootstrap_interval(control.losses - control.prior_losses, control.groups, seed=seed)


def _span(interval: tuple[float, float]) -> str:
    return f"95 % interval {interval[0]:.4f} to {interval[1]:.4f} over rows, not seeds"


def _check_setting(setting: str) -> None:
    if setting not in SETTINGS:
        raise ValueError(f"a gate's setting must be one of {', '.join(SETTINGS)}, not {setting!r}")
