"""A grid of a few rows and configurations, made in seconds: the `--quick` of all that trains or reads grids."""

from dataclasses import replace
from pathlib import Path

from benchmarks.grid import SPACE, GridSet, groups_of, order_of, prepare, write_head
from benchmarks.grid_sets import make_rows
from benchmarks.grid_training import train_group
from spine_ray.climb.prepare import look_up
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.load import load_space

NAME = "wrong"
"""Of the sets the easiest: something is learnt from few rows, so that the first gate opens."""
DEV_ROWS, FRESH_ROWS = 90, 150
SETS = (
    "tiers.light.backbone=[test_byobnet]",
    "tiers.mid.backbone=[test_resnet]",
    "tiers.heavy.backbone=[test_efficientnet]",
    "resolution=32",
    "freeze=[0.75]",
    "trials=2",
    "recipe.epochs=2",
    "recipe.lr=[3e-3, 1e-3]",
)


def tiny_grid(out: Path, tiers: int) -> GridSet:
    """Write the rows of a tiny grid and return it, untrained."""
    space = look_up([load_space(str(SPACE), sets=SETS)])[0]
    grid = GridSet(NAME, out.resolve() / NAME, replace(space, tiers=space.tiers[:tiers]))
    prepare(grid, make_rows(NAME, DEV_ROWS, FRESH_ROWS))
    return grid


def trained_tiny_grid(out: Path) -> GridSet:
    """Make a tiny grid of three tiers and train it in this process, in plain float32."""
    grid = tiny_grid(out, tiers=3)
    arithmetic = {backbone: FLOAT32 for tier in grid.space.tiers for backbone in tier.backbones}
    write_head(grid, arithmetic)
    order = order_of(grid, prepare(grid), arithmetic)
    for group in groups_of(grid.space):
        train_group(order, group)
    return grid
