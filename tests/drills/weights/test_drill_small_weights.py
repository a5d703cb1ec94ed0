"""The small weights that come along are worth freezing: a head on them beats one on random weights, on real scans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from spine_ray.core.features import scoring_features
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.probe import refitted_head
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.data.digits import digits_source
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import probe_config
from spine_ray.space.stand_ins import STAND_INS

FOLDER = Path(__file__).parents[3] / "search_spaces" / "small_weights"
MODELS = tuple(row.backbone for row in STAND_INS)
RESOLUTION, TRAINED, HELD_OUT = 32, 600, 300
SEEDS = (0, 1, 2)
MOST_ERRORS = 0.75
"""Of a head on made weights, in errors of one on random weights; the most measured is 0.57 (EfficientNet)."""


def weights_file(model):
    return FOLDER / f"{model}.safetensors"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    rows = TRAINED + HELD_OUT
    source = digits_source()
    names = [f"digit {row}" for row in range(rows)]
    labels = np.array([int(row.class_name) for row in source.rows[:rows]], np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPINE_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        pixels = build_pixels(lambda row: source.reader.read(row, ""), names, short_side(RESOLUTION))
        keys = [image_keys(names, seed) for seed in SEEDS]
        yield [Task(pixels=pixels, keys=keys[seed], labels=labels, classes=10, seed=seed) for seed in SEEDS]


def probe_accuracy(model, task, weights):
    order = np.random.default_rng(task.seed).permutation(len(task.labels))
    trained, held_out = np.sort(order[:TRAINED]), np.sort(order[TRAINED:])
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=weights, activation_bytes=0)
    network = Network(probe_config(model, RESOLUTION), task.classes, task.seed, setup)
    head = refitted_head(task, trained, network)
    logits = head.logits(scoring_features(network, task, held_out).values)
    return float((logits.argmax(axis=1) == task.labels[held_out]).mean())


@pytest.mark.parametrize("model", MODELS)
def test_a_head_on_frozen_made_weights_beats_one_on_random_weights(model, digits):
    made = 1.0 - np.mean([probe_accuracy(model, task, weights_file(model)) for task in digits])
    random = 1.0 - np.mean([probe_accuracy(model, task, None) for task in digits])
    assert made <= MOST_ERRORS * random, f"{model}: {made:.3f} wrong on made weights, {random:.3f} on random ones"
