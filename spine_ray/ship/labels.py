"""Labels of new pictures, from a table beside them; and what is kept of each prediction to be judged by them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.scorecard import Judged
from spine_ray.ship.stream import Predictions

_GROUPS = "intervals need at least 2 (without the column group, every picture stands for itself)"


@dataclass(frozen=True, slots=True)
class Labels:
    """Class indices by the name of the picture, and groups where the table has them."""

    classes: Mapping[str, int]
    groups: Mapping[str, str] | None


def read_labels(path: Path, classes: Sequence[str]) -> Labels:
    """Read a CSV with `path` (or `sample`), `label` and maybe `group`.

    Raises:
        ValueError: If a column is missing, a label is no class, a picture is named twice with different labels, or all
            are of one group.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file, strict=True) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--labels {path} cannot be read as a CSV in UTF-8: {error}") from error
    header = lines[0] if lines else []
    picture = next((name for name in ("path", "sample") if name in header), None)
    if picture is None or "label" not in header:
        raise ValueError(f"--labels {path} needs columns path and label (its columns: {', '.join(header) or 'none'})")
    places = {name: place for place, name in enumerate(classes)}
    known: dict[str, int] = {}
    groups: dict[str, str] = {}
    for number, line in enumerate(lines[1:]):
        if len(line) != len(header):
            raise ValueError(f"--labels {path}, row {number}: {len(line)} values for {len(header)} columns")
        row = dict(zip(header, line, strict=True))
        label = places.get(row["label"])
        if label is None:
            raise ValueError(f"--labels {path}, row {number}: {row['label']!r} is none of the classes {_few(classes)}")
        if known.setdefault(row[picture], label) != label:
            raise ValueError(f"--labels {path}, row {number}: {row[picture]!r} had another label before")
        groups[row[picture]] = row.get("group") or f"alone {number}"
    if "group" not in header:
        return Labels(known, None)
    if len(set(groups.values())) == 1:  # before hours of predicting, after which it would be found too
        raise ValueError(f"--labels {path}: all pictures are of one group; {_GROUPS}")
    return Labels(known, groups)


def _few(classes: Sequence[str], most: int = 8) -> str:
    return ", ".join(classes[:most]) + (f" and {len(classes) - most} more" if len(classes) > most else "")


@dataclass(slots=True)
class Judge:
    """Gathers what is needed to judge predictions; whole rows only where a temperature is to be fitted on them."""

    labels: Labels
    keeps_rows: bool
    """Whether `log_probs` is asked for in the end."""
    _broken: int = 0
    """Pictures that have a label and no prediction."""
    _labels: list[int] = field(default_factory=list)
    _predicted: list[int] = field(default_factory=list)
    _losses: list[float] = field(default_factory=list)
    _confidence: list[float] = field(default_factory=list)
    _groups: list[str] = field(default_factory=list)
    _rows: list[np.ndarray] = field(default_factory=list)

    def look(self, predictions: Predictions) -> None:
        """Take up the labelled ones of some predictions."""
        names = predictions.names
        is_known = predictions.is_known
        labelled = [place for place, name in enumerate(names) if name in self.labels.classes]
        places = [place for place in labelled if is_known[place]]
        self._broken += len(labelled) - len(places)
        if not places:
            return
        log_probs = predictions.log_probs[places]
        labels = [self.labels.classes[names[place]] for place in places]
        self._labels += labels
        self._predicted += log_probs.argmax(axis=1).tolist()
        self._losses += row_losses(log_probs, labels).tolist()
        self._confidence += np.exp(log_probs.max(axis=1)).tolist()
        if self.labels.groups is not None:
            self._groups += [self.labels.groups[names[place]] for place in places]
        if self.keeps_rows:
            self._rows.append(log_probs.astype(np.float32))

    @property
    def judged(self) -> Judged:
        """What was gathered.

        Raises:
            ValueError: If fewer than two pictures have a label and a prediction, or all that do are of one group.
        """
        if len(self._labels) < 2:
            raise ValueError(self._too_few())
        groups = np.unique(self._groups, return_inverse=True)[1] if self.labels.groups is not None else None
        if groups is not None and not groups.any():
            raise ValueError(
                f"--labels: all {len(groups)} pictures with a label there and a prediction are of one group; {_GROUPS}"
            )
        return Judged(
            labels=np.array(self._labels, np.int64),
            predicted=np.array(self._predicted, np.int64),
            losses=np.array(self._losses),
            confidence=np.array(self._confidence),
            groups=groups,
        )

    def _too_few(self) -> str:
        labelled = len(self._labels) + self._broken
        told = f"--labels: {labelled} of the pictures have a label there"
        if self._broken:
            told += f", {self._broken} of these no prediction (the column error says why)"
        told += "; at least 2 with a prediction are needed"
        return told if labelled >= 2 else f"{told}; its path must be what the column sample of the predictions says"

    @property
    def log_probs(self) -> np.ndarray:
        """The labelled predictions, (rows, classes) float32."""
        return np.concatenate(self._rows)
