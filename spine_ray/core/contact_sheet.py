"""A contact sheet: a few pictures of each class as the network will see them, clean and augmented, on one PNG."""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from spine_ray.core.seeds import derive_seed
from spine_ray.core.task import Rows, Task
from spine_ray.core.views import Augmentation, render, scoring_boxes, training_view

_CLASSES, _PICTURES, _VIEWS = 12, 2, 3
"""At most so many classes, pictures of each, and training views of each picture."""
_CELL, _GAP, _LABEL, _HEAD = 96, 6, 150, 30
"""px: side of a view, between views, width of a class name, height of the title."""
_PAPER, _INK, _SOFT = (250, 250, 250), (20, 20, 20), (120, 120, 120)


@dataclass(frozen=True, slots=True)
class _Line:
    """One class of the sheet."""

    name: str
    rows: Rows
    views: npt.NDArray[np.uint8]
    """(pictures, 1 + views, side, side, 3): the clean view first."""


def contact_sheet(task: Task, rows: Rows, names: tuple[str, ...], augmentation: Augmentation, resolution: int) -> bytes:
    """Return a PNG with a line a class: two pictures, each as it is scored and in three training views.

    Args:
        task: Pictures, labels and seed.
        rows: To choose from.
        names: Of the classes.
        augmentation: Of the training views.
        resolution: px; what is shown is cut at it and then scaled to the cell.
    """
    counts = np.bincount(task.labels[rows], minlength=len(names))
    shown = np.argsort(-counts, kind="stable")[:_CLASSES]
    lines = [_line(task, rows[task.labels[rows] == label], names[label], augmentation, resolution) for label in shown]
    per_picture = (1 + _VIEWS) * (_CELL + _GAP)
    width = _LABEL + _PICTURES * per_picture + 2 * _GAP
    sheet = Image.new("RGB", (width, _HEAD + len(lines) * (_CELL + _GAP) + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    more = f" ({len(names) - len(shown)} smaller classes are not shown)" if len(names) > len(shown) else ""
    draw.text(
        (_GAP, 8), f"{resolution} px; each picture: as scored, then {_VIEWS} training views{more}", _SOFT, _font()
    )
    for place, line in enumerate(lines):
        top = _HEAD + place * (_CELL + _GAP)
        draw.text((_GAP, top + _CELL // 2 - 8), _fitting(line.name), _INK, _font())
        for column, view in enumerate(line.views.reshape(-1, *line.views.shape[2:])):
            picture, which = divmod(column, 1 + _VIEWS)
            left = _LABEL + picture * (per_picture + _GAP) + which * (_CELL + _GAP)
            sheet.paste(Image.fromarray(view).resize((_CELL, _CELL), Image.Resampling.BICUBIC), (left, top))
    file = io.BytesIO()
    sheet.save(file, format="PNG")
    return file.getvalue()


def _line(task: Task, rows: Rows, name: str, augmentation: Augmentation, resolution: int) -> _Line:
    generator = np.random.default_rng(derive_seed(task.seed, "contact sheet", name))
    chosen = np.sort(generator.permutation(rows)[:_PICTURES])
    views = [render(task.pixels, chosen, scoring_boxes(len(chosen)), resolution)]
    for view in range(_VIEWS):
        views.append(training_view(task.pixels, chosen, task.keys[chosen], view, augmentation, resolution))
    stacked = np.stack([each.permute(0, 2, 3, 1).numpy() for each in views], axis=1)
    return _Line(name, chosen, stacked)


def _font() -> "ImageFont.ImageFont | ImageFont.FreeTypeFont":
    return ImageFont.load_default(13)


def _fitting(name: str) -> str:
    """Return a name on one line, cut to the width of its column."""
    name = " ".join("".join(letter if letter.isprintable() else " " for letter in name[:_LABEL]).split())
    width = _LABEL - 2 * _GAP
    if _font().getlength(name) <= width:
        return name
    while name and _font().getlength(name + "...") > width:
        name = name[:-1]
    return name + "..."
