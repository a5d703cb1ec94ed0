"""Tables of predicted probabilities, judged by the labels: losses row by row, and differences between two of them.

The tables are those of `python -m spine_ray.predict`: a row a picture, `sample` and one `p_CLASS` a class.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.picture_table import PictureTable
from spine_ray.ensemble.metrics import bootstrap_interval

Floats = npt.NDArray[np.float64]
LEAST = 1e-9
"""A smaller probability of the true class counts as this: what a sure mistake costs at most is 20.7 nats."""
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Judged:
    """One model on the judge rows."""

    losses: Floats
    """(rows,), -log of the probability of the true class, nats; lower is better."""
    hits: npt.NDArray[np.bool_]
    """(rows,), whether the likeliest class is the true one."""

    def summary(self) -> dict[str, float]:
        """Return log-loss (nats) and accuracy."""
        return {"log_loss": rounded(float(self.losses.mean())), "accuracy": rounded(float(self.hits.mean()))}


def judge_probabilities(probabilities: Floats, labels: npt.NDArray[np.int64]) -> Judged:
    """Judge (rows, classes) probabilities by (rows,) class indices."""
    true = probabilities[np.arange(len(labels)), labels]
    return Judged(-np.log(np.clip(true, LEAST, 1.0)), probabilities.argmax(axis=1) == labels)


def judge_file(file: Path, judge: PictureTable, classes: Sequence[str]) -> Judged:
    """Judge a CSV of predictions, in whatever order its rows are.

    Raises:
        ValueError: If it lacks a class or the prediction of a row.
    """
    with file.open(newline="", encoding="utf-8") as opened:
        reader = csv.DictReader(opened)
        rows = {row["sample"]: row for row in reader}
    absent = [name for name in classes if f"p_{name}" not in (reader.fieldnames or ())]
    if absent:
        raise ValueError(f"{file} has no column 'p_{absent[0]}'")
    probabilities = np.empty((len(judge.paths), len(classes)))
    for number, path in enumerate(judge.paths):
        cells = [rows.get(str(path), {}).get(f"p_{name}") for name in classes]
        if not all(cells):
            raise ValueError(f"{file} has no prediction of {path}")
        probabilities[number] = [float(cell or "nan") for cell in cells]
    return judge_probabilities(probabilities, judge.label_indices(classes))


def write_probabilities(file: Path, judge: PictureTable, classes: Sequence[str], probabilities: Floats) -> None:
    """Write what `judge_file` reads."""
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["sample", *(f"p_{name}" for name in classes)])
        for path, row in zip(judge.paths, probabilities, strict=True):
            writer.writerow([path, *(f"{value:.9g}" for value in row)])


@dataclass(frozen=True, slots=True)
class Paired:
    """Row by row what one model loses more than another."""

    differences: Floats
    """(rows,), nats; below 0 where the first is better."""
    groups: tuple[str, ...]

    @classmethod
    def of(cls, model: Judged, reference: Judged, judge: PictureTable) -> "Paired":
        """Compare two models on the same rows."""
        return cls(model.losses - reference.losses, judge.groups)

    @classmethod
    def joined(cls, pairs: Sequence["Paired"]) -> "Paired":
        """Join several draws: a group that is judged in several of them stays one group."""
        return cls(np.concatenate([pair.differences for pair in pairs]), sum((pair.groups for pair in pairs), ()))

    def summary(self, seed: int = 0) -> dict[str, Any]:
        """Return the mean difference (nats) and its 95 % interval, resampling whole groups.

        The interval holds over pictures to judge on; that another draw to learn from would give another difference
        is not in it.
        """
        low, high = bootstrap_interval(self.differences, np.array(self.groups), seed=seed)
        mean = rounded(float(self.differences.mean()))
        return {"difference": mean, "interval": [rounded(low), rounded(high)], "rows": len(self.differences)}


def rounded(value: float) -> float:
    """Round to what a report shows."""
    return round(value, DIGITS)
