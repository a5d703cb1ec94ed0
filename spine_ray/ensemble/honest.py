"""What a selection is worth on rows it was not made on: the whole selection, again, along the training folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.choose import (
    Candidates,
    best_single,
    calibrated,
    choose,
    chosen_log_probs,
    member_log_probs,
)
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.pool import PoolName


@dataclass(frozen=True, kw_only=True, slots=True)
class HonestLosses:
    """Row losses, (samples,), of models that never saw the row: chosen and calibrated on the other folds."""

    single: NDArray[np.float64]
    ensemble: NDArray[np.float64]


def cross_fit(
    candidates: Candidates,
    folds: NDArray[np.int64],
    *,
    pools: Sequence[PoolName],
    starts: Sequence[float] | None = None,
) -> dict[PoolName, HonestLosses]:
    """Choose on all folds but one, score on that one; for the ensemble in each pool and for the single best.

    Temperatures, shortlist, members, weights, final temperature and the single best are all found anew for
    each fold. What remains is that the candidates themselves were searched for with the same rows in view.

    Args:
        candidates: Everything there is to choose from.
        folds: (samples,), at least two different values.
        pools: Pools to try.
        starts: Temperatures to start from; saves time and changes nothing.
    """
    rows = len(candidates.labels)
    result = {pool: HonestLosses(single=np.zeros(rows), ensemble=np.zeros(rows)) for pool in pools}
    for fold in np.unique(folds):
        seen, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        labels, truth = candidates.labels[seen], candidates.labels[held_out]
        logits = candidates.logits[:, seen]
        temperatures = calibrated(logits, labels, starts=starts)
        members = member_log_probs(logits, temperatures)
        losses = np.array([row_losses(member, labels).mean() for member in members])
        single = best_single(losses, candidates.traits, candidates.rules)
        groups = len(np.unique(candidates.groups[seen]))
        for pool in pools:
            chosen = choose(members, labels, candidates, pool=pool, groups=groups)
            index = [single, *chosen.selection.members]
            scored = member_log_probs(candidates.logits[index][:, held_out], [temperatures[member] for member in index])
            result[pool].single[held_out] = row_losses(scored[0], truth)
            result[pool].ensemble[held_out] = row_losses(chosen_log_probs(chosen, scored[1:]), truth)
    return result
