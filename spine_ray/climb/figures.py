"""What the figures of a report show, as numbers: quality and cost, curves, disagreement, gain by size, calibration."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from spine_ray.climb.choice import Choice
from spine_ray.climb.files import StudyFiles
from spine_ray.climb.rows import best_of_each
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import Reliability, reliability, wilson_interval
from spine_ray.ensemble.pool import floored, pairwise_disagreement
from spine_ray.ladder.evidence import Evidence
from spine_ray.show.board import BoardRow
from spine_ray.show.report import Curve, Disagreements, Expected, ReliabilityCurve, SizeGain, Timing, TrialPoint
from spine_ray.study.tables import cost_key
from spine_ray.study.trials import Trial

MOST_COMPARED = 20
"""Trials whose disagreement is shown: more could not be read."""


def shown_trials(study: StudyFiles) -> dict[str, Trial]:
    """Return the completed trials whose OOF logits a report needs: start recipes, the best of each, the ensemble's."""
    present = study.present
    starts = [trial for trial in present.values() if trial.started.is_start and trial.is_completed]
    chosen = (*study.choice.members, study.choice.single) if study.choice else ()
    wanted = {trial.trial_id for trial in (*starts, *best_of_each(present.values()), *chosen)}
    return {name: trial for name, trial in present.items() if name in wanted}


def trial_points(study: StudyFiles, board: Iterable[BoardRow]) -> tuple[TrialPoint, ...]:
    """Return every completed trial of the present rows, with the board's interval where it stands there."""
    rows = {row.trial_id: row for row in board}
    points = []
    for trial in study.present.values():
        row, cost, loss = rows.get(trial.trial_id), study.costs.get(cost_key(trial.config)), trial.log_loss
        if not trial.is_completed or loss is None or not np.isfinite(loss):
            continue
        points.append(
            TrialPoint(
                trial_id=trial.trial_id,
                tier=trial.started.tier,
                backbone=trial.config.backbone,
                family=trial.started.family,
                resolution=trial.config.resolution,
                freeze=trial.config.freeze,
                is_start=trial.started.is_start,
                log_loss=row.log_loss if row and row.log_loss is not None else loss,
                low=row.low if row else None,
                high=row.high if row else None,
                minutes=trial.seconds / 60,
                cost_ms=1000.0 / cost.infer_images_s if cost else None,
            )
        )
    return tuple(points)


def learning_curves(study: StudyFiles) -> tuple[Curve, ...]:
    """Return how every trial's log-loss fell, as far as it was a number."""
    curves = []
    for trial in study.present.values():
        epochs = [epoch for epoch in trial.epochs if np.isfinite(epoch.log_loss)]
        if epochs:
            curves.append(
                Curve(
                    trial_id=trial.trial_id,
                    tier=trial.started.tier,
                    backbone=trial.config.backbone,
                    status=trial.status,
                    steps=tuple(epoch.step for epoch in epochs),
                    log_losses=tuple(epoch.log_loss for epoch in epochs),
                )
            )
    return tuple(curves)


def disagreements(study: StudyFiles, evidence: Evidence) -> Disagreements | None:
    """Return how differently the members, and the best trial of each backbone, see the rows; None for fewer than 2."""
    members = {trial.trial_id for trial in study.choice.members} if study.choice else set()
    best = {trial.trial_id for trial in best_of_each(evidence.trials)}
    found = [place for place, trial in enumerate(evidence.trials) if trial.trial_id in members | best]
    found.sort(key=lambda place: (evidence.trials[place].trial_id not in members, float(evidence.losses[place].mean())))
    found = found[:MOST_COMPARED]
    if len(found) < 2:
        return None
    # Families in the order of their best trial; within a family the best first.
    losses = {place: float(evidence.losses[place].mean()) for place in found}
    families: dict[str, float] = {}
    for place, loss in losses.items():
        name = evidence.trials[place].started.family
        families[name] = min(loss, families.get(name, loss))
    found.sort(key=lambda place: (families[evidence.trials[place].started.family], losses[place]))
    trials = [evidence.trials[place] for place in found]
    values = np.stack([floored(evidence.calibrated(place)) for place in found])
    return Disagreements(
        names=short_names(trials),
        families=tuple(trial.started.family for trial in trials),
        is_member=tuple(trial.trial_id in members for trial in trials),
        nats=tuple(map(tuple, pairwise_disagreement(values).tolist())),
    )


def size_gains(choice: Choice) -> tuple[SizeGain, ...]:
    """Return what ensembles of every size gain over the best single model, cross-fitted."""
    return tuple(SizeGain(**values) for values in choice.ensemble.report["cross_fit_by_members"])


def calibration(
    choice: Choice, logits: npt.NDArray[np.float32], pool: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]
) -> tuple[ReliabilityCurve, ...]:
    """Return how sure and how right the answer is, then each member at its temperature.

    Args:
        choice: The ensemble.
        logits: (members, dev rows, classes).
        pool: (dev rows, classes), the answer's log-probabilities.
        labels: (dev rows,).
    """
    answer = "ensemble" if len(choice.members) > 1 else choice.members[0].config.backbone.partition(".")[0]
    curves = [_curve(answer, reliability(pool, labels))]
    if len(choice.members) > 1:
        parts = zip(short_names(choice.members), logits, choice.ensemble.temperatures, strict=True)
        curves += [_curve(name, reliability(log_probs(block, heat), labels)) for name, block, heat in parts]
    return tuple(curves)


def timing(study: StudyFiles) -> Timing | None:
    """Return what the last search was predicted to take and what it took; None where nothing was predicted.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        predicted, told = study.plan.get("predicted"), study.plan.get("told")
        if predicted is None:
            return None
        walls = [(outcome["name"], outcome["whole"]["wall_seconds"]) for outcome in predicted["outcomes"]]
        return Timing(
            expected=tuple(Expected(name=name, low=wall["low"], high=wall["high"]) for name, wall in walls),
            happened=told["outcome"] if told else "",
            low=told["predicted_low"] if told else None,
            high=told["predicted_high"] if told else None,
            actual=told["actual"] if told else None,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{study.paths.plan} is damaged: {error}") from error


def short_names(trials: Sequence[Trial]) -> tuple[str, ...]:
    """Return the trials' architectures, with as much of the configuration as tells those of one architecture apart."""
    spelt = [_spellings(trial) for trial in trials]
    names = []
    for place, own in enumerate(spelt):
        others = spelt[:place] + spelt[place + 1 :]
        names.append(next(name for way, name in enumerate(own) if all(other[way] != name for other in others)))
    return tuple(names)


def _spellings(trial: Trial) -> tuple[str, ...]:
    """Return a trial's names, the shortest first; the last is its own alone."""
    config, architecture = trial.config, trial.config.backbone.partition(".")[0]
    size, freeze = f"{config.resolution} px", f"f{config.freeze:.2f}"
    ways = ("", f" {size}", f" {freeze}", f" {size} {freeze}", f" {trial.trial_id[-8:]}")
    return (*(architecture + way for way in ways), trial.trial_id)


def _curve(name: str, found: Reliability) -> ReliabilityCurve:
    low, high = wilson_interval(found.accuracy, found.rows)
    return ReliabilityCurve(
        name=name,
        error=found.error,
        confidence=tuple(found.confidence.tolist()),
        accuracy=tuple(found.accuracy.tolist()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        rows=tuple(found.rows.tolist()),
    )
