"""The board's rows: probes, the controlled comparison, the best of each backbone, what was trained on earlier rows."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spine_ray.climb.files import StudyFiles
from spine_ray.ensemble.metrics import bootstrap_interval
from spine_ray.ladder.comparison import Comparison, compare_losses
from spine_ray.ladder.evidence import Evidence
from spine_ray.show.board import BoardRow, Role
from spine_ray.space.config import RECIPE_FIELDS
from spine_ray.study.paths import replace_json
from spine_ray.study.trials import Trial

_CLEARLY = 1.1
"""Times by which a cost must be higher before a tier's name is said to mislead."""


@dataclass(frozen=True, slots=True)
class Field:
    """Trials that are compared with each other, and how they compare."""

    trials: tuple[Trial, ...]
    """Those with OOF logits."""
    places: tuple[int, ...]
    """Where they stand in the evidence."""
    comparison: Comparison


def board_rows(study: StudyFiles, evidence: Evidence) -> list[BoardRow]:
    """Return every backbone by its probe and at its start recipe, the best of each, and the trials on earlier rows.

    Args:
        study: The study.
        evidence: Of these trials at least, as far as they are of the present rows and completed.
    """
    present = list(study.present.values())
    starts = [trial for trial in present if trial.started.is_start]
    earlier = [trial for name, trial in study.trials.items() if name not in study.present]
    rows: list[BoardRow] = []
    probes = best_of_each(trial for trial in present if trial.config.is_probe)
    fields: tuple[tuple[Role, list[Trial]], ...] = (
        ("probe", probes),
        ("start", starts),
        ("best", best_of_each(present)),
    )
    for role, trials in fields:
        compared = _field(study, evidence, trials)
        rows += [_row(study, evidence, trial, role, compared) for trial in trials]
    return rows + [_row(study, evidence, trial, "earlier", None) for trial in earlier if trial.is_completed]


def write_comparison(study: StudyFiles, evidence: Evidence) -> None:
    """Keep the controlled comparison with all its pairs; nothing where no start recipe was completed."""
    compared = _field(study, evidence, [trial for trial in study.present.values() if trial.started.is_start])
    if compared is None:
        return
    costs = study.costs
    found = compared.comparison
    rows = []
    for place in found.order:
        trial = compared.trials[place]
        behind, margin = found.behind(place)
        cost = costs.get((trial.config.backbone, trial.config.resolution, trial.config.freeze))
        rows.append(
            {
                "trial_id": trial.trial_id,
                "backbone": trial.config.backbone,
                "tier": trial.started.tier,
                "log_loss": float(found.log_losses[place]),
                "behind": behind,
                "margin": margin,
                "within_noise": found.is_within_noise(place),
                "seconds": trial.seconds,
                "latency_ms": 1000.0 / cost.infer_images_s if cost else None,
                "differs_in": _differences(trial, compared.trials[0]),
            }
        )
    order = list(found.order)
    values = {
        "note": "margins hold for all pairs at once, in 95 % of samples of rows; they cover rows, not seeds",
        "rows": rows,
        "margins": found.margins[np.ix_(order, order)].tolist(),
    }
    replace_json(study.paths.comparison, values)


def best_of_each(trials: Iterable[Trial]) -> list[Trial]:
    """Return every backbone's completed trial with the lowest OOF log-loss, the first of equals."""
    best: dict[str, tuple[float, Trial]] = {}
    for trial in trials:
        loss, name = trial.log_loss, trial.config.backbone
        if trial.is_completed and loss is not None and (name not in best or loss < best[name][0]):
            best[name] = (loss, trial)
    return [trial for _, trial in best.values()]


def _field(study: StudyFiles, evidence: Evidence, trials: Sequence[Trial]) -> Field | None:
    known = {trial.trial_id: place for place, trial in enumerate(evidence.trials)}
    here = tuple(trial for trial in trials if trial.trial_id in known)
    if not here:
        return None
    places = tuple(known[trial.trial_id] for trial in here)
    found = compare_losses(evidence.losses[list(places)], evidence.groups, seed=study.record.seed)
    return Field(here, places, found)


