"""What the frozen features of the stand-ins say of the built-in sample, one by one and pooled.

    python -m benchmarks.stand_ins

Each is probed at 32 px on one thread: a logistic regression a fold on standardised pooled features, its penalty chosen
on a fifth of the training rows. Prints log-loss and accuracy on OOF rows, both of a probe on all dev rows on the test
split, seconds of the one forward pass over all pictures, and the same of the mean of all log-probabilities.
"""

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import LBFGS, Optimizer

from benchmarks.results import parse_words, print_result, say
from spine_ray.core.backbone import Normalisation, make_model, normalisation_of, normalise
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.views import render, scoring_boxes
from spine_ray.data.digits import digits_source
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.samples import Samples
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.pool import log_pool
from spine_ray.space.stand_ins import STAND_INS, stand_ins_folder

RESOLUTION, FOLDS, BATCH = 32, 5, 64
PENALTIES = (1e-2, 3e-3, 1e-3, 3e-4)
"""Among which that of the regression is chosen."""
STEPS = 60

Features = npt.NDArray[np.float32]
LogProbs = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """What is known of one backbone, or of all of them pooled."""

    backbone: str
    tier: str
    oof_log_loss: float
    """Nats; lower is better."""
    oof_accuracy: float
    test_log_loss: float
    test_accuracy: float
    seconds: float
    """Of the forward pass over all pictures, the model built."""


def features_of(model: nn.Module, pictures: Tensor, normalisation: Normalisation) -> Features:
    """Return what the classifier would be given, (pictures, features)."""
    with torch.inference_mode():
        parts = [
            model.forward_head(model.forward_features(normalise(batch, normalisation)), pre_logits=True)  # type: ignore[operator]
            for batch in torch.split(pictures, BATCH)
        ]
    return np.asarray(torch.cat(parts).flatten(1).numpy(), np.float32)


def regression(features: Features, labels: npt.NDArray[np.int64], others: Features) -> LogProbs:
    """Fit a logistic regression on standardised features and return its log-probabilities of other rows."""
    scale = StandardScaler().fit(features)
    # Rows stand in the order of their classes, so that every fifth of them is a fifth of each class.
    rows, held_out = scale.transform(features), np.arange(len(labels)) % 5 == 0
    losses = [
        log_loss(_predicted(_solved(rows[~held_out], labels[~held_out], penalty), rows[held_out]), labels[held_out])
        for penalty in PENALTIES
    ]
    best = PENALTIES[int(np.argmin(losses))]
    return _predicted(_solved(rows, labels, best), scale.transform(others))


def probe(features: Features, samples: Samples) -> tuple[LogProbs, LogProbs]:
    """Return the log-probabilities of the OOF rows and of the test split's, each (rows, classes)."""
    dev, test = samples.dev, samples.test
    labels, folds = samples.labels[dev], samples.folds[dev]
    oof = np.zeros((len(dev), len(samples.classes)))
    for fold in range(FOLDS):
        mine = folds == fold
        oof[mine] = regression(features[dev[~mine]], labels[~mine], features[dev[mine]])
    return oof, regression(features[dev], labels, features[test])


def _solved(rows: Features, labels: npt.NDArray[np.int64], penalty: float) -> nn.Linear:
    """Return the head of least mean log-loss plus the penalty times the squares of its weights, by L-BFGS."""
    head = nn.Linear(rows.shape[1], int(labels.max()) + 1, dtype=torch.float64)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    inputs, targets = torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)
    solver: Optimizer = LBFGS(head.parameters(), max_iter=STEPS, tolerance_grad=1e-5, line_search_fn="strong_wolfe")

    def loss() -> float:
        solver.zero_grad()
        value = cross_entropy(head(inputs), targets) + penalty * head.weight.square().sum()
        torch.autograd.backward(value)
        return float(value.detach())

    solver.step(loss)
    return head


def _predicted(head: nn.Linear, rows: Features) -> LogProbs:
    with torch.no_grad():
        return np.asarray(head(torch.tensor(rows, dtype=torch.float64)).log_softmax(dim=1).numpy(), np.float64)


def _pictures() -> tuple[Tensor, Samples]:
    source = digits_source()
    samples = build_samples(inspect_source(source), folds=FOLDS)
    places = source.locate(samples.paths)
    pixels = build_pixels(
        lambda row: source.reader.read(places[row], samples.paths[row]), samples.sample_ids, short_side(RESOLUTION)
    )
    rows = np.arange(len(samples.labels))
    return render(pixels, rows, scoring_boxes(len(rows)), RESOLUTION), samples


def _judged(name: str, tier: str, samples: Samples, found: tuple[LogProbs, LogProbs], seconds: float) -> Probed:
    oof, test = found
    dev_labels, test_labels = samples.labels[samples.dev], samples.labels[samples.test]
    return Probed(
        backbone=name,
        tier=tier,
        oof_log_loss=log_loss(oof, dev_labels),
        oof_accuracy=accuracy(oof, dev_labels),
        test_log_loss=log_loss(test, test_labels),
        test_accuracy=accuracy(test, test_labels),
        seconds=seconds,
    )


def _mean(parts: list[LogProbs]) -> LogProbs:
    return log_pool(np.stack(parts), np.full(len(parts), 1.0 / len(parts)))


def main() -> None:
    """Probe the stand-ins and print what they say."""
    parser = argparse.ArgumentParser(description="Probe the stand-ins on the built-in sample.")
    parser.add_argument("--models", nargs="+", default=[row.backbone for row in STAND_INS])
    parser.add_argument("--weights", type=Path, default=stand_ins_folder(), help="default: those that come along")
    args = parse_words(parser, quick={"models": ["test_convnext"]})
    torch.set_num_threads(1)
    tiers = {row.backbone: row.tier for row in STAND_INS}
    pictures, samples = _pictures()
    probed, kept = [], []
    for name in args.models:
        model = make_model(name, RESOLUTION, len(samples.classes), weights=args.weights / f"{name}.safetensors").eval()
        began = time.perf_counter()
        features = features_of(model, pictures, normalisation_of(name))
        seconds = time.perf_counter() - began
        kept.append(probe(features, samples))
        probed.append(_judged(name, tiers.get(name, ""), samples, kept[-1], seconds))
        say(_line(probed[-1], features.shape[1]))
    together = (_mean([oof for oof, _ in kept]), _mean([test for _, test in kept]))
    pooled = _judged("all of them", "", samples, together, sum(each.seconds for each in probed))
    say(_line(pooled, 0))
    print_result({"models": [asdict(each) for each in probed], "pooled": asdict(pooled)})


def _line(probed: Probed, features: int) -> str:
    return (
        f"{probed.tier:5} {probed.backbone:22} {features:4} features, OOF {probed.oof_log_loss:.4f} nats "
        f"{probed.oof_accuracy:.1%}, test {probed.test_log_loss:.4f} {probed.test_accuracy:.1%}, {probed.seconds:.2f} s"
    )


if __name__ == "__main__":
    main()
