"""The evidence for an ensemble as plain values, every number with the rows and the artefact it describes."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import Calibrated, Chosen, Model, model_of
from spine_ray.ensemble.contributions import Parts, take_apart
from spine_ray.ensemble.front import Point, front
from spine_ray.ensemble.greedy import slopes
from spine_ray.ensemble.honest import CrossFit
from spine_ray.ensemble.metrics import (
    bootstrap_interval,
    expected_calibration_error,
    group_sums,
    row_losses,
    scores_of,
)
from spine_ray.ensemble.objective import gap
from spine_ray.ensemble.polish import mean_encoding
from spine_ray.ensemble.pool import PoolName
from spine_ray.ensemble.price import Amount, PriceList

_NORMAL_975 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""
NOTE = (
    "intervals cover rows, not seeds; OOF levels are somewhat optimistic, because the trials themselves were "
    "chosen on these rows"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Gain:
    """Log-loss of the single best minus that of the ensemble, nats, with its 95 % interval."""

    mean: float
    low: float
    high: float
    over: str
    """What the interval covers."""

    def to_dict(self) -> dict[str, float]:
        """Return it as plain values."""
        return {"gain": self.mean, "low": self.low, "high": self.high}

    def text(self) -> str:
        """Return it as words."""
        return f"{self.mean:.4f} nats (95 % interval {self.low:.4f} to {self.high:.4f} over {self.over})"


def honest_gain(apart: Sequence[NDArray[np.float64]], groups: NDArray[np.int64]) -> Gain:
    """Return the gain that several cross-fits measured, with an interval that also covers the luck of the folds.

    Its variance is that of a mean over groups of rows, plus that between the cross-fits, whose selections differ. Rows
    alone cover the true gain in 79 to 89 of 100 cases; this covers it in 91 to 93 with three cross-fits (docs/log.md).

    Args:
        apart: (samples,) each, log-loss of the single best minus the ensemble's, of each cross-fit.
        groups: (samples,).
    """
    means = np.array([rows.mean() for rows in apart])
    of_rows = float(np.mean([_error_squared(rows, groups) for rows in apart]))
    between = float(means.var(ddof=1)) if len(means) > 1 else 0.0
    reach = _NORMAL_975 * math.sqrt(of_rows + between)
    mean = float(means.mean())
    return Gain(mean=mean, low=mean - reach, high=mean + reach, over="rows and how they are dealt")


def _error_squared(rows: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    """Return the squared standard error of a mean of rows that come in groups."""
    sums, sizes = group_sums(rows[None, :], groups)
    count = len(sizes)
    if count < 2:
        raise ValueError(f"an interval needs at least 2 groups of rows, not {count}")
    apart = sums[0] - sizes * rows.mean()
    return float((apart**2).sum() / len(rows) ** 2 * count / (count - 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """All that is known when the answer is given; members are candidates."""

    candidates: Candidates
    calibrated: Calibrated
    chosen: Chosen
    apparent: Gain
    honest: Gain | None
    cross_fits: tuple[CrossFit, ...]
    """The first along the training folds; none without folds."""
    pool_losses: dict[PoolName, float]
    """Cross-fitted log-loss of the ensemble in each pool tried, nats; empty without folds."""


def gain_of(single: NDArray[np.float64], ensemble: NDArray[np.float64], candidates: Candidates, seed: int) -> Gain:
    """Return what an ensemble gains over a single model, given both's log-probabilities (samples, classes)."""
    apart = row_losses(single, candidates.labels) - row_losses(ensemble, candidates.labels)
    low, high = bootstrap_interval(apart, candidates.groups, seed=seed)
    return Gain(mean=float(apart.mean()), low=low, high=high, over="rows")


def report_of(evidence: Evidence, answer: Model, reason: str, mistakes: NDArray[np.float64]) -> dict[str, Any]:
    """Return the whole report; members are named by the caller's indices, mistakes cost as in `mistakes`."""
    candidates, kept = evidence.candidates, evidence.candidates.kept
    prices = PriceList(candidates.traits.costs)
    single = evidence.calibrated.alone(evidence.calibrated.single)
    values = answer.apply(candidates)
    scores, alone = (scores_of(each, candidates.labels, mistakes) for each in (values, single.apply(candidates)))
    interval = bootstrap_interval(row_losses(values, candidates.labels), candidates.groups, seed=0)
    parts = take_apart(
        candidates.stacked(answer.members, answer.temperatures), candidates.labels, answer.weights, answer.pool
    )
    cost = prices.total(answer.members)
    return {
        "answer": "ensemble" if len(answer.members) > 1 else "single",
        "reason": reason,
        "rows": f"{len(candidates.labels)} dev rows, predicted out of fold",
        "artefact": "fold models, pooled" if len(answer.members) > 1 else "fold models",
        **scores,
        "log_loss_interval": interval,
        "best_single": kept[evidence.calibrated.single],
        **{f"best_single_{name}": value for name, value in alone.items()},
        "calibration": _calibration(evidence, answer),
        "cost": cost.ms,
        "cost_macs": cost.macs,
        "cost_megabytes": cost.megabytes,
        "pool": answer.pool,
        "pool_log_loss": {str(name): loss for name, loss in evidence.pool_losses.items()},
        "cross_fit": evidence.honest.to_dict() if evidence.honest else None,
        "cross_fit_scores": _cross_fit_scores(evidence, mistakes),
        "cross_fit_by_members": _by_members(evidence),
        "apparent": evidence.apparent.to_dict(),
        "members": _members(evidence, answer, parts, prices.parts(answer.members)),
        "families": len({candidates.traits.families[member] for member in answer.members}),
        "disagreement": {
            "mean_member_log_loss": parts.mean_loss,
            "gained": parts.gained,
            "pool_log_loss": parts.whole.log_loss,
            "error_inconsistency": parts.error_inconsistency.tolist(),
        },
        "front": _front(evidence),
        "considered": {
            "members": [kept[member] for member in evidence.chosen.model.members],
            "weights": list(evidence.chosen.model.weights),
        },
        "candidates": len(kept),
        "short_list": [kept[member] for member in evidence.calibrated.short],
        "note": NOTE,
    }


