import io

import numpy as np
from PIL import Image

from spine_ray.core.contact_sheet import contact_sheet
from spine_ray.core.views import Augmentation, render, scoring_boxes

HARMLESS = Augmentation(crop_area_min=0.8, symmetry="none")


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_every_class_has_a_line_and_the_clean_view_comes_first(digits_task) -> None:
    task = digits_task(40)
    names = tuple(str(label) for label in range(10))
    sheet = opened(contact_sheet(task, np.arange(40), names, HARMLESS, 32))
    assert sheet.height == 30 + 10 * (96 + 6) + 6
    first = int(np.bincount(task.labels).argmax())
    cell = np.asarray(sheet.crop((150, 30, 246, 126)).convert("L"), float)
    rows = np.flatnonzero(task.labels == first)
    views = render(task.pixels, rows, scoring_boxes(len(rows)), 32)[:, 0].numpy()
    drawn = [np.asarray(Image.fromarray(view).resize((96, 96), Image.Resampling.BICUBIC), float) for view in views]
    assert min(np.abs(cell - each).mean() for each in drawn) < 1.0


def test_the_same_rows_give_the_same_sheet(digits_task) -> None:
    task, names = digits_task(40), tuple(map(str, range(10)))
    one, again = (contact_sheet(task, np.arange(40), names, HARMLESS, 32) for _ in range(2))
    assert one == again


def test_long_and_foreign_names_fit_their_column(digits_task) -> None:
    task = digits_task(40)
    names = ("x" * 5000, "漢字", "a\nb\x00\x1b[2J\u202e🐈\u200d⬛", "", *map(str, range(6)))
    sheet = np.asarray(opened(contact_sheet(task, np.arange(40), names, HARMLESS, 32)))
    assert (sheet[30:, 140:150] == 250).all(), "nothing is written between the names and the pictures"
