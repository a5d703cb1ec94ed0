"""Train every configuration of a small space once and store all of it, so that searches can be replayed from it.

    python -m benchmarks.grid --set glyphs --out grids                  # less than 9 minutes on two free cores
    python -m benchmarks.grid --set glyphs --out grids --data-only      # only the table that `--data` takes

The configurations are those of `benchmarks/spaces/grid.yaml` and the probes of its backbones, so that a real search on
the same table finds the same trial ids. Each is trained over all folds to its last epoch as a search trains it, every
fold from its own solved head, activations kept where they are frozen, and each fold's model scores fresh rows outside
the timed part. An interrupted run goes on where it was. What is where, and the reader: `benchmarks/grid_store.py`.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from benchmarks.grid_sets import KINDS, SEED, Rows, least_loss, make_rows, write_data
from benchmarks.grid_store import Grid, read_grid
from benchmarks.grid_training import Group, Order, train_group
from benchmarks.results import parse_words, print_result, say
from benchmarks.selector import THREADS
from spine_ray.climb.prepare import look_up
from spine_ray.core.backbone import facts, family_of
from spine_ray.core.cost_profile import fastest_arithmetic
from spine_ray.core.network import Setup
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.sources import open_source
from spine_ray.space.arithmetic import FLOAT32, Arithmetic, parse_arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import build_config, probe_configs, searched_fields
from spine_ray.space.fields import Choice
from spine_ray.space.load import load_space
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.paths import read_json, replace_json
from spine_ray.study.tables import read_samples, write_samples

SPACE = Path(__file__).parent / "spaces" / "grid.yaml"


@dataclass(frozen=True, slots=True)
class GridSet:
    """A set to train a grid on."""

    name: str
    folder: Path
    space: Space


def groups_of(space: Space) -> tuple[Group, ...]:
    """Return the probes and every point of a space, in the order of its tiers.

    Raises:
        ValueError: If it searches anything but the rate, or the rate not from a list.
    """
    found: list[Group] = []
    for tier in space.tiers:
        found += [Group(tier=tier.name, configs=(probe,)) for probe in probe_configs(tier, "pretrained")]
        for backbone in tier.backbones:
            for resolution, freeze in itertools.product(tier.resolutions_of(backbone), tier.trained_freezes):
                configs = tuple(_point(tier, backbone, resolution, freeze, rate) for rate in _rates(tier))
                found.append(Group(tier=tier.name, configs=configs))
    return tuple(found)


def _rates(tier: TierSpace) -> tuple[float, ...]:
    searched = searched_fields(tier)
    rates = searched.get("lr")
    if list(searched) != ["lr"] or not isinstance(rates, Choice):
        raise ValueError(
            f"tier {tier.name}: a grid needs a list of rates `lr`, and nothing else searched in the recipe"
        )
    return tuple(float(rate) for rate in rates.values)


def _point(tier: TierSpace, backbone: str, resolution: int, freeze: float, rate: float) -> TrialConfig:
    config = build_config(tier, "pretrained", backbone, resolution, freeze, {"lr": rate})
    # As the searcher rounds what it suggests.
    return replace(config, recipe=replace(config.training, lr=float(f"{config.training.lr:.3g}")))


def prepare(grid: GridSet, rows: Rows | None = None) -> Path:
    """Write a set's table unless it is there, name its rows as a study does, and return its decoded pictures.

    Args:
        grid: The set and where it is to lie.
        rows: Other rows than the set's own, for a trial of all this.
    """
    data, kept = grid.folder / "data.parquet", grid.folder / "samples.parquet"
    if not data.exists():
        write_data(rows or make_rows(grid.name), data)
    source = open_source(str(data))
    samples = build_samples(inspect_source(source), seed=SEED)
    if kept.exists() and read_samples(kept).version != samples.version:
        raise ValueError(f"{kept} names other rows than {data}: name another folder")
    write_samples(kept, samples)
    places = source.locate(samples.paths)
    largest = max(
        side for tier in grid.space.tiers for backbone in tier.backbones for side in tier.resolutions_of(backbone)
    )
    pixels = build_pixels(lambda row: source.read(int(places[row])), samples.sample_ids, short_side(largest))
    return pixels.folder


def write_head(grid: GridSet, arithmetic: Mapping[str, Arithmetic]) -> None:
    """Write what holds for the whole grid."""
    classes = len(read_samples(grid.folder / "samples.parquet").classes)
    backbones: dict[str, dict[str, Any]] = {}
    for tier in grid.space.tiers:
        for backbone in tier.backbones:
            macs = {str(side): facts(backbone, side, classes).macs for side in tier.resolutions_of(backbone)}
            chosen = str(arithmetic[backbone])
            backbones[backbone] = {"family": family_of(backbone), "arithmetic": chosen, "macs": macs}
    replace_json(
        grid.folder / "grid.json",
        {
            "name": grid.name,
            "seed": SEED,
            "least_loss": least_loss(KINDS[grid.name]),
            "versions": {"torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__},
            "backbones": backbones,
            "configs": _plain_configs(grid.space),
        },
    )


def known_arithmetic(grid: GridSet) -> dict[str, Arithmetic]:
    """Return what an earlier run computed in, by backbone; empty where there was none.

    Raises:
        ValueError: If the folder holds a grid of another space.
    """
    path = grid.folder / "grid.json"
    if not path.exists():
        return {}
    head = read_json(path)
    if head["configs"] != _plain_configs(grid.space):
        raise ValueError(f"{path} is of another space: name another folder")
    return {backbone: parse_arithmetic(each["arithmetic"]) for backbone, each in head["backbones"].items()}


def _plain_configs(space: Space) -> list[dict[str, Any]]:
    return [config.to_dict() for group in groups_of(space) for config in group.configs]


def fastest(config: TrialConfig, classes: int) -> Arithmetic:
    """Return the fastest arithmetic, which the cache remembers: a search that uses it computes in the same."""
    torch.set_num_threads(1)
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=None, activation_bytes=0)
    return fastest_arithmetic(config, classes, setup)


def train_grid(grid: GridSet, processes: int) -> None:
    """Train what is missing of a grid, whole groups a process: the probes, then the fine-tunes, the longest first."""
    pixels = prepare(grid)
    groups = groups_of(grid.space)
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        arithmetic = known_arithmetic(grid)
        if not arithmetic:
            classes = len(read_samples(grid.folder / "samples.parquet").classes)
            firsts = {group.key[0]: group.configs[0] for group in reversed(groups) if not group.is_probe}
            found = pool.map(fastest, firsts.values(), [classes] * len(firsts))
            arithmetic = dict(zip(firsts, found, strict=True))
            write_head(grid, arithmetic)
        order = order_of(grid, pixels, arithmetic)
        ranked = sorted(groups, key=lambda group: (group.key[2], -group.key[1]))
        for is_probe in (True, False):  # a fine-tune before its probe would find the features that the probe pays for
            mine = [group for group in ranked if group.is_probe == is_probe]
            for future in as_completed([pool.submit(train_group, order, group) for group in mine]):
                say(future.result())


def order_of(grid: GridSet, pixels: Path, arithmetic: Mapping[str, Arithmetic]) -> Order:
    """Return what the processes need to know."""
    weights = Path(grid.space.weights or "")
    return Order(folder=grid.folder, pixels=pixels, weights=weights, arithmetic=tuple(arithmetic.items()))


def summary(grid: Grid) -> list[dict[str, object]]:
    """Return, tier by tier, the best by OOF log-loss and what its fold models truly have: their loss on fresh rows."""
    lines: list[dict[str, object]] = []
    fresh = grid.fresh_losses.mean(axis=1)
    for tier in dict.fromkeys(grid.tiers):
        mine = np.array([place for place, each in enumerate(grid.tiers) if each == tier])
        best = int(mine[grid.oof_losses[mine].argmin()])
        lines.append({
            "tier": tier,
            "best": grid.configs[best].trial_id,
            "lr": None if grid.configs[best].is_probe else grid.configs[best].training.lr,
            "oof_log_loss": round(float(grid.oof_losses[best]), 4),
            "fresh_log_loss": round(float(fresh[best]), 4),
            "least_log_loss": round(grid.least_loss, 4),
            "wall_s": round(sum(grid.curves[place].total.wall for place in mine), 1),
            "cpu_s": round(sum(grid.curves[place].total.cpu for place in mine), 1),
            "plain_cpu_s": round(sum(grid.plain_seconds(int(place)).cpu for place in mine), 1),
        })  # fmt: skip
    return lines


def main(words: Sequence[str] | None = None) -> None:
    """Train a set's grid, or go on with it, and print the best of each tier."""
    parser = argparse.ArgumentParser(description="Train and store every configuration of a small space on one set.")
    parser.add_argument("--set", choices=tuple(KINDS))
    parser.add_argument("--out", type=Path, help="the grid lies in OUT/SET")
    parser.add_argument("--processes", type=int, default=2, help="one thread each; default: 2")
    parser.add_argument("--data-only", action="store_true", help="write the set's table and end")
    given = parse_words(parser, words, quick={"processes": 1}, needed=["set", "out"])
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the processes as they start
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) if given.quick else given.out
        os.environ.setdefault("SPINE_RAY_CACHE", str((out / "cache").resolve()))
        try:
            print_result(_made(given, out))
        except ValueError as error:
            parser.error(str(error))


def _made(given: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Make what the words ask for and return what there is to say of it."""
    if given.quick:
        from benchmarks.grid_tiny import tiny_grid  # which builds on this module

        grid = tiny_grid(out, tiers=1)
    else:
        grid = GridSet(given.set, out.resolve() / given.set, look_up([load_space(str(SPACE))])[0])
    if given.data_only:
        prepare(grid)
        return {"set": grid.name, "rows": len(read_samples(grid.folder / "samples.parquet").sample_ids)}
    train_grid(grid, given.processes)
    return {"set": grid.name, "tiers": summary(read_grid(grid.folder))}


if __name__ == "__main__":
    main()
