"""Generated pictures with a table, in groups of two: where there are no real ones at hand."""

from pathlib import Path

from benchmarks.jpegs import write_jpegs
from benchmarks.picture_table import PictureTable, write_table

CLASSES = 3
WEIGHTS = Path(__file__).parents[1] / "search_spaces" / "small_weights"
BACKBONES = ("test_resnet", "test_efficientnet")
"""Of these `WEIGHTS` has weights, made on generated pictures."""


def write_pictures(folder: Path, pictures: int, seed: int) -> Path:
    """Draw pictures, write them with their table and return the table's file."""
    drawn = write_jpegs(folder, pictures=pictures, classes=CLASSES, folds=2, seed=seed)
    # The classes take turns: two neighbours of a class are a group.
    groups = tuple(f"{name} {row // CLASSES // 2}" for row, name in enumerate(drawn.names))
    table = PictureTable(tuple(folder.absolute() / path for path in drawn.paths), drawn.names, groups)
    file = folder / "table.csv"
    write_table(table, file)
    return file
