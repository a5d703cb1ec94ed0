"""Plans of a tier and events of its trials, for tests: no weights are read, nobody is refused, nothing is known."""

from typing import Any

from spine_ray.sampling.queue import SearchDomain
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import EpochDone, TrialStarted


def tier_plan(tier: TierSpace, weights: str, folds: int, **changes: Any) -> TierPlan:
    """Return a plan of the tier in which every backbone can be built at every resolution; keywords are its fields."""
    pairs = frozenset((backbone, side) for backbone in tier.backbones for side in tier.resolutions)
    values: dict[str, Any] = {
        "domain": SearchDomain(tier=tier, weights=weights, buildable=pairs, seed=0),
        "starts": start_configs(tier, weights), "first": (), "known": (), "most_trials": tier.trials, "folds": folds,
        "reduction": 3, "control": None, "deadline": None, "admit": lambda config, now: None,
        "describe": lambda config, is_start: trial_started(tier, config, folds, is_start=is_start),
        "effort": lambda config: 1.0, "hang_timeout": lambda config: 120.0,
    }  # fmt: skip
    return TierPlan(**{**values, **changes})


def trial_started(tier: TierSpace, config: TrialConfig, folds: int, *, is_start: bool = False) -> TrialStarted:
    return TrialStarted(
        trial_id=config.trial_id, tier=tier.name, config=config, family=config.backbone, is_start=is_start,
        total_steps=1 if config.is_probe else config.training.epochs * folds, params=1, macs=1,
        weights_source="random", licence="unknown", data_version="rows", time=0.0,
    )  # fmt: skip


def epoch_done(
    config: TrialConfig, *, step: int, fold: int, epoch: int, log_loss: float, seconds: float = 1.0
) -> EpochDone:
    return EpochDone(
        trial_id=config.trial_id, step=step, fold=fold, epoch=epoch, train_loss=1.0, log_loss=log_loss, accuracy=0.5,
        seconds=seconds, train_images=60, train_images_s=60.0, score_images_s=60.0, peak_mb=1.0,
        views=1 if config.is_probe else config.training.epochs, micro_batch=16, note="",
    )  # fmt: skip