def certificate_of(chosen: Chosen) -> float:
    """Return the bound on what other convex weights of the short list could gain on these rows, nats."""
    problem, selection = chosen.problem, chosen.selection
    mean = mean_encoding(problem, dict(zip(selection.members, selection.counts, strict=True)))
    return gap(*slopes(problem, mean))


def _calibration(evidence: Evidence, answer: Model) -> dict[str, float]:
    """Return the expected calibration error, lower is better, before and after temperatures."""
    candidates, labels = evidence.candidates, evidence.candidates.labels
    plain = Model(
        members=answer.members,
        weights=answer.weights,
        temperatures=(1.0,) * len(answer.members),
        pool=answer.pool,
        final_temperature=1.0,
    )
    return {
        "error_before": expected_calibration_error(plain.apply(candidates), labels),
        "error_after": expected_calibration_error(answer.apply(candidates), labels),
    }


def _cross_fit_scores(evidence: Evidence, mistakes: NDArray[np.float64]) -> dict[str, dict[str, float]] | None:
    """Return what the whole procedure scores on rows it did not see, for the ensemble and for the single best."""
    if not evidence.cross_fits:
        return None
    found, labels = evidence.cross_fits[0], evidence.candidates.labels
    return {
        "ensemble": scores_of(found.ensemble[evidence.chosen.pool], labels, mistakes),
        "best_single": scores_of(found.single, labels, mistakes),
    }


def _by_members(evidence: Evidence) -> list[dict[str, float]]:
    """Return the cross-fitted gain over the single best of at most 1 member, at most 2, ..., as far as any was chosen.

    The last is the gain of the whole procedure.
    """
    candidates, pool = evidence.candidates, evidence.chosen.pool
    most = max((len(members) for found in evidence.cross_fits for members in found.picks[pool]), default=0)
    rows = []
    for size in range(max(1, min(len(candidates.rules.pinned), most)), most + 1):
        apart = [
            row_losses(each.single, candidates.labels) - each.by_size[pool][size - 1] for each in evidence.cross_fits
        ]
        rows.append({"members": size, **honest_gain(apart, candidates.groups).to_dict()})
    return rows


def _members(evidence: Evidence, answer: Model, parts: Parts, costs: Sequence[Amount]) -> list[dict[str, Any]]:
    """Return for each member what it scores alone, what it brings and what it costs."""
    traits, kept = evidence.candidates.traits, evidence.candidates.kept
    rows = []
    for place, member in enumerate(answer.members):
        left, shapley = parts.left_out[place], parts.shapley[place] if parts.shapley else None
        rows.append(
            {
                "index": kept[member],
                "family": traits.families[member],
                "resolution": traits.resolutions[member],
                "cost": costs[place].ms,
                "cost_macs": costs[place].macs,
                "weight": answer.weights[place],
                "temperature": answer.temperatures[place],
                "log_loss": evidence.calibrated.losses[member],
                "leave_one_out_rise": left.log_loss if left else None,
                "leave_one_out_accuracy": left.accuracy if left else None,
                "shapley": asdict(shapley) if shapley else None,
                "disagreement": parts.disagreement[place],
                "chosen_in_folds": _frequency(evidence, member),
            }
        )
    return rows


def _frequency(evidence: Evidence, member: int) -> float | None:
    """Return in which share of the cross-fits' selections a member was chosen."""
    if not evidence.cross_fits:
        return None
    pool = evidence.chosen.pool
    picks = [chosen for found in evidence.cross_fits for chosen in found.picks[pool]]
    return math.fsum(member in chosen for chosen in picks) / len(picks)


def _front(evidence: Evidence) -> list[dict[str, Any]]:
    """Return what each cost buys, after the final temperature; what that makes no better is left out."""
    candidates, calibrated = evidence.candidates, evidence.calibrated
    points: list[dict[str, Any]] = []
    for point in front(evidence.chosen.problem):
        members = [calibrated.short[place] for place in point.members]
        model = model_of(candidates, calibrated, members, point.weights, evidence.chosen.pool)
        loss = float(row_losses(model.apply(candidates), candidates.labels).mean())
        if not points or loss < points[-1]["log_loss"]:
            points.append({**_point(point, calibrated.short, candidates.kept), "log_loss": loss})
    return points


def _point(point: Point, short: Sequence[int], kept: Sequence[int]) -> dict[str, Any]:
    return {
        "members": [kept[short[place]] for place in point.members],
        "weights": list(point.weights),
        "cost": point.cost.ms,
        "cost_macs": point.cost.macs,
        "best_single": kept[short[point.single]],
        "best_single_log_loss": point.single_log_loss,
    }
