from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from spine_ray.core.pixels import PixelFile
from spine_ray.core.views import Augmentation, Boxes, image_keys, render, scoring_boxes, training_boxes, training_view

NAMES = [f"sample {row}" for row in range(10_000)]
KEYS = image_keys(NAMES, 0)
AUGMENTATION = Augmentation(crop_area_min=0.3, symmetry="all")
PAINTED = replace(AUGMENTATION, color_jitter=0.4, trivial_augment=True)
COLUMNS = ("width", "height", "across", "down", "mirrored", "turns")


def pixel_file(*pictures):
    sizes = [picture.size for picture in pictures]
    return PixelFile(
        Path(),
        np.cumsum([0, *sizes[:-1]]),
        np.array([picture.shape[0] for picture in pictures]),
        np.array([picture.shape[1] for picture in pictures]),
        np.concatenate([picture.ravel() for picture in pictures]),
    )


def smooth_picture(height, width, phase=0.0):
    """Waves a few to a picture, so that any scaling of it is nearly exact."""
    down, across = np.mgrid[0:height, 0:width]
    down, across = (down + 0.5) / height, (across + 0.5) / width
    waves = [
        np.sin(2 * np.pi * (down + phase)),
        np.cos(2 * np.pi * across + phase),
        np.sin(4 * across + 5 * down),
    ]
    return (127.5 + 127 * np.stack(waves, axis=-1)).astype(np.uint8)


def box(*, width, height, across=0.5, down=0.5, mirrored=False, turns=0):
    return Boxes(*(np.array([value]) for value in (width, height, across, down, mirrored, turns)))


def rows_of(boxes, rows):
    return Boxes(*(getattr(boxes, column)[rows] for column in COLUMNS))


def assert_same(one, other):
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(one, column), getattr(other, column))


def test_a_key_belongs_to_the_sample_and_the_seed_wherever_the_row_stands():
    order = np.random.default_rng(0).permutation(len(NAMES))
    np.testing.assert_array_equal(image_keys([NAMES[row] for row in order], 0), KEYS[order])
    assert KEYS.dtype == np.uint64
    assert len(np.unique(np.concatenate([KEYS, image_keys(NAMES, 1)]))) == 2 * len(NAMES)


@pytest.mark.parametrize("view", [0, 1, 30])
def test_a_view_is_the_same_in_every_batch_and_row_order(view):
    rows = np.random.default_rng(view).permutation(len(KEYS))[:77]
    every = training_boxes(KEYS, view, AUGMENTATION)
    assert_same(rows_of(every, rows), training_boxes(KEYS[rows], view, AUGMENTATION))


def test_different_views_are_different_and_uncorrelated():
    one, other = (training_boxes(KEYS, view, AUGMENTATION) for view in (3, 4))
    for column in ("width", "height", "across", "down"):
        assert not np.any(getattr(one, column) == getattr(other, column))
    for column in COLUMNS:
        correlation = np.corrcoef(getattr(one, column), getattr(other, column))[0, 1]
        assert abs(correlation) < 5 / np.sqrt(len(KEYS))


@pytest.mark.parametrize("area_min", [0.05, 0.35, 1.0])
def test_area_and_aspect_of_crops_fill_their_ranges(area_min):
    boxes = training_boxes(KEYS, 0, Augmentation(crop_area_min=area_min, symmetry="none"))
    area, aspect = boxes.width * boxes.height, boxes.width / boxes.height
    assert area.min() >= area_min - 1e-12
    assert area.max() <= 1 + 1e-12
    assert aspect.min() >= 3 / 4 - 1e-12
    assert aspect.max() <= 4 / 3 + 1e-12
    assert np.quantile(area, [0, 0.5, 1]) == pytest.approx([area_min, (1 + area_min) / 2, 1], abs=0.02)
    assert np.quantile(aspect, [0, 0.5, 1]) == pytest.approx([3 / 4, 1, 4 / 3], abs=0.02)
    assert np.quantile(boxes.across, [0, 0.5, 1]) == pytest.approx([0, 0.5, 1], abs=0.02)
    assert np.quantile(boxes.down, [0, 0.5, 1]) == pytest.approx([0, 0.5, 1], abs=0.02)


