"""Frozen features of a backbone and a logistic regression on them: the arithmetic of `benchmarks.frozen_features`.

The pictures are decoded and cut by the package's own code, so that what is compared with a search sees the same
pixels; models, folds and heads are timm's and scikit-learn's alone.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from benchmarks.picture_table import PictureTable
from benchmarks.predicted_losses import Judged, judge_probabilities
from spine_ray.core.pixels import PixelFile, build_pixels
from spine_ray.core.views import render, scoring_boxes

FOLDS = 5
STRENGTHS = (0.003, 0.01, 0.03, 0.1)
"""scikit-learn's `C`: the inverse of the L2 penalty."""
STEPS = 300
BLOCK = 32
"""Pictures that go through a backbone at once."""

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A timm model without its classifier."""

    name: str
    network: nn.Module
    mean: torch.Tensor
    """(1, 3, 1, 1), of pixels in 0..1."""
    std: torch.Tensor

    def features(self, pixels: PixelFile, px: int, pool: Executor) -> Features:
        """Return the pooled features of every picture's scoring view, (pictures, features)."""
        blocks = np.array_split(np.arange(len(pixels.offsets)), -(-len(pixels.offsets) // BLOCK))
        return np.concatenate(list(pool.map(lambda rows: self._block(pixels, rows, px), blocks)))

    def _block(self, pixels: PixelFile, rows: npt.NDArray[np.int64], px: int) -> Features:
        with torch.inference_mode():
            pictures = render(pixels, rows, scoring_boxes(len(rows)), px).float() / 255.0
            features: Features = self.network((pictures - self.mean) / self.std).numpy()
        return features


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """A backbone at one size with the head that was fitted on its features."""

    backbone: Backbone
    px: int
    strength: float
    """The one of `STRENGTHS` with the least OOF log-loss."""
    oof: Judged
    """On the rows that it was fitted on, each by heads that did not see it."""
    head: Pipeline
    """Fitted on all rows."""
    seconds: float
    """Features and heads."""

    def predict(self, pixels: PixelFile, pool: Executor) -> npt.NDArray[np.float64]:
        """Return the probabilities of every picture, (pictures, classes)."""
        found: npt.NDArray[np.float64] = self.head.predict_proba(self.backbone.features(pixels, self.px, pool))
        return found


def decode(table: PictureTable, side: int) -> PixelFile:
    """Decode a table's pictures at a stored short side, px."""
    return build_pixels(lambda row: table.paths[row].read_bytes(), [str(path) for path in table.paths], side)


def load_backbone(name: str, weights: Path) -> Backbone:
    """Build a backbone from a safetensors file, whose classifier, if any, is left out.

    Raises:
        RuntimeError: If the file is of another model.
    """
    network = timm.create_model(name, num_classes=0)
    known = network.state_dict()
    network.load_state_dict({key: tensor for key, tensor in load_file(weights).items() if key in known})
    wanted: Any = network.pretrained_cfg
    mean, std = (torch.tensor(wanted[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return Backbone(name, network.eval(), mean, std)


def fit_models(
    table: PictureTable, pixels: PixelFile, weights: Mapping[str, Path], sizes: Sequence[int], pool: Executor
) -> Iterator[FrozenModel]:
    """Fit a head on every backbone at every size.

    Args:
        table: The rows to learn from.
        pixels: Their pictures.
        weights: A safetensors file by backbone.
        sizes: Sides of the square input, px.
        pool: What the work is spread over, a thread a core.
    """
    labels, folds = table.label_indices(table.classes), deal_folds(table)
    for name, file in weights.items():
        backbone = load_backbone(name, file)
        for px in sizes:
            began = time.perf_counter()
            features = backbone.features(pixels, px, pool)
            strength, oof = choose_strength(features, labels, folds, pool)
            head = _head(strength).fit(features, labels)
            yield FrozenModel(backbone, px, strength, oof, head, time.perf_counter() - began)


def deal_folds(table: PictureTable) -> Labels:
    """Deal rows into stratified folds, groups whole, (rows,) from 0."""
    labels = table.label_indices(table.classes)
    folds = np.full(len(labels), -1, np.int64)
    splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, table.groups)):
        folds[held_out] = fold
    return folds


def choose_strength(features: Features, labels: Labels, folds: Labels, pool: Executor) -> tuple[float, Judged]:
    """Return the strength whose OOF log-loss is least, and how it did."""

    def oof_part(work: tuple[float, int]) -> npt.NDArray[np.float64]:
        strength, fold = work
        part = np.zeros((int((folds == fold).sum()), int(labels.max()) + 1))
        head = _head(strength).fit(features[folds != fold], labels[folds != fold])
        part[:, head.classes_] = head.predict_proba(features[folds == fold])
        return part

    names = range(int(folds.max()) + 1)
    parts = dict(zip(product(STRENGTHS, names), pool.map(oof_part, product(STRENGTHS, names)), strict=True))

    def judged(strength: float) -> Judged:
        oof = np.empty((len(labels), int(labels.max()) + 1))
        for fold in names:
            oof[folds == fold] = parts[strength, fold]
        return judge_probabilities(oof, labels)

    by_strength = {strength: judged(strength) for strength in STRENGTHS}
    best = min(STRENGTHS, key=lambda strength: float(by_strength[strength].losses.mean()))
    return best, by_strength[best]


def _head(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=STEPS))
