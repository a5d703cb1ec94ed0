"""What a finished search says: the board, the answer in three sentences, the page."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np

from spine_ray.climb.desk import Desk
from spine_ray.climb.members import ensemble_board
from spine_ray.climb.ship import Shipped
from spine_ray.ensemble.metrics import bootstrap_interval
from spine_ray.ladder.evidence import Evidence
from spine_ray.show.board import (
    Answer,
    BoardRow,
    FailureRow,
    FinalBoard,
    FinalResult,
    Role,
)
from spine_ray.show.page import ReportPage
from spine_ray.study.trials import Trial


def page_of(desk: Desk, shipped: Shipped) -> ReportPage:
    """Gather everything the terminal and the page show."""
    record = desk.request
    return ReportPage(
        study=str(record.study),
        made=datetime.now(UTC).isoformat(timespec="minutes"),
        answer=answer_of(desk, shipped),
        board=tuple(board_rows(desk, shipped.evidence)),
        gates=tuple(desk.decisions),
        ensemble=ensemble_board(shipped.choice),
        final=final_board(shipped),
        failures=tuple(_failures(desk)),
        facts=_facts(desk),
        reproduce=(record.command,),
    )


def board_rows(desk: Desk, evidence: Evidence) -> list[BoardRow]:
    """Return every backbone at its start recipe, then the best found of each."""
    places = {trial.trial_id: place for place, trial in enumerate(evidence.trials)}
    starts = [trial for trial in desk.trials.values() if trial.started.is_start]
    best: dict[str, Trial] = {}
    for trial in evidence.trials:
        known = best.get(trial.config.backbone)
        if known is None or _loss(evidence, places, trial) < _loss(evidence, places, known):
            best[trial.config.backbone] = trial
    rows: list[BoardRow] = []
    roles: tuple[tuple[Role, list[Trial]], ...] = (("start", starts), ("best", list(best.values())))
    for role, trials in roles:
        here = [places[trial.trial_id] for trial in trials if trial.trial_id in places]
        leader = evidence.best(here) if here else None
        rows += [_row(desk, evidence, trial, role, places.get(trial.trial_id), leader) for trial in trials]
    return rows


def final_board(shipped: Shipped) -> FinalBoard | None:
    """Return the results on the test split, or None where it stayed shut."""
    if not shipped.test:
        return None
    return FinalBoard(results=tuple(_final(result) for result in shipped.test), opened=shipped.openings)


def answer_of(desk: Desk, shipped: Shipped) -> Answer:
    """Say in three sentences which backbones, at what cost, and what the ensemble adds; then what to do next."""
    report, members = shipped.choice.ensemble.report, shipped.choice.members
    names = ", ".join(dict.fromkeys(trial.config.backbone for trial in members))
    kinds = len({trial.started.family for trial in members})
    which = f"Use {names} alone" if len(members) == 1 else f"Use {len(members)} members of {kinds} families: {names}"
    if shipped.test:
        first = shipped.test[0]
        opened = f"opened {shipped.openings} time{'s' if shipped.openings != 1 else ''}"
        low, high = first["accuracy_interval"]
        proof = (
            f"accuracy {first['accuracy']:.1%} ({low:.1%} to {high:.1%}) on {first['rows']} test rows, "
            f"test split {opened}"
        )
    else:
        proof = f"accuracy {report['accuracy']:.1%} on OOF rows (the test split stayed shut; --open-test looks)"
    hours = sum(trial.seconds for trial in desk.trials.values()) / 3600
    cost = (
        f"It costs {report['cost']:.1f} ms an image on one {desk.order.device} worker, and was found in "
        f"{hours:.2f} worker-hours over {len(desk.trials)} trials."
    )
    study = desk.request.study
    return Answer(
        sentences=(f"{which}: {proof}.", cost, f"{report['reason'][:1].upper()}{report['reason'][1:]}."),
        commands=(
            f"python -m spine_ray.compare {study}   # every trial in the MLflow UI",
            f"open {desk.paths.report}   # the report",
            "python -m spine_ray.search --space ladder --data FOLDER_OF_CLASS_FOLDERS   # your own pictures",
        ),
    )


def _row(desk: Desk, evidence: Evidence, trial: Trial, role: Role, place: int | None, leader: int | None) -> BoardRow:
    low: float | None = None
    high: float | None = None
    loss = trial.log_loss
    if place is not None:
        low, high = bootstrap_interval(evidence.losses[place], evidence.groups, seed=desk.request.seed)
        loss = float(evidence.losses[place].mean())
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
        accuracy=trial.accuracy,
        minutes=trial.seconds / 60,
        train_images_s=float(np.median(speeds)) if speeds else None,
        macs=trial.started.macs,
        note="; ".join(_notes(desk, evidence, trial, place, leader)),
    )


def _notes(desk: Desk, evidence: Evidence, trial: Trial, place: int | None, leader: int | None) -> Iterator[str]:
    """Say what a reader of the row must know."""
    tiers = [tier for space in desk.prepared.spaces for tier in space.tiers]
    if any(trial.config.backbone in tier.overrides for tier in tiers):
        yield "recipe overridden"
    if trial.ended is not None and trial.ended.status != "completed":
        yield f"{trial.ended.status} at epoch {trial.ended.step} of {trial.started.total_steps}"
    if place is not None and leader is not None and place != leader:
        apart = evidence.losses[place] - evidence.losses[leader]
        if bootstrap_interval(apart, evidence.groups, seed=desk.request.seed)[0] <= 0.0:
            yield f"within noise of {evidence.trials[leader].config.backbone}"


def _loss(evidence: Evidence, places: dict[str, int], trial: Trial) -> float:
    return float(evidence.losses[places[trial.trial_id]].mean())


def _final(result: dict[str, Any]) -> FinalResult:
    low, high = result["log_loss_interval"]
    accuracy_low, accuracy_high = result["accuracy_interval"]
    return FinalResult(
        artefact=result["artefact"],
        rows=result["rows"],
        log_loss=result["log_loss"],
        low=low,
        high=high,
        accuracy=result["accuracy"],
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
    )


def _failures(desk: Desk) -> list[FailureRow]:
    failed = [trial for trial in desk.trials.values() if trial.status == "failed" and trial.ended]
    return [
        FailureRow(trial_id=trial.trial_id, tier=trial.started.tier, reason=trial.ended.reason if trial.ended else "")
        for trial in failed
    ]


def _facts(desk: Desk) -> dict[str, str]:
    samples = desk.samples
    return {
        "data": desk.request.data or "digits, the built-in sample",
        "rows": f"{len(samples.dev)} dev in {samples.num_folds} folds, {len(samples.test)} test",
        "classes": str(len(samples.classes)),
        "weights": desk.prepared.weights.source,
        "seed": str(desk.request.seed),
    }
