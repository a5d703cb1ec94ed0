"""Pools: several models' log-probabilities made into one, and what the members' disagreement is worth."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.calibrate import log_probs as normalised

PoolName = Literal["log", "prob"]

FLOOR = 1e-6
"""Smallest probability a member may claim before pooling.

In a log pool a member that calls the truth impossible vetoes it. Among eight equal members (the default limit)
one that is certain and wrong is outvoted by seven that hold 9 to 1 for the truth exactly if its claim is at
least (1/9)^7 = 2e-7. And no set of fewer than a million OOF rows could vouch for a smaller probability.
"""


def floored(log_probs: NDArray[np.float64], floor: float = FLOOR) -> NDArray[np.float64]:
    """Return log-probabilities (..., classes) with none below `log(floor)`, summing to one again."""
    return normalised(np.maximum(log_probs, np.log(floor)))


def log_pool(log_probs: NDArray[np.float64], weights: ArrayLike) -> NDArray[np.float64]:
    """Pool by the normalised weighted geometric mean.

    Args:
        log_probs: (members, samples, classes), finite (see `floored`).
        weights: (members,), at least 0, summing to 1.

    Returns:
        Log-probabilities (samples, classes).
    """
    return normalised(np.tensordot(np.asarray(weights, dtype=np.float64), log_probs, axes=1))


def prob_pool(log_probs: NDArray[np.float64], weights: ArrayLike) -> NDArray[np.float64]:
    """Pool by the weighted arithmetic mean of probabilities; shapes as in `log_pool`."""
    top = log_probs.max(axis=0)
    mean = np.tensordot(np.asarray(weights, dtype=np.float64), np.exp(log_probs - top), axes=1)
    return np.asarray(np.log(mean) + top)


def pooled(name: PoolName, log_probs: NDArray[np.float64], weights: ArrayLike) -> NDArray[np.float64]:
    """Pool (members, samples, classes) log-probabilities in the named pool into (samples, classes)."""
    return log_pool(log_probs, weights) if name == "log" else prob_pool(log_probs, weights)


def member_disagreement(pool_log_probs: NDArray[np.float64], log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each member's mean KL(pool || member) over the rows, (members,), nats.

    Args:
        pool_log_probs: (samples, classes).
        log_probs: (members, samples, classes).
    """
    pool = np.exp(pool_log_probs)
    return np.array([np.sum(pool * (pool_log_probs - member)) / len(pool) for member in log_probs])


def disagreement(log_probs: NDArray[np.float64], weights: ArrayLike) -> float:
    """Return what a log pool gains over its members, nats, at least 0; needs no labels.

    For every labelling, exactly: log-loss of the log pool = weighted mean of the members' log-losses - this
    (Wood et al. 2023, with the centroid combiner of the KL divergence). It is the weighted mean of
    `member_disagreement`.
    """
    shares = np.asarray(weights, dtype=np.float64)
    return float(shares @ member_disagreement(log_pool(log_probs, shares), log_probs))


def pairwise_disagreement(log_probs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what an even log pool of two members gains over the mean of both, (members, members), nats.

    It is `disagreement` of every pair with weights of a half, which is their Bhattacharyya distance: at least 0, and 0
    for a member with itself.

    Args:
        log_probs: (members, samples, classes), normalised.
    """
    roots = np.exp(0.5 * log_probs.transpose(1, 0, 2))
    likeness = np.minimum(roots @ roots.transpose(0, 2, 1), 1.0)
    found: NDArray[np.float64] = -np.log(likeness).mean(axis=0)
    np.fill_diagonal(found, 0.0)
    return found
