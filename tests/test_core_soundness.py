import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.seeds import derive_seed
from spine_ray.core.soundness import BatchCheck, _kept, check_training
from spine_ray.core.task import Task
from spine_ray.core.views import image_keys
from spine_ray.ladder.view_check import FULLY_KEPT

SIDE, ROWS = 48, 240
FOLDS = (np.arange(ROWS) // 4 % 3).astype(np.int8)
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]], np.uint8)
WEIGHTS = Path(__file__).parents[1] / "search_spaces" / "small_weights"


def noise(row: int) -> np.ndarray:
    seed = derive_seed(0, "noise", row) % 2**32
    return np.random.default_rng(seed).integers(80, 176, (SIDE, SIDE, 3)).astype(np.uint8)


def corner(row: int) -> np.ndarray:
    """The class is the colour of a mark in the corner: a crop loses it."""
    picture = noise(row)
    picture[:5, :5] = COLOURS[row % 4]
    return picture


def tinted(row: int) -> np.ndarray:
    """The class is the colour of everything: no crop loses it."""
    return (noise(row) // 2 + COLOURS[row % 4] // 2).astype(np.uint8)


def side(row: int) -> np.ndarray:
    """The class is whether a square lies left or right, at half the height: a flip loses it, and so do turns."""
    picture, left = noise(row), 4 if row % 2 else SIDE - 14
    picture[19:29, left : left + 10] = 255
    return picture


def make_task(draw, classes: int) -> Task:
    files = []
    for row in range(ROWS):
        file = io.BytesIO()
        Image.fromarray(draw(row)).save(file, format="PNG")
        files.append(file.getvalue())
    names = [f"{draw.__name__}-{row}" for row in range(ROWS)]
    pixels = build_pixels(files.__getitem__, names, short_side(32))
    return Task(pixels=pixels, keys=image_keys(names, 0), labels=np.arange(ROWS) % classes, classes=classes, seed=0)


@pytest.mark.parametrize(
    ("draw", "classes", "recipe", "destroyed"),
    [
        (corner, 4, {"crop_area_min": 0.05}, True),
        (corner, 4, {"crop_area_min": 0.35}, True),
        (tinted, 4, {"crop_area_min": 0.05, "symmetry": "mirror"}, False),
        (side, 2, {"crop_area_min": 0.8, "symmetry": "mirror"}, True),
        (side, 2, {"crop_area_min": 0.8}, False),
    ],
)
@pytest.mark.parametrize("weights", [None, WEIGHTS / "test_vit.safetensors"])
def test_augmentation_that_removes_the_class_is_told_from_harmless_augmentation(
    draw, classes, recipe, destroyed, weights, trial_config, make_setup
) -> None:
    config = trial_config("test_vit", **recipe)
    found = check_training(config, make_task(draw, classes), FOLDS, make_setup(weights=weights))
    assert found.views.is_destroyed is destroyed, found.views.sentence
    assert ("destroys the classes" in found.views.sentence) is destroyed
    assert found.batch.verdict == "learnt"
    assert found.probe.probe_accuracy > 0.8
    assert found.shuffled.probe_accuracy < found.views.prior_accuracy + 0.1


def lying(row: int) -> np.ndarray:
    """The class is whether a bar lies or stands: a quarter turn loses it, a half turn and a mirror image do not."""
    picture = noise(row)
    picture[20:28, 6:42] = 255
    return picture if row % 2 else picture.swapaxes(0, 1).copy()


@pytest.mark.parametrize(
    ("draw", "classes", "minds_mirror", "minds_turns"),
    [(tinted, 4, False, False), (side, 2, True, True), (lying, 2, False, True)],
)
def test_symmetries_that_lose_the_class_are_told_from_those_that_do_not(
    draw, classes, minds_mirror, minds_turns, trial_config, make_setup
) -> None:
    weights = WEIGHTS / "test_vit.safetensors"
    found = check_training(trial_config("test_vit"), make_task(draw, classes), FOLDS, make_setup(weights=weights))
    for check, minds in ((found.mirrored, minds_mirror), (found.turned, minds_turns)):
        assert check.kept is not None
        assert (check.kept < FULLY_KEPT) is minds


def test_labels_that_mean_nothing_leave_nothing_to_lose(trial_config, make_setup) -> None:
    task = make_task(tinted, 4)
    task = replace(task, labels=np.random.default_rng(0).permutation(task.labels))
    found = check_training(trial_config("test_vit", crop_area_min=0.05), task, FOLDS, make_setup())
    assert found.views.kept is None
    assert not found.views.is_destroyed
    assert found.views.sentence.startswith("a linear probe on frozen features knows too little")


def test_a_learning_rate_that_learns_nothing_is_found_out(digits_task, trial_config, make_setup) -> None:
    folds = (np.arange(60) % 3).astype(np.int8)
    found = check_training(trial_config("test_resnet", lr=1e-9), digits_task(60), folds, make_setup())
    assert found.batch.verdict == "not learnt"
    assert found.batch.last_loss == pytest.approx(found.batch.first_loss, rel=0.01)


def test_what_there_was_no_time_for_is_undecided() -> None:
    assert BatchCheck(steps=7, rows=32, first_loss=2.0, last_loss=1.9, seconds=30.0).verdict == "undecided"


def test_draws_of_rows_in_which_nothing_is_known_leave_no_number_out_of_range() -> None:
    """The clean probe is right for 30 of 40 rows; in a few of the draws for no more than the prior's 22."""
    clean, prior, seed = np.array([1.0] * 30 + [0.0] * 10), 0.55, 0
    generator = np.random.default_rng(seed)
    known = np.array([clean[generator.integers(0, 40, 40)].mean() for _ in range(1000)]) - prior
    assert (known == 0.0).any()
    with np.errstate(divide="raise", invalid="raise"):
        assert _kept(np.stack([clean, clean]), prior, seed) == pytest.approx((1.0, 1.0, 1.0))
