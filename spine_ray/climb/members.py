"""The chosen ensemble as it is shown: each member's part, and what every amount of cost can buy."""

from typing import Any

from spine_ray.climb.choice import Choice
from spine_ray.show.board import EnsembleBoard, FrontRow, MemberRow
from spine_ray.study.trials import Trial


def ensemble_board(choice: Choice) -> EnsembleBoard:
    """Return each member's part and the honest gain."""
    ensemble, report = choice.ensemble, choice.ensemble.report
    gain = report["cross_fit"] or report["apparent"]
    low, high = report["log_loss_interval"]
    return EnsembleBoard(
        pool=ensemble.pool,
        log_loss=report["log_loss"],
        low=low,
        high=high,
        accuracy=report["accuracy"],
        single=choice.single.trial_id,
        gain=gain["gain"],
        gain_low=gain["low"],
        gain_high=gain["high"],
        cost_ms=report["cost"],
        members=tuple(_member(*pair) for pair in zip(choice.members, report["members"], strict=True)),
        front=tuple(_front_row(choice, point) for point in report["front"]),
        judged=_judged(choice),
        note=report["reason"],
    )


def _judged(choice: Choice) -> str:
    """Say how the ensemble and the best single do by the metric that the user asked for."""
    metric, report = choice.judge.metric, choice.ensemble.report
    if metric == "log_loss":
        return ""
    name = metric.replace("_", " ")
    told = f"OOF {name} {report[metric]:.4f} (best single {report[f'best_single_{metric}']:.4f})"
    found = report["cross_fit_scores"]
    if found is None:
        return f"{told}."
    ensemble, single = found["ensemble"][metric], found["best_single"][metric]
    return f"{told}; cross-fitted {ensemble:.4f} (best single {single:.4f})."


def _member(trial: Trial, part: dict[str, Any]) -> MemberRow:
    return MemberRow(
        trial_id=trial.trial_id,
        backbone=trial.config.backbone,
        family=trial.started.family,
        weight=part["weight"],
        temperature=part["temperature"],
        log_loss=part["log_loss"],
        rise=part["leave_one_out_rise"] or 0.0,
        brings=-part["shapley"]["log_loss"] if part["shapley"] else None,
        disagreement=part["disagreement"],
        chosen_in=part["chosen_in_folds"],
        cost_ms=part["cost"],
    )


def _front_row(choice: Choice, point: dict[str, Any]) -> FrontRow:
    trials = choice.trials
    return FrontRow(
        cost_ms=point["cost"],
        members=tuple(trials[place].config.backbone for place in point["members"]),
        log_loss=point["log_loss"],
        single=trials[point["best_single"]].config.backbone,
        single_log_loss=point["best_single_log_loss"],
    )
