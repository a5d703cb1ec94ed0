"""Whether a calibrated log pool beats AutoGluon's recipe on real errors: scikit-learn's digits with noise.

    python -m benchmarks.digits_ensemble > digits_ensemble.json

Eight learners at three resolutions are cross-validated on 700 rows; the ensembles are chosen from these OOF
predictions, their members fitted again on all 700 rows, and everything is scored on the other 1097. That again for
every split. The rows of the splits overlap, so the standard error over splits is that of this data set, not of others.
A table goes to stderr, JSON to stdout.
"""

import argparse
import math
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy is loaded: the learners are too small for more

import numpy as np
import numpy.typing as npt
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.results import parse_words, print_result, say
from spine_ray.ensemble import select
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.pool import floored
from spine_ray.ensemble.selection import pooled_log_probs

DEV_ROWS, FOLDS, SPLITS = 700, 5, 8
NOISE = 4.0
"""Standard deviation of what is added to every pixel; ink goes from 0 to 16."""
SIDES = (8, 6, 4)
"""Resolutions, px."""
AUTOGLUON_STEPS = 25
CLIP = 1e-15
"""Where AutoGluon's log-loss clips probabilities."""
OURS, STOCK, STOCK_T, SINGLE = "select, log pool", "AutoGluon's recipe", "the same, final temperature", "single best"

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One learner at one resolution on one split."""

    learner: str
    side: int
    oof: Array
    """(dev rows, classes), probabilities of the fold models."""
    test: Array
    """(test rows, classes), probabilities after fitting on all dev rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """All that one split is judged on."""

    members: tuple[Member, ...]
    labels: Labels
    """(dev rows,)."""
    folds: Labels
    test_labels: Labels


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """How a recipe does on the test rows."""

    log_loss: float
    accuracy: float
    members: int


def main() -> None:
    """Run every split and compare the recipes."""
    parser = argparse.ArgumentParser(description="Compare ensembles of scikit-learn models on noisy digits.")
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--dev-rows", type=int, default=DEV_ROWS)
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    given = parse_words(parser, quick={"splits": 2, "dev_rows": 120, "sides": [4]})
    splits: int = given.splits
    if splits < 2:
        parser.error("a standard error needs at least 2 splits")
    warnings.simplefilter("ignore", ConvergenceWarning)  # an unfinished fit is a candidate like any other
    began, scores = time.perf_counter(), []
    for seed in range(splits):
        scores.append(scored(drawn(seed, given.dev_rows, given.sides)))
        say(f"split {seed}: {time.perf_counter() - began:.0f} s")
    rows = {recipe: compared(scores, recipe) for recipe in scores[0]}
    say(table(rows))
    told = {"splits": splits, "dev_rows": given.dev_rows, "noise": NOISE, "sides": given.sides}
    each = [{recipe: asdict(score) for recipe, score in of_split.items()} for of_split in scores]
    took = {"learners": list(learners(0)), "seconds": time.perf_counter() - began}
    print_result({**told, **took, "recipes": rows, "by_split": each})


def learners(seed: int) -> dict[str, Callable[[], Any]]:
    """Return what makes each learner anew; each is a family of its own."""
    return {
        "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500)),
        "svc": lambda: CalibratedClassifierCV(make_pipeline(StandardScaler(), SVC(C=3.0)), ensemble=False),
        "forest": lambda: RandomForestClassifier(150, random_state=seed),
        "extra_trees": lambda: ExtraTreesClassifier(150, random_state=seed),
        "neighbours": lambda: KNeighborsClassifier(15, weights="distance"),
        "mlp": lambda: make_pipeline(StandardScaler(), MLPClassifier((64,), alpha=1.0, max_iter=80, random_state=seed)),
        "lda": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
        "naive_bayes": lambda: GaussianNB(),
    }


def drawn(seed: int, dev_rows: int, sides: Sequence[int]) -> Split:
    """Draw noise, rows and folds, and fit every learner at every resolution."""
    digits = load_digits()
    noisy = digits.images + np.random.default_rng(seed).normal(0.0, NOISE, digits.images.shape)
    dev, test = train_test_split(np.arange(len(noisy)), train_size=dev_rows, stratify=digits.target, random_state=seed)
    labels, folds = digits.target[dev].astype(np.int64), np.zeros(len(dev), np.int64)
    cut = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels, labels)
    for fold, (_, held_out) in enumerate(cut):
        folds[held_out] = fold
    members = []
    for side in sides:
        pixels = resized(noisy, side)
        for name, make in learners(seed).items():
            oof = np.zeros((len(dev), 10))
            for fold in range(FOLDS):
                seen, unseen = folds != fold, folds == fold
                oof[unseen] = make().fit(pixels[dev][seen], labels[seen]).predict_proba(pixels[dev][unseen])
            fitted = make().fit(pixels[dev], labels)
            members.append(Member(learner=name, side=side, oof=oof, test=fitted.predict_proba(pixels[test])))
    test_labels = digits.target[test].astype(np.int64)
    return Split(members=tuple(members), labels=labels, folds=folds, test_labels=test_labels)


