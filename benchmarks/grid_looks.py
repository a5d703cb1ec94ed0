"""What a search looks at before it trains on a grid's set: the checks, and the screening of every backbone; timed."""

import time
from dataclasses import replace

import torch

from benchmarks.grid import GridSet, known_arithmetic, order_of, prepare
from benchmarks.grid_sets import SEED
from benchmarks.grid_training import ROOM, Order, open_task
from spine_ray.core.cache import cache_budget
from spine_ray.core.network import Network
from spine_ray.core.screen import SCREENED_ROWS, clean_features, few_rows, screen
from spine_ray.core.seeds import derive_seed
from spine_ray.core.soundness import check_training
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.study.paths import read_json, replace_json


def looks(grid: GridSet) -> tuple[tuple[str, ...], float]:
    """Return backbones by what their frozen features promise, best first, and the device seconds of all looks.

    They are taken once a set and kept beside its grid.
    """
    path = grid.folder / "looks.json"
    if not path.exists():
        order = order_of(grid, prepare(grid), known_arithmetic(grid))
        starts = [start for tier in grid.space.tiers for start in start_configs(tier, "pretrained")]
        found, began = {start.backbone: _screened(order, start) for start in starts}, time.process_time()
        samples, task = open_task(order.folder, order.pixels)
        check_training(starts[0], task, samples.folds, order.setup(starts[0].backbone, cache_budget() // ROOM))
        checked = time.process_time() - began
        ranked = sorted(found, key=lambda backbone: found[backbone][0])
        replace_json(path, {"order": ranked, "seconds": checked + sum(seconds for _, seconds in found.values())})
    kept = read_json(path)
    return tuple(kept["order"]), float(kept["seconds"])


def _screened(order: Order, start: TrialConfig) -> tuple[float, float]:
    """Return the log-loss of a linear probe on frozen features, and the seconds that it took."""
    samples, task = open_task(order.folder, order.pixels)
    torch.set_num_threads(1)
    began = time.process_time()
    rows = few_rows(task.labels, samples.dev, SCREENED_ROWS, derive_seed(SEED, "screen") % 2**32)
    setup = order.setup(start.backbone, cache_budget() // ROOM)
    network = Network(replace(start, freeze=1.0), task.classes, SEED, setup)
    found = screen(clean_features(network, task, rows), task.labels[rows], samples.folds[rows], task.classes)
    return found.probe_log_loss, time.process_time() - began