@pytest.mark.parametrize(("symmetry", "kept"), [("none", 1), ("mirror", 2), ("all", 8)])
def test_views_are_shared_out_evenly_among_the_symmetries(symmetry, kept):
    boxes = training_boxes(KEYS, 0, replace(AUGMENTATION, symmetry=symmetry))
    counts = np.bincount(4 * boxes.mirrored + boxes.turns, minlength=8)
    assert (counts > 0).sum() == kept
    assert counts[[0, 4][: min(kept, 2)]].all(), "upright, and mirrored"
    share = len(KEYS) / kept
    assert (abs(counts[counts > 0] - share) <= 5 * np.sqrt(share)).all()
    plain = training_boxes(KEYS, 0, replace(AUGMENTATION, symmetry="none"))
    assert_same(replace(boxes, mirrored=plain.mirrored, turns=plain.turns), plain)  # it moves no crop


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_view_is_turned_by_right_angles_then_mirrored(turns, mirrored):
    picture = smooth_picture(12, 12)
    whole = box(width=1.0, height=1.0, mirrored=mirrored, turns=turns)
    expected = np.rot90(picture, turns, (0, 1))
    expected = expected[:, ::-1] if mirrored else expected
    rendered = render(pixel_file(picture), np.array([0]), whole, 12)
    np.testing.assert_array_equal(rendered[0].permute(1, 2, 0).numpy(), expected)


def test_a_painted_view_is_the_same_alone_and_in_a_batch_whatever_was_drawn_before():
    pixels, rows = pixel_file(*(smooth_picture(24, 24, row / 5) for row in range(5))), np.array([4, 0, 2])
    together = training_view(pixels, rows, KEYS[rows], 3, PAINTED, 16)
    for place in range(len(rows)):
        torch.manual_seed(place)
        alone = training_view(pixels, rows[[place]], KEYS[rows[[place]]], 3, PAINTED, 16)
        assert torch.equal(alone[0], together[place])
    assert together.dtype == torch.uint8
    others = (training_view(pixels, rows, KEYS[rows], 4, PAINTED, 16), render_of(pixels, rows, 3, 16))
    assert not any(torch.equal(together, other) for other in others)


def test_painting_leaves_the_generator_of_torch_where_it_was():
    pixels = pixel_file(smooth_picture(24, 24))
    torch.manual_seed(0)
    training_view(pixels, np.array([0]), KEYS[:1], 0, PAINTED, 16)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


def test_colours_change_by_no_more_than_their_share():
    grey = pixel_file(*(np.full((8, 8, 3), 100, np.uint8) for _ in range(200)))
    rows = np.arange(200)
    brighter = replace(AUGMENTATION, color_jitter=0.3)
    levels = training_view(grey, rows, KEYS[rows], 0, brighter, 8).float().mean(dim=(1, 2, 3))
    # Of an even grey only the brightness changes, by a factor of 0.7 to 1.3; levels are cut to whole ones.
    assert float(levels.min()) >= 69.0
    assert float(levels.max()) <= 130.0
    assert float(levels.std()) > 10.0


def render_of(pixels, rows, view, side):
    return render(pixels, rows, training_boxes(KEYS[rows], view, AUGMENTATION), side)


def test_a_view_of_an_image_looks_the_same_alone_and_in_a_batch():
    pixels = pixel_file(*(smooth_picture(20 + row, 30 - row, row / 7) for row in range(7)))
    rows = np.array([5, 0, 3, 3, 6])
    boxes = training_boxes(KEYS[rows], 2, AUGMENTATION)
    together = render(pixels, rows, boxes, 16)
    for place in range(len(rows)):
        alone = render(pixels, rows[[place]], rows_of(boxes, [place]), 16)
        assert torch.equal(alone[0], together[place])
    assert torch.equal(together[2], together[3])


