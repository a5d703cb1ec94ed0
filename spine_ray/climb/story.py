"""What a study says, from its files alone: the answer in three sentences, the board, everything else on the page."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spine_ray.climb.choice import Choice
from spine_ray.climb.figures import (
    calibration,
    disagreements,
    learning_curves,
    shown_trials,
    size_gains,
    timing,
    trial_points,
)
from spine_ray.climb.files import StudyFiles
from spine_ray.climb.members import ensemble_board
from spine_ray.climb.mistakes import class_rows, gallery, what_was_said
from spine_ray.climb.rows import board_rows
from spine_ray.data.counted import counted
from spine_ray.data.rows import Source
from spine_ray.data.sources import open_source
from spine_ray.ensemble.selection import pooled_log_probs
from spine_ray.ladder.evidence import Evidence, gather
from spine_ray.show.board import Answer, FailureRow, FinalBoard, FinalResult
from spine_ray.show.report import ReportPage
from spine_ray.show.words import times_text
from spine_ray.space.stand_ins import STAND_INS_SOURCE


def page_of(study: StudyFiles) -> ReportPage:
    """Gather everything the terminal and the page show; no model is run.

    Raises:
        ValueError: If OOF logits are missing or damaged.
    """
    evidence = gather(study.paths, study.samples, shown_trials(study))
    lost = _lost(study)
    board = tuple(board_rows(study, evidence))
    last = study.history[-1] if study.history else None
    return ReportPage(
        study=str(study.paths.root),
        made=f"report of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        answer=answer_of(study),
        board=board,
        points=trial_points(study, board),
        curves=learning_curves(study),
        gates=study.decisions,
        disagreements=disagreements(study, evidence),
        final=final_board(study),
        changed=last.lines if last else (),
        failures=_failures(study),
        timing=timing(study),
        facts={**_facts(study), **({"to be trained again, its OOF logits are lost": ", ".join(lost)} if lost else {})},
        reproduce=_commands(study),
        made_of=_made_of(study),
        **(_of_ensemble(study, study.choice, evidence) if study.choice and not lost else {}),
    )


def _lost(study: StudyFiles) -> tuple[str, ...]:
    """Return the members whose OOF logits were damaged: nothing can be said of the ensemble until they are back."""
    members = study.choice.members if study.choice else ()
    return tuple(trial.trial_id for trial in members if not trial.is_completed)


def final_board(study: StudyFiles) -> FinalBoard | None:
    """Return the results on the test split, or None where this ensemble never saw it."""
    if not study.test:
        return None
    return FinalBoard(results=tuple(map(_final, study.test)), opened=study.openings)


def answer_of(study: StudyFiles) -> Answer:
    """Say in three sentences which backbones, at what cost, and what the ensemble adds; then what to do next."""
    if study.choice is None:
        return Answer(sentences=_without_choice(study), commands=())
    report, members = study.choice.ensemble.report, study.choice.members
    names = ", ".join(dict.fromkeys(trial.config.backbone for trial in members))
    kinds = len({trial.started.family for trial in members})
    families = counted(kinds, "family", "families")
    which = f"Use {names} alone" if len(members) == 1 else f"Use {len(members)} members of {families}: {names}"
    hours = sum(trial.seconds for trial in study.trials.values()) / 3600
    effort = f"{hours:.2f} worker-hours" if hours >= 0.1 else f"{60 * hours:.1f} worker-minutes"
    cost = (
        f"It costs {report['cost']:.1f} ms an image on one {study.record.device} worker, and was found in "
        f"{effort} over {counted(len(study.trials), 'trial', 'trials')}."
    )
    return Answer(
        sentences=(f"{which}: {_proof(study)}.", cost, f"{report['reason'][:1].upper()}{report['reason'][1:]}."),
        commands=(
            f"python -m spine_ray.compare {study.paths.root}   # every trial in the MLflow UI",
            f"open {study.paths.report}   # the report",
            f"python -m spine_ray.predict {study.paths.root} --images FOLDER --out predictions.csv   # new pictures",
            f"python -m spine_ray.export {study.paths.root} --out BUNDLE   # a folder that predicts without the study",
            "python -m spine_ray.search --space ladder --data FOLDER_OF_CLASS_FOLDERS   # your own pictures",
        ),
    )


def _proof(study: StudyFiles) -> str:
    """Say how accurate the answer is, on the test split if it ever saw that."""
    if study.test:
        first = study.test[0]
        low, high = first["accuracy_interval"]
        return (
            f"accuracy {first['accuracy']:.1%} ({low:.1%} to {high:.1%}) on {first['rows']} test rows, "
            f"test split opened {counted(study.openings, 'time', 'times')}"
        )
    assert study.choice is not None
    shut = (
        f"the test split was opened {times_text(study.openings)}, for other ensembles"
        if study.openings
        else "the test split stayed shut; --open-test looks"
    )
    return f"accuracy {study.choice.ensemble.report['accuracy']:.1%} on OOF rows ({shut})"


def _without_choice(study: StudyFiles) -> tuple[str, ...]:
    """Say how far a study is that has no ensemble of its present rows."""
    trials = study.present.values()
    done = [trial for trial in trials if trial.is_completed and trial.log_loss is not None]
    failed = sum(trial.status == "failed" for trial in trials)
    stopped = sum(trial.status == "stopped" for trial in trials)
    open_ = sum(trial.status is None for trial in trials)
    first = (
        f"There is no answer yet: of {counted(len(trials), 'trial', 'trials')} {len(done)} completed, {stopped} were "
        f"stopped early, {failed} failed and {open_} without an end."
    )
    if not done:
        return (first, "Nothing can be chosen from." if trials else "Nothing was trained on the present rows.")
    best = min(done, key=lambda trial: trial.log_loss or 0.0)
    second = (
        f"The best so far is {best.config.backbone}: OOF log-loss {best.log_loss:.4f}, accuracy {best.accuracy:.1%}."
    )
    return (first, second, "The search's own command goes on from here.")


def _of_ensemble(study: StudyFiles, choice: Choice, evidence: Evidence) -> dict[str, Any]:
    """Return what the page shows of the ensemble and of its mistakes."""
    places = {trial.trial_id: place for place, trial in enumerate(evidence.trials)}
    logits = evidence.logits[[places[trial.trial_id] for trial in choice.members]]
    pool = pooled_log_probs(choice.ensemble, logits)
    said = what_was_said(choice, study.samples, logits, pool)
    source, note = _pictures(study)
    return {
        "ensemble": ensemble_board(choice),
        "sizes": size_gains(choice),
        "calibration": calibration(choice, logits, pool, evidence.labels),
        "error_before": choice.ensemble.report["calibration"]["error_before"],
        "classes": class_rows(said),
        "gallery": gallery(said, source, note),
    }


def _pictures(study: StudyFiles) -> tuple[Source | None, str]:
    """Open the data that the study was made from; where it is gone, return why: a report needs it for pictures only."""
    try:
        root = study.record.data_root
        return open_source(study.record.data, None if root is None else Path(root)), ""
    except (ValueError, OSError) as error:
        return None, f"the pictures cannot be read: {' '.join(str(error).split())}"


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


def _failures(study: StudyFiles) -> tuple[FailureRow, ...]:
    failed = [trial for trial in study.trials.values() if trial.status == "failed"]
    return tuple(
        FailureRow(trial_id=trial.trial_id, tier=trial.started.tier, reason=trial.ended.reason if trial.ended else "")
        for trial in failed
    )


def _facts(study: StudyFiles) -> dict[str, str]:
    samples, record = study.samples, study.record
    return {
        "data": "digits, the built-in sample" if record.data == "digits" else record.data,
        "rows": f"{len(samples.dev)} dev in {samples.num_folds} folds, {len(samples.test)} test",
        "classes": str(len(samples.classes)),
        "weights": _weights(record.weights.source),
        "seed": str(record.seed),
        "trials": str(len(study.present)),
    }


def _weights(source: str) -> str:
    if source == STAND_INS_SOURCE:
        return "small stand-ins that come along, not the space's own backbones"
    return source if source in ("hub", "random") else f"{Path(source).name} (a folder)"


def _commands(study: StudyFiles) -> tuple[str, ...]:
    """Return the commands of the finished searches, each once; of a study without any, one that goes on with it."""
    told = tuple(dict.fromkeys(change.command for change in study.history))
    if told:
        return told
    spaces = [word for space in study.spaces for word in ("--space", str(study.paths.space(space.name)))]
    root = study.record.data_root
    data = ["--data", study.record.data, *(["--data-root", root] if root is not None else [])]
    rest = [*data, "--study", str(study.paths.root), "--seed", str(study.record.seed)]
    return (f"python -m spine_ray.search {shlex.join([*spaces, *rest])}",)


def _made_of(study: StudyFiles) -> dict[str, str]:
    record = study.record
    return {
        "device": record.device,
        "data fingerprint": record.data_fingerprint,
        "fold fingerprint": record.fold_fingerprint,
        **{f"{backbone} weights": digest for backbone, digest in sorted(record.weights.hashes.items())},
        **record.versions,
    }
