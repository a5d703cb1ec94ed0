"""What a finished search says: the board, the answer in three sentences, the page."""

from datetime import UTC, datetime
from typing import Any

from spine_ray.climb.desk import Desk
from spine_ray.climb.history import Change
from spine_ray.climb.members import ensemble_board
from spine_ray.climb.rows import board_rows
from spine_ray.climb.ship import Shipped
from spine_ray.data.counted import counted
from spine_ray.show.board import (
    Answer,
    FailureRow,
    FinalBoard,
    FinalResult,
)
from spine_ray.show.page import ReportPage


def page_of(desk: Desk, shipped: Shipped, change: Change, told: dict[str, Any] | None) -> ReportPage:
    """Gather everything the terminal and the page show.

    Args:
        desk: The study.
        shipped: The answer.
        change: What the search changed.
        told: What was predicted beside what it took; None where nothing was predicted.
    """
    record = desk.request
    return ReportPage(
        study=str(record.study),
        made=datetime.now(UTC).isoformat(timespec="minutes"),
        answer=answer_of(desk, shipped),
        board=tuple(board_rows(desk, shipped.evidence)),
        gates=tuple(desk.decisions),
        ensemble=ensemble_board(shipped.choice),
        final=final_board(shipped),
        changed=change.lines if told is None else (*change.lines, _prediction_line(told)),
        failures=tuple(_failures(desk)),
        facts=_facts(desk),
        reproduce=(record.command,),
    )


def _prediction_line(told: dict[str, Any]) -> str:
    low, high, actual = (told[name] / 60 for name in ("predicted_low", "predicted_high", "actual"))
    beside = "inside" if told["is_inside"] else "outside"
    return f"predicted {low:.1f} to {high:.1f} min ({told['outcome']}), took {actual:.1f} min: {beside} the range"


def final_board(shipped: Shipped) -> FinalBoard | None:
    """Return the results on the test split, or None where it stayed shut."""
    if not shipped.test:
        return None
    return FinalBoard(results=tuple(_final(result) for result in shipped.test), opened=shipped.openings)


def answer_of(desk: Desk, shipped: Shipped) -> Answer:
    """Say in three sentences which backbones, at what cost, and what the ensemble adds; then what to do next."""
    report, members = shipped.choice.ensemble.report, shipped.choice.members
    names = ", ".join(dict.fromkeys(trial.config.backbone for trial in members))
    families = counted(len({trial.started.family for trial in members}), "family", "families")
    which = f"Use {names} alone" if len(members) == 1 else f"Use {len(members)} members of {families}: {names}"
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
        f"{hours:.2f} worker-hours over {counted(len(desk.trials), 'trial', 'trials')}."
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
