import math

import torch

from spine_ray.core.probe import measure_speed


def test_a_probe_measures_training_and_scoring(trial_config):
    speed = measure_speed(trial_config(freeze=0.5, flip=True), 10, torch.device("cpu"))
    for value in (speed.train_images_s, speed.infer_images_s, speed.peak_mb):
        assert math.isfinite(value)
        assert value > 0


def test_a_probe_needs_no_class_to_have_a_row(trial_config):
    # 8 pictures for 100 classes.
    speed = measure_speed(trial_config(freeze=1.0, batch_size=8, class_weighting="balanced"), 100, torch.device("cpu"))
    assert speed.train_images_s > 0
