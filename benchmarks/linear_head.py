"""The solver of a probe's heads beside scikit-learn's: seconds, memory, gradient and held-out log-loss.

    python -m benchmarks.linear_head > linear_head.json
    python -m benchmarks.linear_head --sizes 100000x1000 --threads 2

A size is rows x classes. Up to 5,000 rows, scikit-learn solves the same problem to its end, which shows how exact ours
is; and the heads of five folds and of all rows are solved as a probe does, beside what is commonly written by hand: a
`StandardScaler` and a `LogisticRegression` of at most 300 iterations, for every fold and four strengths, then once on
all rows. Features are generated: a few directions tell the classes from each other.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.results import parse_words, print_result, say
from spine_ray.core.linear_head import LinearHead, fit_linear_head
from spine_ray.core.memory import forget_peak, peak_memory_mb
from spine_ray.core.scaling import scale_features
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import log_loss

FEATURES = 1280
FOLDS, SEED = 5, 0
SCIKIT_STRENGTHS = (0.003, 0.01, 0.03, 0.1)
"""The `C` of `LogisticRegression`."""
SCIKIT_ROWS = 5_000
"""With more rows it is left out: it would take hours."""
TEST_ROWS = 2_000
LATENT = 64
CHUNK = 4096
CPU = torch.device("cpu")
SIZES = ("240x9", "800x9", "2400x13", "1000x10", "20000x100", "100000x1000")

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How large a problem is."""

    rows: int
    classes: int
    features: int = FEATURES


@dataclass(frozen=True, slots=True)
class Rows:
    """Generated features with their classes."""

    features: Floats
    """(rows, features), not negative, as after a backbone's last activation."""
    labels: Integers
    """(rows,)."""


def make_rows(size: Size, rows: int, seed: int) -> Rows:
    """Draw rows of the classes that follow from the size; other seeds are other rows of the same classes."""
    classes = np.random.default_rng((SEED, size.classes, size.features))
    width = min(LATENT, size.features)
    centres = classes.normal(size=(size.classes, width)).astype(np.float32)
    spectrum = (1.0 + np.arange(width)) ** -0.5
    mixing = (spectrum[:, None] * classes.normal(size=(width, size.features))).astype(np.float32)
    rng = np.random.default_rng((SEED, seed))
    labels = rng.integers(0, size.classes, rows)
    features = np.empty((rows, size.features), np.float32)
    for start in range(0, rows, CHUNK):
        label = labels[start : start + CHUNK]
        latent = centres[label] + 1.5 * rng.standard_normal((len(label), width), np.float32)
        noise = rng.standard_normal((len(label), size.features), np.float32)
        features[start : start + CHUNK] = np.maximum(latent @ mixing + 0.5 * noise, 0.0)
    return Rows(features, labels)


def score(head: LinearHead, test: Rows) -> float:
    """Return the log-loss on rows that were not fitted, nats."""
    return round(log_loss(log_probs(head.logits(test.features)), test.labels), 6)


def one_head(size: Size) -> dict[str, Any]:
    """Time the head of all rows."""
    made, test = make_rows(size, size.rows, 0), make_rows(size, TEST_ROWS, 1)
    groups = np.arange(size.rows)
    forget_peak(CPU)
    before = peak_memory_mb(CPU)
    began = time.perf_counter()
    head = fit_linear_head(made.features, made.labels, size.classes, groups, seed=SEED)
    seconds = time.perf_counter() - began
    return {
        "seconds": round(seconds, 3),
        "peak_mb": round(peak_memory_mb(CPU)),
        "peak_mb_above_the_features": round(peak_memory_mb(CPU) - before),
        "gradient_norm": head.gradient_norm,
        "strength": head.strength,
        "test_log_loss": score(head, test),
    }


def exactness(size: Size) -> dict[str, Any]:
    """Compare the head of all rows with scikit-learn's solution of the same penalised problem, in float64."""
    made, test = make_rows(size, size.rows, 0), make_rows(size, TEST_ROWS, 1)
    head = fit_linear_head(made.features, made.labels, size.classes, np.arange(size.rows), seed=SEED)
    scaled = scale_features(torch.from_numpy(made.features.copy()))
    mean, factor = scaled.mean.double().numpy(), scaled.inverse_scale.double().numpy()
    solver = LogisticRegression(C=1.0 / (size.rows * head.strength), tol=1e-8, max_iter=10_000)
    solver.fit((made.features - mean) * factor, made.labels)
    exact = log_loss(solver.predict_log_proba((test.features - mean) * factor), test.labels)
    return {"test_log_loss_by_scikit_learn": round(exact, 6), "off_by": round(abs(score(head, test) - exact), 6)}


def probe(size: Size) -> dict[str, Any]:
    """Time the heads of all folds and of all rows: ours, and by scikit-learn."""
    made, test = make_rows(size, size.rows, 0), make_rows(size, TEST_ROWS, 1)
    folds = np.random.default_rng(SEED).permutation(size.rows) % FOLDS
    parts = [*(np.flatnonzero(folds != fold) for fold in range(FOLDS)), np.arange(size.rows)]
    began = time.perf_counter()
    heads = [fit_linear_head(made.features[rows], made.labels[rows], size.classes, rows, seed=SEED) for rows in parts]
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for strength in SCIKIT_STRENGTHS:
        for rows in parts[:-1]:
            by_hand(strength).fit(made.features[rows], made.labels[rows])
    by_hand(SCIKIT_STRENGTHS[1]).fit(made.features, made.labels)
    theirs = time.perf_counter() - began
    return {
        "probe_seconds": round(ours, 3),
        "scikit_learn_seconds": round(theirs, 3),
        "times_as_fast": round(theirs / ours, 1),
        "largest_gradient_norm": max(head.gradient_norm for head in heads),
        "probe_test_log_loss": score(heads[-1], test),
    }


def by_hand(strength: float) -> Any:
    """Return scikit-learn's solver as it is commonly called."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))


def parse_size(word: str) -> Size:
    """Return the size that `rows x classes` or `rows x classes x features` says."""
    try:
        numbers = [int(number) for number in word.split("x")]
    except ValueError:
        numbers = []
    if len(numbers) not in (2, 3) or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"a size is ROWSxCLASSES or ROWSxCLASSESxFEATURES, not {word!r}")
    return Size(rows=numbers[0], classes=numbers[1], features=numbers[2] if len(numbers) == 3 else FEATURES)


def main() -> None:
    """Measure every size and print what was found as JSON."""
    parser = argparse.ArgumentParser(description="Time the solver of a probe's heads.")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[parse_size(word) for word in SIZES])
    parser.add_argument("--threads", type=int, default=1)
    quick = {"sizes": [parse_size("240x9x320"), parse_size("1000x10x320")]}
    args = parse_words(parser, quick=quick)
    torch.set_num_threads(args.threads)
    found = []
    for size in args.sizes:
        say(f"{size}")
        result = {**asdict(size), **one_head(size)}
        if size.rows <= SCIKIT_ROWS:
            result |= exactness(size) | probe(size)
        say(f"{result}")
        found.append(result)
    print_result({"threads": args.threads, "cpu": torch.backends.cpu.get_cpu_capability(), "sizes": found})


if __name__ == "__main__":
    main()
