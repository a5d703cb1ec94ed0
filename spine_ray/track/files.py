"""The small files that a trial's run carries: its configuration and what its OOF logits confuse."""

import csv
import html
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from spine_ray.study.paths import StudyPaths, read_table
from spine_ray.study.record import read_record
from spine_ray.study.trials import Trial
from spine_ray.track.records import config_text

MAX_SHOWN = 60
"""Classes of the largest confusion matrix that is drawn as a page; the table has any number."""


def trial_files(paths: StudyPaths, trial: Trial) -> dict[str, str]:
    """Return the files of an ended trial by name.

    Raises:
        ValueError: If its OOF logits cannot be read, or are of other classes than the study's.
    """
    files = {"config.json": config_text(trial)}
    if not trial.is_completed:
        return files
    classes = read_record(paths.root).classes
    counts = confusion(paths, trial.trial_id, len(classes))
    files["confusion_matrix.csv"] = _csv(counts, classes)
    if len(classes) <= MAX_SHOWN:
        files["confusion_matrix.html"] = _page(counts, classes)
    return files


def confusion(paths: StudyPaths, trial_id: str, num_classes: int) -> npt.NDArray[np.int64]:
    """Count what a trial says of rows that its fold model never saw.

    Returns:
        (classes, classes): rows are the labels, columns what is said.

    Raises:
        ValueError: If the logits cannot be read or are of another number of classes.
    """
    table = read_table(paths.oof(trial_id), ("label", "logits"))
    labels = table.column("label").to_numpy()
    logits = table.column("logits").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    if logits.size != len(labels) * num_classes or labels.max(initial=0) >= num_classes:
        raise ValueError(f"{paths.oof(trial_id)} is not of the study's {num_classes} classes")
    said = logits.reshape(len(labels), num_classes).argmax(axis=1)
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (labels, said), 1)
    return counts


def _csv(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts.tolist(), strict=True))
    return text.getvalue()


def _page(counts: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """Return a page on which hits are blue and mistakes red, as deep as their share of the label's rows."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in classes)
    body = "".join(
        f"<tr><th>{html.escape(name)}</th>{_cells(row, counts[row], shares[row])}</tr>"
        for row, name in enumerate(classes)
    )
    return (
        "<!DOCTYPE html><meta charset=utf-8><title>Confusion matrix</title>"
        "<style>body{font:14px sans-serif}td,th{padding:.3em .5em;text-align:right}th{font-weight:600}</style>"
        "<p>OOF rows: labels down, what the trial says across.</p>"
        f"<table><tr><th></th>{head}</tr>{body}</table>"
    )


def _cells(row: int, counts: npt.NDArray[np.int64], shares: npt.NDArray[np.float64]) -> str:
    cells = []
    for column, (count, share) in enumerate(zip(counts.tolist(), shares.tolist(), strict=True)):
        colour = "31,119,180" if column == row else "214,39,40"
        cells.append(f'<td style="background:rgba({colour},{share**0.5:.2f})">{count or ""}</td>')
    return "".join(cells)
