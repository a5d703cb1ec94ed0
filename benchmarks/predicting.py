"""How fast predicting is beside the bare forward passes it needs, and whether memory stays flat.

    python -m benchmarks.predicting > predicting.json
    python -m benchmarks.predicting --pictures 200 --tiny 2000

Four members with random weights, two of which share a frozen prefix (computed once on both sides); JPEGs of a few
hundred pixels that are read, decoded, cut, normalised, predicted, pooled and written as Parquet. The bare side has the
views of one block in memory and does nothing but forward passes: in one thread for every core, and in one
with all cores inside; the faster counts. Sides take turns. Then 50,000 tiny pictures, and the memory in between.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.jpegs import write_jpegs
from benchmarks.results import parse_words, print_result, say
from spine_ray.core.arithmetic import autocast
from spine_ray.core.network import Network, Setup
from spine_ray.core.ship import trained_arrays
from spine_ray.data.albums import Album, Picture, open_album
from spine_ray.ensemble.mix import Mix
from spine_ray.ship.artefact import Artefact, Member
from spine_ray.ship.run import Predictor
from spine_ray.ship.stream import Pace, default_device
from spine_ray.ship.table import open_table
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe

CLASSES = tuple(f"class {number}" for number in range(10))
Models = tuple[tuple[str, float, float], ...]
"""Backbone, freeze depth, times the start's learning rate, which only makes another trial of it."""
MIX: Models = (
    ("resnet18", 0.75, 1.0),
    ("resnet18", 0.75, 2.0),
    ("mobilenetv3_small_100", 0.0, 1.0),
    ("vit_tiny_patch16_224", 0.0, 1.0),
)
QUICK: Models = (
    ("test_resnet", 0.75, 1.0),
    ("test_resnet", 0.75, 2.0),
    ("test_efficientnet", 0.0, 1.0),
    ("test_vit", 0.0, 1.0),
)
TINY_PX = 8


class RandomTensors:
    """Members as they are drawn: what they say is of no account here."""

    def initial(self, member: Member) -> None:
        return None

    def fitted(self, member: Member) -> dict[str, np.ndarray]:
        return trained_arrays(network_of(member).model)


def setup() -> Setup:
    return Setup(device=default_device(), arithmetic=FLOAT32, weights=None, activation_bytes=0)


def network_of(member: Member) -> Network:
    return Network(member.config, len(CLASSES), 0, setup())


def artefact_of(models: Models, resolution: int) -> Artefact:
    members = []
    for backbone, freeze, factor in models:
        recipe = start_recipe("random")
        recipe = replace(recipe, lr=factor * recipe.lr)
        config = TrialConfig(backbone=backbone, resolution=resolution, freeze=freeze, recipe=recipe)
        members.append(Member(config=config, arithmetic=FLOAT32, family="", weights_source="random", licence="unknown"))
    share = 1.0 / len(members)
    mix = Mix(weights=(share,) * len(members), temperatures=(1.0,) * len(members), pool="log", final_temperature=1.0)
    side = -(-resolution * 13 // 10)
    return Artefact(classes=CLASSES, seed=0, stored_side=side, members=tuple(members), mix=mix)


class Bare:
    """Forward passes over views that are there already; a shared prefix once."""

    def __init__(self, artefact: Artefact, rows: int) -> None:
        networks = [network_of(member) for member in artefact.members]
        side = artefact.members[0].config.resolution
        self._images = networks[0].images(torch.randint(0, 256, (rows, 3, side, side)).to(torch.uint8))
        self._parts = [(network.prefix_hash(), network.trained_part) for network in networks]
        self._prefixes = {network.prefix_hash(): network.split.prefix for network in networks if network.split}
        self._rows = rows

    def images_s(self, at_once: int, threads: int, blocks: int) -> float:
        """Return images a second with so many blocks at once, of so many torch threads each."""
        torch.set_num_threads(threads)
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self._pass, range(at_once)))
            began = time.perf_counter()
            list(pool.map(self._pass, range(blocks)))
            return blocks * self._rows / (time.perf_counter() - began)

    def _pass(self, _: int) -> None:
        with torch.inference_mode(), autocast(FLOAT32, setup().device):
            known = {name: prefix(self._images) for name, prefix in self._prefixes.items()}
            for name, part in self._parts:
                part(known[name] if name else self._images).cpu()


def predict_images_s(predictor: Predictor, album: Album, out: Path) -> float:
    """Return images a second from files to a table."""
    began, rows = time.perf_counter(), 0
    with open_table(out, CLASSES) as table:
        for block in predictor.predict(album):
            table.write(block)
            rows += len(block.names)
    return rows / (time.perf_counter() - began)


def speed(models: Models, pictures: int, resolution: int, repeats: int) -> dict[str, Any]:
    """Return images a second of both sides, turn by turn, and the ratio of the medians."""
    artefact, pace = artefact_of(models, resolution), Pace.of(default_device())
    predictor, bare = Predictor(artefact, RandomTensors()), Bare(artefact, pace.block)
    cores, blocks = os.cpu_count() or 1, max(2, pictures // pace.block)
    found: dict[str, list[float]] = {"predict": [], "bare, a block a core": [], "bare, all cores in a block": []}
    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder) / "pictures", pictures=pictures, classes=4, folds=2, seed=0)
        album, out = open_album(f"{folder}/pictures"), Path(folder) / "out.parquet"
        for _ in range(repeats):
            found["bare, a block a core"].append(bare.images_s(cores, 1, blocks))
            found["bare, all cores in a block"].append(bare.images_s(1, cores, blocks))
            found["predict"].append(predict_images_s(predictor, album, out))
    medians = {name: median(values) for name, values in found.items()}
    bare_best = max(value for name, value in medians.items() if name != "predict")
    return {"images_s": found, "medians": medians, "predict_over_bare": medians["predict"] / bare_best}


def memory(models: Models, tiny: int) -> dict[str, Any]:
    """Return the resident memory while many tiny pictures go through, MB."""
    contents = []
    for seed in range(64):
        buffer = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, (TINY_PX, TINY_PX, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "PNG")
        contents.append(buffer.getvalue())

    def pictures() -> Iterator[Picture]:
        for row in range(tiny):
            yield Picture(f"{row}.png", partial(contents.__getitem__, row % len(contents)))

    artefact = artefact_of(models[2:3], 32)
    predictor, seen, done = Predictor(artefact, RandomTensors()), [], 0
    with tempfile.TemporaryDirectory() as folder, open_table(Path(folder) / "out.parquet", CLASSES) as table:
        for block in predictor.predict(Album("tiny", tiny, pictures)):
            table.write(block)
            done += len(block.names)
            if done % (tiny // 10) < len(block.names):
                seen.append((done, round(resident_mb(), 1)))
    return {"pictures": done, "resident_mb": seen, "growth_mb": round(seen[-1][1] - seen[0][1], 1)}


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=640)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", type=int, default=50_000)
    given = parse_words(parser, quick={"pictures": 24, "resolution": 32, "repeats": 1, "tiny": 200})
    models = QUICK if given.quick else MIX
    found = {"speed": speed(models, given.pictures, given.resolution, given.repeats)}
    say(json.dumps(found))
    print_result({**found, "memory": memory(models, given.tiny)})


if __name__ == "__main__":
    main()
