from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spine_ray.core.pixels import PixelFile
from spine_ray.core.task import Task


@pytest.fixture(scope="module")
def task():
    """Labels without pictures: 1, 3 and 4 rows of three classes."""
    none = np.zeros(8, np.int64)
    pixels = PixelFile(Path(), none, none, none, np.zeros(0, np.uint8))
    labels = np.array([2, 1, 2, 0, 1, 2, 1, 2])
    return Task(pixels=pixels, keys=none.astype(np.uint64), labels=labels, classes=3, seed=0)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        # rows / (classes * rows of the class)
        (range(8), [8 / (3 * 1), 8 / (3 * 3), 8 / (3 * 4)]),
        ([3, 1, 0], [1.0, 1.0, 1.0]),
        ([3, 3, 1, 0], [4 / (3 * 2), 4 / (3 * 1), 4 / (3 * 1)]),
        # Without a row of class 0 its weight, which no row will use, is as if it had one.
        ([0, 1, 2], [3 / (3 * 1), 3 / (3 * 1), 3 / (3 * 2)]),
    ],
)
def test_class_weights_are_rows_over_classes_times_rows_of_the_class(rows, expected, task):
    weights = task.class_weights(np.array(rows))
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx(expected, rel=1e-6)


def test_every_class_that_has_rows_has_the_same_say(task):
    rows = np.arange(8)
    say = np.bincount(task.labels, weights=task.class_weights(rows).numpy()[task.labels])
    assert say == pytest.approx([8 / 3] * 3)


def test_a_class_that_no_row_has_has_a_weight(task):
    weights = replace(task, classes=5).class_weights(np.arange(8))
    assert weights.shape == (5,)
    assert torch.isfinite(weights).all()
