"""What a run of predictions came to, in plain lines: counts, scores with intervals, what a cascade saves."""

from collections.abc import Sequence
from pathlib import Path

from spine_ray.ensemble.cascade import Cascade
from spine_ray.ensemble.scorecard import Refitted, Scorecard
from spine_ray.show.words import loss_text, share_text


def outcome_lines(pictures: int, problems: Sequence[str], seconds: float, out: Path) -> list[str]:
    """Say how many pictures there were, how long it took, and which have no prediction."""
    counted = "1 picture" if pictures == 1 else f"{pictures:,} pictures"
    lines = [f"{counted} in {seconds:.1f} s: {out}"]
    return lines + [f"  no prediction: {problem}" for problem in problems]


def scorecard_lines(scorecard: Scorecard | None, pictures: int, seen: float, cost: float | None) -> list[str]:
    """Say how the predictions do on labelled pictures, and what they cost where that is not the same for all."""
    lines = [] if cost is None else [f"a picture was seen by {seen:.2f} members in the mean, at {cost:.3g} ms"]
    if scorecard is None:
        return lines
    rows = (
        ("log-loss", scorecard.log_loss, loss_text),
        ("accuracy", scorecard.accuracy, share_text),
        ("balanced accuracy", scorecard.balanced_accuracy, share_text),
        ("calibration error", scorecard.calibration_error, loss_text),
    )
    lines.append(f"{scorecard.rows:,} of {pictures:,} pictures have a label; intervals of 95 % cover rows, not seeds")
    return lines + [
        f"  {name:<18} {text(score.value):>8}  ({text(score.low)} to {text(score.high)})" for name, score, text in rows
    ]


def cascade_line(cascade: Cascade | None) -> str:
    """Say what a cascade is predicted to do, or why there is none."""
    if cascade is None:
        return "no cascade was planned"
    if not cascade.pays:
        return f"The cascade does not pay: {cascade.reason}."
    sure = f"they answer alone where they are at least {100 * cascade.threshold:.1f} % sure"
    return f"Cheap members first, {sure}: {cascade.reason}."


def refitted_line(refitted: Refitted, out: Path) -> str:
    """Say what a new final temperature does."""
    told = (
        f"{out}: a bundle with the final temperature {refitted.temperature:.3f} times what it was; log-loss of these "
        f"pictures {loss_text(refitted.before)} before, {loss_text(refitted.after)} with temperatures fitted on others "
        "of them; it has no cascade, whose thresholds were those of the former temperature"
    )
    return told if refitted.after < refitted.before else f"{told}: no better, so these labels do not ask for it"


def exported_lines(
    out: Path, members: int, megabytes: float, onnx: Sequence[tuple[str, bool, str]], *, has_model: bool
) -> list[str]:
    """Say what was written and how it is used.

    Args:
        out: The bundle.
        members: How many there are in it.
        megabytes: How large it is.
        onnx: By member: trial id, whether there is a file, and what is to be told of it.
        has_model: Whether the MLflow model could be made.
    """
    served = f"mlflow models serve --model-uri {out / 'mlflow'} --env-manager local"
    counted = "1 member" if members == 1 else f"{members} members"
    lines = [
        f"{out}: {counted}, {megabytes:.1f} MB; SHA256SUMS has the hashes of bundle.json and weights/",
        f"  python -m spine_ray.predict {out} --images FOLDER --out predictions.csv",
        f"  {served if has_model else 'no MLflow model: MLflow is not installed'}",
    ]
    return lines + [f"  {'onnx' if there else 'no onnx'}: {trial_id}: {told}" for trial_id, there, told in onnx]
