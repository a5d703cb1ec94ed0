"""What a backbone's features say with everything frozen: a linear probe and nearest neighbours, along the folds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spine_ray.core.network import Network
from spine_ray.core.task import Rows, Task
from spine_ray.core.views import Augmentation, Boxes, render, scoring_boxes, training_view
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss

_NEIGHBOURS = 10
_PENALTIES = tuple(float(10.0**power) for power in range(0, 7))
"""Among which the probe chooses, by its own leave-one-out error."""

Features = npt.NDArray[np.float32]
"""(rows, features)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screening:
    """What frozen features say of rows that the probe did not see."""

    probe_log_loss: float
    """Of a linear probe, temperature-scaled, nats; lower is better."""
    probe_accuracy: float
    """Higher is better."""
    knn_accuracy: float
    """Of the nearest neighbours by cosine; higher is better."""
    rows: int


def few_rows(labels: npt.NDArray[np.int64], rows: Rows, most: int, seed: int) -> Rows:
    """Return at most about `most` of the rows, ascending, every class with its share and five rows where it has them.

    Args:
        labels: (images,).
        rows: To choose from.
        most: How many, more or less.
        seed: Decides which.
    """
    if len(rows) <= most:
        return rows
    generator, chosen = np.random.default_rng(seed), []
    for label in np.unique(labels[rows]):
        mine = rows[labels[rows] == label]
        count = min(len(mine), max(5, round(most * len(mine) / len(rows))))
        chosen.append(generator.choice(mine, count, replace=False))
    return np.sort(np.concatenate(chosen))


def clean_features(network: Network, task: Task, rows: Rows) -> Features:
    """Return the features of the scoring view of some rows; the network has everything frozen but its classifier."""
    return box_features(network, task, rows, scoring_boxes(len(rows)))


def box_features(network: Network, task: Task, rows: Rows, boxes: Boxes) -> Features:
    """Return the features of one crop of each of some rows."""
    return _features(network, render(task.pixels, rows, boxes, network.resolution).numpy())


def augmented_features(network: Network, task: Task, rows: Rows, view: int, augmentation: Augmentation) -> Features:
    """Return the features of one training view of some rows."""
    cut = training_view(task.pixels, rows, task.keys[rows], view, augmentation, network.resolution)
    return _features(network, cut.numpy())


def screen(features: Features, labels: npt.NDArray[np.int64], folds: npt.NDArray[np.int8], classes: int) -> Screening:
    """Fit a linear probe and nearest neighbours on all folds but one and score that one, fold after fold.

    Args:
        features: (rows, features).
        labels: (rows,).
        folds: (rows,), from 0.
        classes: How many there are.
    """
    from sklearn.neighbors import KNeighborsClassifier  # here: see `probe_scores`

    scores = np.zeros((len(labels), classes))
    hits = np.zeros(len(labels), np.bool_)
    for fold in np.unique(folds):
        held_out = folds == fold
        train = ~held_out
        scores[held_out] = probe_scores(features[train], labels[train], features[held_out], classes)
        nearest = KNeighborsClassifier(min(_NEIGHBOURS, int(train.sum())), weights="distance", metric="cosine")
        hits[held_out] = nearest.fit(features[train], labels[train]).predict(features[held_out]) == labels[held_out]
    calibrated = log_probs(scores, fit_temperature(scores, labels))
    return Screening(
        probe_log_loss=log_loss(calibrated, labels),
        probe_accuracy=accuracy(calibrated, labels),
        knn_accuracy=float(hits.mean()),
        rows=len(labels),
    )


def probe_scores(
    features: Features, labels: npt.NDArray[np.int64], others: Features, classes: int
) -> npt.NDArray[np.float64]:
    """Return a linear probe's scores of other rows, (rows, classes); a class that it never saw scores lowest.

    The probe is ridge regression on the classes: solved at once, and nearly as telling as logistic regression.
    """
    # Here: loading it takes a fourth of what a worker takes to start, and most workers never fit one.
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.preprocessing import StandardScaler

    scale = StandardScaler().fit(features)
    probe = RidgeClassifierCV(_PENALTIES).fit(scale.transform(features), labels)
    found = probe.decision_function(scale.transform(others))
    if found.ndim == 1:  # two classes have one score between them
        found = np.stack([-found, found], axis=1)
    scores = np.full((len(others), classes), float(found.min()))
    scores[:, probe.classes_] = found
    return scores


def _features(network: Network, pictures: npt.NDArray[np.uint8]) -> Features:
    found = network.features(pictures)
    return np.asarray(found.reshape(*found.shape[:2], -1).mean(axis=2), np.float32)
