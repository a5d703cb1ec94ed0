"""What a selection is worth on rows it was not made on: the whole selection, again, along the training folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import calibrate, choose
from spine_ray.ensemble.pool import PoolName
from spine_ray.ensemble.sizes import losses_by_size


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossFit:
    """Log-probabilities, (samples, classes), of models that never saw the row: chosen on the other folds."""

    single: NDArray[np.float64]
    ensemble: dict[PoolName, NDArray[np.float64]]
    picks: dict[PoolName, tuple[tuple[int, ...], ...]]
    """The members chosen for each fold."""
    by_size: dict[PoolName, NDArray[np.float64]]
    """(most members, samples), log-loss of each row with at most 1 member, at most 2, ..., nats."""
    singles: tuple[int, ...]
    """The best single model chosen for each fold."""


def deal_again(groups: NDArray[np.int64], folds: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return as many folds as there are, with the groups dealt to them at random, (samples,)."""
    names, codes = np.unique(groups, return_inverse=True)
    parts = min(len(np.unique(folds)), len(names))
    places = np.random.default_rng(seed).permutation(len(names)) % parts
    return np.asarray(places[codes], np.int64)


def cross_fit(
    candidates: Candidates,
    folds: NDArray[np.int64],
    pools: Sequence[PoolName],
    starts: Mapping[int, float] | None = None,
) -> CrossFit:
    """Choose on all folds but one, predict that one; for the ensemble in each pool and for the single best.

    Short list, temperatures, members, weights, final temperature and the single best are all found anew for each
    fold. What remains is that the candidates themselves were searched for with the same rows in view.

    Args:
        candidates: Everything there is to choose from.
        folds: (samples,), at least two different values.
        pools: Pools to try.
        starts: Temperatures to start from, by candidate; they save time and change nothing.
    """
    shape = (len(candidates.labels), candidates.logits.shape[2])
    single = np.zeros(shape)
    ensemble = {pool: np.zeros(shape) for pool in pools}
    picks: dict[PoolName, list[tuple[int, ...]]] = {pool: [] for pool in pools}
    by_size = {pool: np.zeros((candidates.rules.max_members, shape[0])) for pool in pools}
    singles = []
    for fold in np.unique(folds):
        seen, held_out = candidates.on(np.flatnonzero(folds != fold)), np.flatnonzero(folds == fold)
        unseen = replace(candidates, screen=None).on(held_out)
        calibrated, problems = calibrate(seen, pools, starts)
        single[held_out] = calibrated.alone(calibrated.single).apply(unseen)
        singles.append(calibrated.single)
        for pool, problem in problems.items():
            chosen = choose(seen, calibrated, pool, problem)
            ensemble[pool][held_out] = chosen.model.apply(unseen)
            picks[pool].append(chosen.model.members)
            by_size[pool][:, held_out] = losses_by_size(seen, unseen, calibrated, chosen)
    return CrossFit(
        single=single,
        ensemble=ensemble,
        picks={pool: tuple(found) for pool, found in picks.items()},
        by_size=by_size,
        singles=tuple(singles),
    )
