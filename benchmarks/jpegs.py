"""Generated JPEGs in class folders, dealt into stratified folds."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.model_selection import StratifiedKFold

from benchmarks.fold_table import FoldTable, write_table
from benchmarks.textures import drawings, picture

SIDE, QUALITY = 256, 90
KIND = "noise"
"""Patterns without a period, which a small network tells apart within a few epochs."""


def write_jpegs(folder: Path, *, pictures: int, classes: int, folds: int, seed: int) -> FoldTable:
    """Draw pictures, the classes taking turns, and write them with their fold table.

    Raises:
        ValueError: If there are fewer drawings than classes, or too few pictures of each class for the folds.
    """
    draws = {name: draw for name, draw in drawings().items() if name.startswith(KIND)}
    if not 2 <= classes <= len(draws):
        raise ValueError(f"classes must be 2 to {len(draws)}, not {classes}")
    if pictures // classes < folds:
        raise ValueError(f"{pictures} pictures of {classes} classes are too few for {folds} folds")
    chosen = list(draws)[:classes]
    rng = np.random.default_rng(seed)
    paths, names = [], []
    for number in range(pictures):
        title = chosen[number % classes]
        name = title.replace(" ", "_")
        path = folder / name / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(draws[title], rng, SIDE)).save(path, quality=QUALITY)
        paths.append(path.relative_to(folder).as_posix())
        names.append(name)
    table = FoldTable(tuple(paths), tuple(names), deal(names, folds, seed))
    write_table(table, folder)
    return table


def deal(names: list[str], folds: int, seed: int) -> np.ndarray:
    """Deal rows into folds with equal shares of every class, (rows,) from 0."""
    column = np.empty(len(names), np.int64)
    for fold, (_, held_out) in enumerate(StratifiedKFold(folds, shuffle=True, random_state=seed).split(names, names)):
        column[held_out] = fold
    return column
