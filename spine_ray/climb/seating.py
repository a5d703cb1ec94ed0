"""How many trials share a GPU in a tier, by the memory that was measured."""

import time
from collections.abc import Sequence
from dataclasses import replace

from spine_ray.climb.desk import Desk
from spine_ray.data.counted import counted
from spine_ray.sampling.queue import SearchDomain
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.tables import cost_key

_FILLED = 0.85
"""Of a GPU's memory: what is left over is for whoever else uses it."""
_RESERVED = 1.3
"""Memory that PyTorch's allocator holds, over what tensors take at their peak."""
_CONTEXT_MB = 700.0
"""Each process's own part of a GPU: its context and its libraries' workspaces."""
_MOST = 4
"""Trials on a GPU. They take turns on it, so more only share what is left of its time."""


def seat(desk: Desk, plan: TierPlan) -> None:
    """Let as many trials share each GPU as a tier's largest leaves room for, each with the same share.

    So a tier has one class of resources, and light trials fill a GPU that a heavy one has to itself. Left as it is
    where somebody said how many trials run at once.
    """
    asked = desk.request.workers
    if desk.spec.device != "cuda" or (asked is not None and asked.device is None):
        return
    largest = _largest(plan.domain, plan.starts)
    desk.measure(desk.worth_measuring(largest, None if plan.deadline is None else plan.deadline - time.time()))
    found = [desk.costs.get(cost_key(each)) for each in largest]
    peaks = [None if cost is None else cost.peak_mb for cost in found]
    on_a_gpu = trials_on_a_gpu(peaks, desk.pool.gpu_memory_mb())
    sharing = desk.whole.sharing(on_a_gpu)
    desk.resize_pool(sharing)
    each = counted(sharing.count // desk.whole.count, "trial on each GPU", "trials on each GPU")
    desk.progress.say(f"tier {plan.domain.tier.name}: {each}, by the memory that its largest takes")


def trials_on_a_gpu(peaks_mb: Sequence[float | None], gpu_mb: float) -> int:
    """Return how many trials fit on a GPU at once, whichever of them meet there; at least 1.

    Args:
        peaks_mb: Of the tier's backbones at their largest, MB; None where it could not be measured, and then each trial
            has a GPU to itself.
        gpu_mb: Memory of the smallest GPU, MB.
    """
    if not peaks_mb or None in peaks_mb:
        return 1
    largest = max(peak for peak in peaks_mb if peak is not None)
    return max(1, min(_MOST, int(_FILLED * gpu_mb / (_RESERVED * largest + _CONTEXT_MB))))


def _largest(domain: SearchDomain, starts: Sequence[TrialConfig]) -> list[TrialConfig]:
    """Return what takes the most memory of every backbone: its largest resolution, and as little frozen as may be."""
    tier, buildable = domain.tier, domain.buildable
    found = {}
    for start in starts:
        sizes = [each for each in tier.resolutions_of(start.backbone) if (start.backbone, each) in buildable]
        found[start.backbone] = replace(start, resolution=max(sizes), freeze=min(tier.trained_freezes))
    return list(found.values())