def resized(images: Array, side: int) -> Array:
    """Return (images, side * side) pixels, each the mean of the area that it covers."""
    size = images.shape[1]
    edges, pixels = np.linspace(0.0, size, side + 1), np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.clip(overlap, 0.0, None) * side / size
    return np.asarray(shares @ images @ shares.T).reshape(len(images), -1)


def scored(split: Split) -> dict[str, Score]:
    """Return what each recipe scores on the test rows of a split."""
    return {OURS: _ours(split), **_stock(split), SINGLE: _single(split)}


def _ours(split: Split) -> Score:
    """Return the score of `select`; all members cost the same, so that only the loss decides."""
    ensemble = select(
        np.stack([logits(member.oof) for member in split.members]).astype(np.float32),
        split.labels,
        families=[member.learner for member in split.members],
        resolutions=[member.side for member in split.members],
        costs=[1.0] * len(split.members),
        folds=split.folds,
        pool="log",
    )
    test = np.stack([logits(split.members[place].test) for place in ensemble.members])
    return _score(pooled_log_probs(ensemble, test), split, len(ensemble.members))


def _stock(split: Split) -> dict[str, Score]:
    """Return the scores of AutoGluon's recipe: as it is, and with a temperature fitted on the pooled OOF."""
    picks = autogluon_picks(np.stack([member.oof for member in split.members]), split.labels)
    oof, test = (
        logits(np.mean([probabilities[pick] for pick in picks], axis=0))
        for probabilities in ([member.oof for member in split.members], [member.test for member in split.members])
    )
    distinct = len(set(picks))
    temperature = fit_temperature(oof, split.labels)
    return {
        STOCK: _score(log_probs(test), split, distinct),
        STOCK_T: _score(log_probs(test, temperature), split, distinct),
    }


def _single(split: Split) -> Score:
    """Return the score of the calibrated model that is best on OOF."""
    losses = []
    for member in split.members:
        oof = logits(member.oof)
        temperature = fit_temperature(oof, split.labels)
        losses.append((log_loss(floored(log_probs(oof, temperature)), split.labels), temperature))
    best = min(range(len(losses)), key=lambda place: losses[place][0])
    return _score(floored(log_probs(logits(split.members[best].test), losses[best][1])), split, 1)


def autogluon_picks(probabilities: Array, labels: Labels) -> list[int]:
    """Return the picks of AutoGluon's `EnsembleSelection`: raw probabilities, with replacement, the best prefix.

    Args:
        probabilities: (members, rows, classes).
        labels: (rows,).
    """
    truth = probabilities[:, np.arange(len(labels)), labels]  # a mean of rows that sum to one sums to one
    total, picks, trajectory = np.zeros(len(labels)), [], []
    for step in range(AUTOGLUON_STEPS):
        losses = [-np.log(np.maximum((total + row) / (step + 1), CLIP)).mean() for row in truth]
        picks.append(int(np.argmin(losses)))
        trajectory.append(float(min(losses)))
        total += truth[picks[-1]]
    return picks[: int(np.argmin(trajectory)) + 1]


def logits(probabilities: Array) -> Array:
    """Return log-probabilities, clipped where AutoGluon clips."""
    return np.log(np.maximum(probabilities, CLIP))


def _score(values: Array, split: Split, members: int) -> Score:
    return Score(
        log_loss=log_loss(values, split.test_labels), accuracy=accuracy(values, split.test_labels), members=members
    )


def compared(scores: list[dict[str, Score]], recipe: str) -> dict[str, float]:
    """Return a recipe's means over the splits, and its log-loss beyond ours with the paired standard error."""
    beyond = [of_split[recipe].log_loss - of_split[OURS].log_loss for of_split in scores]
    return {
        "test_log_loss": fmean(of_split[recipe].log_loss for of_split in scores),
        "test_accuracy": fmean(of_split[recipe].accuracy for of_split in scores),
        "members": fmean(of_split[recipe].members for of_split in scores),
        "log_loss_minus_ours": fmean(beyond),
        "standard_error": stdev(beyond) / math.sqrt(len(beyond)),
    }


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
    """Return the comparison as text."""
    lines = [f"{'recipe':<30}{'log-loss':>10}{'accuracy':>10}{'members':>9}{'minus ours':>12}{'+-':>9}"]
    for recipe, row in rows.items():
        levels = f"{row['test_log_loss']:>10.4f}{row['test_accuracy']:>10.4f}{row['members']:>9.1f}"
        lines.append(f"{recipe:<30}{levels}{row['log_loss_minus_ours']:>12.4f}{row['standard_error']:>9.4f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
