"""What a selection would be worth with fewer members: the greedy way, cut where one member more would come in."""

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import Calibrated, Chosen
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.pool import pooled


def losses_by_size(seen: Candidates, unseen: Candidates, calibrated: Calibrated, chosen: Chosen) -> NDArray[np.float64]:
    """Return the log-loss of rows that a selection did not see, for every number of members it may have.

    Smaller ensembles are what the greedy way had found before one member more came in, each with a final temperature
    of its own; from its own size on, the selection itself answers. Pinned members are in from the start.

    Args:
        seen: The rows it was made on.
        unseen: Other rows of the same candidates.
        calibrated: Short list and temperatures.
        chosen: The selection.

    Returns:
        (most members, unseen rows), nats: at most 1 member, at most 2, ...
    """
    whole = row_losses(chosen.model.apply(unseen), unseen.labels)
    losses = np.tile(whole, (seen.rules.max_members, 1))
    cuts = [cut for cut in range(1, len(chosen.model.members)) if cut >= len(seen.rules.pinned)]
    if not cuts:
        return losses
    order = list(dict.fromkeys(chosen.selection.picks))
    members = [calibrated.short[place] for place in order[: cuts[-1]]]
    temperatures = [calibrated.temperatures[member] for member in members]
    here, there = seen.stacked(members, temperatures), unseen.stacked(members, temperatures)
    for cut in cuts:
        picks = _best_prefix(chosen, cut)
        shares = np.array([picks.count(place) for place in order[:cut]], np.float64) / len(picks)
        final = 1.0
        if cut > 1:
            final = fit_temperature(pooled(chosen.pool, here[:cut], shares), seen.labels)
        losses[cut - 1] = row_losses(log_probs(pooled(chosen.pool, there[:cut], shares), final), unseen.labels)
    losses[: cuts[0] - 1] = losses[cuts[0] - 1]
    return losses


def _best_prefix(chosen: Chosen, members: int) -> tuple[int, ...]:
    """Return the greedy way up to its lowest objective with at most so many members."""
    picks, trajectory = chosen.selection.picks, chosen.selection.trajectory
    first = len(picks) - len(trajectory)  # picks before the first measured step: the pinned but one
    allowed = [step for step in range(len(trajectory)) if len(set(picks[: first + step + 1])) <= members]
    best = min(allowed, key=lambda step: (trajectory[step], step))
    return picks[: first + best + 1]
