"""What a search looks at before it fine-tunes on a grid's set: its checks, timed."""

import time

from benchmarks.grid import GridSet, known_arithmetic, order_of, prepare
from benchmarks.grid_training import ROOM, open_task
from spine_ray.core.cache import cache_budget
from spine_ray.core.soundness import check_training
from spine_ray.space.configs import start_configs
from spine_ray.study.paths import read_json, replace_json


def seconds_of_looks(grid: GridSet) -> float:
    """Return the device seconds of the checks, taken once a set and kept beside its grid."""
    path = grid.folder / "looks.json"
    if not path.exists():
        order = order_of(grid, prepare(grid), known_arithmetic(grid))
        start = start_configs(grid.space.tiers[0], "pretrained")[0]
        samples, task = open_task(order.folder, order.pixels)
        began = time.process_time()
        check_training(start, task, samples.folds, order.setup(start, cache_budget() // ROOM))
        replace_json(path, {"seconds": time.process_time() - began})
    return float(read_json(path)["seconds"])