def test_renders_are_bytes_of_channels_rows_columns():
    pixels = pixel_file(smooth_picture(20, 30), smooth_picture(9, 9))
    batch = render(pixels, np.array([0, 1, 0]), training_boxes(KEYS[:3], 0, AUGMENTATION), 12)
    assert batch.shape == (3, 3, 12, 12)
    assert batch.dtype == torch.uint8


@pytest.mark.parametrize("view", range(5))
def test_two_resolutions_see_the_same_crop(view):
    pixels = pixel_file(*(smooth_picture(84, 90, row / 8) for row in range(8)))
    rows = np.arange(8)
    boxes = training_boxes(KEYS[rows], view, AUGMENTATION)
    small = render(pixels, rows, boxes, 32).float()
    large = avg_pool2d(render(pixels, rows, boxes, 64).float(), 2)
    assert float((small - large).abs().mean()) < 1.0
    assert float((small - large).abs().max()) < 6.0
    # Another view is not that near: the test above tells crops apart.
    other = render(pixels, rows, training_boxes(KEYS[rows], view + 1, AUGMENTATION), 32).float()
    assert float((small - other).abs().mean()) > 10.0


def test_two_stored_sizes_of_a_picture_give_the_same_crop():
    boxes = training_boxes(KEYS[:8], 0, AUGMENTATION)
    small, large = (
        render(pixel_file(*(smooth_picture(side, side, row / 8) for row in range(8))), np.arange(8), boxes, 24).float()
        for side in (42, 168)
    )
    # A crop begins at a whole pixel of the smaller picture: half of one is about 127 * 2 pi / 42 / 2 = 9 levels.
    assert float((small - large).abs().mean()) < 9.0


@pytest.mark.parametrize(("height", "width"), [(10, 10), (10, 17), (23, 10)])
def test_the_scoring_view_is_the_central_square(height, width):
    picture = smooth_picture(height, width)
    top, left = round((height - 10) / 2), round((width - 10) / 2)
    expected = picture[top : top + 10, left : left + 10].transpose(2, 0, 1)
    rendered = render(pixel_file(picture), np.array([0]), scoring_boxes(1), 10)
    np.testing.assert_array_equal(rendered[0].numpy(), expected)


def test_scoring_boxes_are_whole_short_sides_in_the_middle():
    boxes = scoring_boxes(4)
    assert_same(boxes, Boxes(*(np.full(4, value) for value in (1.0, 1.0, 0.5, 0.5, False, 0))))


def test_a_box_is_cut_where_it_says():
    # 8 x 12 px: a box of width 1/2 and height 1/4 of the short side is 4 x 2 px.
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:, :, 0] = 10 * np.arange(12)
    picture[:, :, 1] = 10 * np.arange(8)[:, None]
    right_and_up = render(pixel_file(picture), np.array([0]), box(width=0.5, height=0.25, across=1, down=0), 4)[0]
    assert right_and_up[0].tolist() == [[80, 90, 100, 110]] * 4
    assert right_and_up[1].min() == 0
    assert right_and_up[1].max() == 10
    left_and_down = render(pixel_file(picture), np.array([0]), box(width=0.25, height=0.5, across=0, down=1), 4)[0]
    assert left_and_down[1].tolist() == [[level] * 4 for level in (40, 50, 60, 70)]
    assert left_and_down[0].min() == 0
    assert left_and_down[0].max() == 10


def test_a_box_that_is_larger_than_the_picture_ends_at_its_edge():
    picture = smooth_picture(12, 12)
    wide = render(pixel_file(picture), np.array([0]), box(width=1.15, height=1.0), 12)
    np.testing.assert_array_equal(wide[0].numpy(), picture.transpose(2, 0, 1))


def test_a_mirrored_view_is_the_same_crop_from_right_to_left():
    pixels = pixel_file(smooth_picture(20, 26))
    plain, mirrored = (
        render(pixels, np.array([0]), box(width=0.7, height=0.6, across=0.2, down=0.9, mirrored=flag), 15)
        for flag in (False, True)
    )
    assert torch.equal(plain.flip(-1), mirrored)
    assert not torch.equal(plain, mirrored)
