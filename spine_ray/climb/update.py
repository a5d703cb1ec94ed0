"""Trials from before the data changed, brought up to date one by one: trained again on the rows as they are now."""

import time
from collections.abc import Sequence
from dataclasses import replace

from spine_ray.climb.desk import Desk
from spine_ray.climb.pick import trial_named
from spine_ray.ladder.budget import Budget
from spine_ray.sampling.queue import SearchDomain
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import TrialStarted
from spine_ray.study.trials import Trial

TIER = "update"
"""What the progress calls it; in the ledger each trial keeps its tier."""


def bring_up_to_date(desk: Desk, names: Sequence[str], budget: Budget) -> None:
    """Train trials again that the study knows from earlier rows; nothing else is tried and nothing is stopped early.

    Args:
        desk: The open study.
        names: Trial ids, or parts of them.
        budget: Nothing begins or goes on after it.

    Raises:
        ValueError: If a name means no trial of earlier rows, or one whose backbone is in none of the spaces.
    """
    present = {name: trial for name, trial in desk.present.items() if trial.ended}
    earlier = {name: trial for name, trial in desk.trials.items() if name not in present}
    for words in names:
        if words in present:
            raise ValueError(f"--update {words}: that trial was trained on the rows as they are now")
    if not earlier:
        raise ValueError("--update: every trial of the study was trained on the rows as they are now")
    wanted = [earlier[trial_named(words, earlier)] for words in dict.fromkeys(names)]
    for trial in wanted:
        if (trial.config.backbone, trial.config.resolution) not in desk.prepared.facts:
            where = f"{trial.config.backbone} at {trial.config.resolution} px"
            raise ValueError(f"--update {trial.trial_id}: none of the spaces holds {where}; name one that does")
    configs = tuple(trial.config for trial in wanted)
    desk.measure(configs)
    plan = TierPlan(
        domain=_domain(desk, configs),
        starts=configs,
        first=(),
        known=tuple(trial for trial in wanted if trial.is_of(desk.samples.version)),  # interrupted at it before
        most_trials=len(configs),
        folds=desk.samples.num_folds,
        reduction=1,
        control=None,
        deadline=budget.keeping(desk.reserve(desk.pool.layout.count)).training_ends,
        admit=lambda config, now: None,
        effort=desk.effort,
        hang_timeout=desk.hang_timeout,
        describe=lambda config, _: _again(desk, earlier[config.trial_id]),
    )
    desk.progress.tier_started(TIER, "What do they say on the rows as they are now?", len(configs))
    desk.run(plan)
    desk.progress.tier_ended(TIER)
    desk.write_tables()


def _again(desk: Desk, trial: Trial) -> TrialStarted:
    """Return the record of a trial that starts once more: all that it was, on other rows."""
    return replace(trial.started, data_version=desk.samples.version, time=time.time())


def _domain(desk: Desk, configs: Sequence[TrialConfig]) -> SearchDomain:
    """Return what holds these configurations; nothing is suggested from it."""
    pairs = frozenset((config.backbone, config.resolution) for config in configs)
    tier = TierSpace(
        name=TIER,
        backbones=tuple(dict.fromkeys(config.backbone for config in configs)),
        resolutions=tuple(dict.fromkeys(config.resolution for config in configs)),
        freezes=tuple(dict.fromkeys(config.freeze for config in configs)),
        trials=len(configs),
    )
    return SearchDomain(tier=tier, weights=desk.prepared.weights.kind, buildable=pairs, seed=desk.request.seed)
