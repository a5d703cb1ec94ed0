"""From OOF logits to what ships: members chosen, fitted once more on all dev rows, judged on the test split."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from spine_ray.climb.choice import Choice, Judge, Limits, kept_test, make_choice, stored_wishes, write_choice
from spine_ray.climb.desk import Desk
from spine_ray.climb.request import StoppedByGate
from spine_ray.core.pixels import short_side
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import bootstrap_interval, row_losses, share_interval
from spine_ray.ensemble.selection import pooled_log_probs
from spine_ray.ladder.budget import Budget
from spine_ray.ladder.evidence import Evidence, gather
from spine_ray.space.config import TrialConfig
from spine_ray.space.cost_matrix import cost_table
from spine_ray.space.schema import Space
from spine_ray.study.record import TestOpening, write_record
from spine_ray.study.shipped import is_fitted
from spine_ray.study.tables import cost_key
from spine_ray.study.trials import Trial
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.tasks import refit_members, score_rows
from spine_ray.workers.worker import Refit


@dataclass(frozen=True, kw_only=True, slots=True)
class Shipped:
    """The answer and how it does."""

    evidence: Evidence
    choice: Choice
    test: tuple[dict[str, Any], ...]
    """Results on the test split; empty where it stayed shut."""
    openings: int
    """How often the test split was looked at so far."""


def ship(desk: Desk, space: Space, budget: Budget) -> Shipped:
    """Choose, refit, open the test split where allowed, and write `ensemble.json`.

    Raises:
        StoppedByGate: If no trial was completed.
    """
    completed = {name: trial for name, trial in desk.present.items() if trial.is_completed}
    if not completed:
        raise StoppedByGate("no trial was completed, so there is nothing to choose from")
    desk.measure([trial.config for trial in completed.values()])
    evidence, choice = _choose_what_fits(desk, space, completed, budget)
    needed = _needed(choice)
    test = kept_test(desk.paths, choice)
    openings = len(desk.study.test_openings)
    if len(desk.samples.test) and (desk.request.open_test or not openings):
        test = _open_test(desk, evidence, choice, needed)
        opening = TestOpening(time=datetime.now(UTC).isoformat(timespec="seconds"), ensemble_hash=choice.digest)
        desk.study = desk.study.with_opening(opening)
        write_record(desk.paths, desk.study)
        openings = len(desk.study.test_openings)
    write_choice(desk.paths, choice, test, openings, short_side(desk.prepared.largest_resolution))
    return Shipped(evidence=evidence, choice=choice, test=test, openings=openings)


def _choose_what_fits(
    desk: Desk, space: Space, completed: Mapping[str, Trial], budget: Budget
) -> tuple[Evidence, Choice]:
    """Choose and fit once more what was chosen; what cannot be priced or fitted is left out, and said.

    Raises:
        StoppedByGate: If nothing is left.
    """
    left = {name: trial for name, trial in completed.items() if cost_key(trial.config) in desk.costs}
    for name in completed.keys() - left.keys():
        desk.progress.say(f"{name} is left out of the choice: what it costs could not be measured")
    left = _refitted_in_time(desk, left, budget)
    while left:
        evidence = gather(desk.paths, desk.samples, left)
        choice = _choose(desk, space, evidence, budget)
        undone = _refit(desk, [trial.config for trial in _needed(choice)])
        if not undone:
            return evidence, choice
        for each in undone:
            desk.progress.say(f"{each.config.trial_id} is left out of the choice: its refit failed: {each.reason}")
            del left[each.config.trial_id]
    raise StoppedByGate("no completed trial could be measured and fitted once more, so there is nothing to choose from")


def _refitted_in_time(desk: Desk, trials: Mapping[str, Trial], budget: Budget) -> dict[str, Trial]:
    """Return the trials that the budget can fit once more, or those that take the least time where it can none."""
    if budget.seconds is None:
        return dict(trials)
    left = budget.began + budget.seconds - time.time()
    version = desk.samples.version
    seconds = {
        name: 0.0 if is_fitted(desk.paths, name, version) else desk.refit_seconds([trial.config], 1)
        for name, trial in trials.items()
    }
    limit = max(left, min(seconds.values(), default=0.0))
    for name in trials:
        if seconds[name] > limit:
            desk.progress.say(f"{name} is left out of the choice: the budget does not hold its refit")
    return {name: trial for name, trial in trials.items() if seconds[name] <= limit}


def _needed(choice: Choice) -> list[Trial]:
    """Return what is fitted once more: the members, and the best single model to compare them with."""
    return list(dict.fromkeys([*choice.members, choice.single]))


def _choose(desk: Desk, space: Space, evidence: Evidence, budget: Budget) -> Choice:
    """Select; with a budget, at most as many members as there is time to fit again."""
    most = space.max_members
    judge = Judge(metric=space.metric, cost_matrix=cost_table(space.cost_matrix, desk.samples.classes))
    while True:
        limits = Limits(max_members=most, max_per_family=space.max_per_family)
        choice = make_choice(evidence, desk.costs, stored_wishes(desk.paths), limits, judge, desk.request.seed)
        size = len(choice.members)
        if size <= max(1, len(choice.wishes.pinned)) or _fits(desk, [each.config for each in choice.members], budget):
            return choice
        most = size - 1
        desk.progress.say(f"the budget does not hold the refits of {size} members; at most {most} now")


def _fits(desk: Desk, configs: list[TrialConfig], budget: Budget) -> bool:
    if budget.seconds is None:
        return True
    wall = desk.refit_seconds(configs, desk.pool.layout.count)
    return time.time() + wall <= budget.began + budget.seconds


def _refit(desk: Desk, configs: list[TrialConfig]) -> list[WorkFailure]:
    version = desk.samples.version
    missing = [config for config in configs if not is_fitted(desk.paths, config.trial_id, version)]
    if not missing:
        return []
    desk.progress.say(f"fitting {len(missing)} once more on all {len(desk.samples.dev)} dev rows: what ships")

    def told(refit: Refit) -> None:
        if desk.afar is not None:
            desk.afar.bring(desk.paths.refit(refit.trial_id))
        desk.progress.say(f"  fitted {refit.trial_id} in {refit.seconds:.0f} s")

    return refit_members(missing, desk.spec, desk.pool, told)


def _open_test(desk: Desk, evidence: Evidence, choice: Choice, needed: list[Trial]) -> tuple[dict[str, Any], ...]:
    rows = desk.samples.test
    scored = score_rows([trial.config for trial in needed], desk.spec, desk.pool, rows)
    logits = dict(zip([trial.trial_id for trial in needed], scored, strict=True))
    members = choice.members
    pool = pooled_log_probs(choice.ensemble, np.stack([logits[trial.trial_id] for trial in members]))
    labels, groups, seed = desk.samples.labels[rows], desk.samples.groups[rows], desk.request.seed
    name = "ensemble" if len(members) > 1 else "answer (single model)"
    results = [_result(f"{name}, refitted on all dev rows", pool, labels, groups, seed)]
    if len(members) > 1:
        place = int(choice.ensemble.report["best_single"])
        temperature = fit_temperature(evidence.logits[place], evidence.labels)
        alone = log_probs(logits[evidence.trials[place].trial_id], temperature)
        single = evidence.trials[place].config.backbone
        results.append(_result(f"best single {single}, refitted on all dev rows", alone, labels, groups, seed))
    return tuple(results)


def _result(
    artefact: str,
    predicted: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    seed: int,
) -> dict[str, Any]:
    losses = row_losses(predicted, labels)
    hits = (predicted.argmax(axis=1) == labels).astype(np.float64)
    return {
        "artefact": artefact,
        "rows": len(labels),
        "log_loss": float(losses.mean()),
        "log_loss_interval": bootstrap_interval(losses, groups, seed=seed),
        "accuracy": float(hits.mean()),
        "accuracy_interval": share_interval(hits, groups, seed=seed),
    }