def _row(study: StudyFiles, evidence: Evidence, trial: Trial, role: Role, field: Field | None) -> BoardRow:
    at = field.trials.index(trial) if field and trial in field.trials else None
    loss, low, high, behind, margin = trial.log_loss, None, None, None, None
    if field is not None and at is not None:
        losses = evidence.losses[field.places[at]]
        loss, (low, high) = float(losses.mean()), bootstrap_interval(losses, evidence.groups, seed=study.record.seed)
        behind, margin = field.comparison.behind(at)
    speeds = [epoch.train_images_s for epoch in trial.epochs]
    return BoardRow(
        tier=trial.started.tier,
        backbone=trial.config.backbone,
        family=trial.started.family,
        resolution=trial.config.resolution,
        freeze=trial.config.freeze,
        trial_id=trial.trial_id,
        role=role,
        log_loss=loss if loss is not None and np.isfinite(loss) else None,
        low=low,
        high=high,
        behind=behind,
        margin=margin,
        accuracy=trial.accuracy,
        minutes=trial.seconds / 60,
        train_images_s=float(np.median(speeds)) if speeds else None,
        macs=trial.started.macs,
        note="; ".join(_notes(study, trial, role, field)),
    )


def _notes(study: StudyFiles, trial: Trial, role: Role, field: Field | None) -> Iterator[str]:
    """Say what a reader of the row must know."""
    tiers = [tier for space in study.spaces for tier in space.tiers]
    if any(trial.config.backbone in tier.overrides for tier in tiers):
        yield "recipe overridden"
    if role == "earlier":
        yield "trained before the data changed: not comparable; --update brings it up to date"
        return
    if trial.ended is not None and trial.ended.status != "completed":
        yield f"{trial.ended.status} at epoch {trial.ended.step} of {trial.started.total_steps}"
    if field is not None and trial in field.trials:
        yield from _compared(trial, role, field)
    if role == "start":
        yield from _misleading_tier(study, trial)


def _compared(trial: Trial, role: Role, field: Field) -> Iterator[str]:
    place, leader = field.trials.index(trial), field.trials[field.comparison.leader]
    if place != field.comparison.leader and field.comparison.is_within_noise(place):
        yield f"within noise of {leader.config.backbone}"
    if role == "start" and (names := _differences(trial, field.trials[0])):
        yield f"another {', '.join(names)} than {field.trials[0].config.backbone}'s"


def _differences(trial: Trial, reference: Trial) -> list[str]:
    """Name what, besides the backbone, is not the same for two trials: then they are no controlled comparison."""
    one, other = trial.config, reference.config
    names = [name for name in ("resolution", "freeze") if getattr(one, name) != getattr(other, name)]
    if one.recipe is not None and other.recipe is not None:
        names += [name for name in RECIPE_FIELDS if getattr(one.recipe, name) != getattr(other.recipe, name)]
    return names + (["number of views"] if trial.views != reference.views else [])


def _misleading_tier(study: StudyFiles, trial: Trial) -> Iterator[str]:
    """Say where a trial of a higher tier took less time than one of a lower, both trained to their end."""
    order = study.tiers
    if trial.started.tier not in order or not trial.is_completed:
        return
    below = order[: order.index(trial.started.tier)]
    dearer = [
        other
        for other in study.present.values()
        if other.started.is_start and other.is_completed and other.started.tier in below
        if other.seconds > _CLEARLY * trial.seconds and other.started.total_steps == trial.started.total_steps
    ]
    if dearer:
        other = max(dearer, key=lambda each: each.seconds)
        times = other.seconds / trial.seconds
        yield f"trained {times:.1f} times as fast as {other.config.backbone} of tier {other.started.tier}"
