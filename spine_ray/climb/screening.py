"""The screening prior: what every backbone's frozen features promise, looked at once before a tier begins."""

from collections.abc import Sequence
from dataclasses import asdict

from spine_ray.climb.desk import Desk
from spine_ray.core.screen import Screening
from spine_ray.space.config import TrialConfig
from spine_ray.study.paths import read_json, replace_json
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.tasks import screen_backbones


def screened(desk: Desk, starts: Sequence[TrialConfig]) -> tuple[str, ...]:
    """Return a tier's backbones, the most promising by a linear probe on frozen features first.

    Each is looked at once a study, at its start resolution, as long as the rows stay the same. With random weights
    the features promise nothing, so nothing is looked at. The order only leads the first suggestions; no backbone is
    left out for it.

    Raises:
        ValueError: If the file of what was found is damaged.
    """
    if desk.prepared.weights.kind == "random" or len(starts) < 2:
        return ()
    known = _stored(desk)
    missing = [config for config in starts if _key(config) not in known]
    for config, found in zip(missing, screen_backbones(missing, desk.spec, desk.pool), strict=True):
        if isinstance(found, WorkFailure):
            desk.progress.say(f"  frozen features of {config.backbone}: not looked at: {found.reason}")
            continue
        known[_key(config)] = found
        desk.progress.say(
            f"  frozen features of {config.backbone}: linear probe {found.probe_accuracy:.1%} "
            f"(log-loss {found.probe_log_loss:.3f}), nearest neighbours {found.knn_accuracy:.1%}"
        )
    if missing:
        kept = {"data_version": desk.samples.version, "found": {key: asdict(found) for key, found in known.items()}}
        replace_json(desk.paths.screening, kept)
    looked_at = [config for config in starts if _key(config) in known]
    ranked = sorted(looked_at, key=lambda config: (known[_key(config)].probe_log_loss, config.backbone))
    return tuple(config.backbone for config in ranked)


def _stored(desk: Desk) -> dict[str, Screening]:
    """Return what was found before on these very rows."""
    path = desk.paths.screening
    if not path.exists():
        return {}
    kept = read_json(path)
    try:
        if kept["data_version"] != desk.samples.version:
            return {}
        return {key: Screening(**found) for key, found in kept["found"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}; delete it to have it made anew") from error


def _key(config: TrialConfig) -> str:
    return f"{config.backbone} at {config.resolution} px"
