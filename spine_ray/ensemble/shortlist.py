"""Which of many candidates are worth a close look: found from the probability of the true class alone."""

from dataclasses import replace

import numpy as np

from spine_ray.ensemble.candidates import SHORT_LIST, Candidates, Screen
from spine_ray.ensemble.greedy import Problem, pose, walk
from spine_ray.ensemble.objective import OBJECTIVES

_SCREEN_STEPS = 40
_LEADERS = 16
"""By log-loss, and as many by accuracy, which no temperature changes."""


def shortlist(candidates: Candidates) -> list[int]:
    """Return at most `SHORT_LIST` candidates in rising order; all of them where they are no more.

    First the pinned, what a greedy search in the probability pool picks (the best by log-loss is its first), and the
    leaders by log-loss and by accuracy; then the best of each family and of each (family, resolution); then whoever
    follows by log-loss.
    """
    members, screen = len(candidates.kept), candidates.screen
    if screen is None:
        return list(range(members))
    problem = _problem(candidates, screen)
    losses, greedy = problem.losses, list(dict.fromkeys(walk(problem).picks))
    traits, pinned = candidates.traits, candidates.rules.pinned
    values = losses + candidates.rules.price * np.array([cost.alone.ms for cost in traits.costs])
    by_loss = sorted(range(members), key=lambda index: (values[index], index))
    hits = screen.hits.sum(axis=1)
    by_hits = sorted(range(members), key=lambda index: (-hits[index], values[index], index))
    families = _firsts(by_loss, list(traits.families))
    pairs = _firsts(by_loss, list(zip(traits.families, traits.resolutions, strict=True)))
    wanted = [*pinned, *greedy, *by_loss[:_LEADERS], *by_hits[:_LEADERS], *families, *pairs, *by_loss]
    return sorted(list(dict.fromkeys(wanted))[: max(SHORT_LIST, len(pinned))])


def _firsts(order: list[int], keys: list[object]) -> list[int]:
    """Return the first of each key, in order."""
    return list({keys[index]: index for index in reversed(order)}.values())[::-1]


def _problem(candidates: Candidates, screen: Screen) -> Problem:
    """Return the search in the probability pool, for which the true class is enough, with a wide limit."""
    rules = replace(
        candidates.rules, max_members=SHORT_LIST // 2, max_cost=None, pinned=(), max_steps=_SCREEN_STEPS, tie_band=0.0
    )
    return pose(screen.truth[:, None, :], OBJECTIVES["prob"], candidates.traits, rules, candidates.num_groups)
