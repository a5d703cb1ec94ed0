"""How well the audit tells near copies from likenesses, and what it costs: `python -m benchmarks.near_copies`.

False pairs are counted on scans and textures in which nothing is a copy, true ones on altered copies of pieces of two
photographs and of textures. Then 20,000 generated pictures are written, looked at and judged.
"""

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.copies import ALTERED, pieces, source_of, textures
from benchmarks.results import parse_words, print_result, say
from benchmarks.textures import drawings, picture
from spine_ray.data.audit import audit
from spine_ray.data.digits import digits_source
from spine_ray.data.evidence import Evidence
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.likeness import print_of
from spine_ray.data.limits import AuditLimits
from spine_ray.data.near import find_near_copies
from spine_ray.data.sources import open_source

SIDE = 48


def groups_of(images: list[Image.Image]) -> tuple[tuple[int, ...], ...]:
    return find_near_copies(inspect_source(source_of(images)), AuditLimits()).groups()


def digits(side: int) -> list[Image.Image]:
    source = digits_source()
    scans = [Image.open(io.BytesIO(source.read(row))) for row in range(len(source.rows))]
    return [scan.resize((side, side), Image.Resampling.BICUBIC) if side > 8 else scan for scan in scans]


def likeness(most: int | None) -> dict[str, Any]:
    """Return how many pictures are grouped though none is a copy, and how many altered copies are found.

    Args:
        most: Pictures of each set; None for all.
    """
    sets = {f"digits at {side} px": digits(side)[:most] for side in (8, 32, 64)}
    sets |= {
        "textures at 48 px": textures(fewer(3000, most), 48, 48),
        "textures at 96 px": textures(fewer(1500, most), 96, 96),
        "pieces": pieces()[:most],
    }
    false_pairs = {}
    for name, images in sets.items():
        grouped = sum(map(len, groups_of(images)))
        false_pairs[name] = {"pictures": len(images), "grouped": grouped}
        say(f"{name}: {grouped} of {len(images)} pictures in groups, though none is a copy")
    originals = {"pieces": pieces()[:most], "textures": textures(fewer(436, most), 64, 64)}
    found = {
        name: {what: found_copies(images, alter) for what, alter in ALTERED.items()}
        for name, images in originals.items()
    }
    return {"no_copies": false_pairs, "altered_copies": found}


def fewer(number: int, most: int | None) -> int:
    return number if most is None else min(number, most)


def found_copies(originals: list[Image.Image], alter: Callable[[Image.Image], Image.Image]) -> dict[str, float]:
    """Return the share of altered copies that are grouped with their originals alone, and the other groups."""
    images = [image for image in originals if print_of(image)]
    groups = groups_of([*images, *map(alter, images)])
    true = sum(group == (group[0], group[0] + len(images)) for group in groups)
    return {"pictures": len(images), "found": round(true / len(images), 4), "false_groups": len(groups) - true}


def cost(folder: Path, pictures: int) -> dict[str, Any]:
    """Write generated pictures, look at them, judge them, and return the seconds that it took."""
    rng, names = np.random.default_rng(0), list(drawings().items())
    for index in range(pictures):
        name, draw = names[index % len(names)]
        (folder / name).mkdir(exist_ok=True)
        suffix = ("png", "jpg")[index // len(names) % 2]
        Image.fromarray(picture(draw, rng, SIDE)).save(folder / name / f"{index:05d}.{suffix}")
    source, limits = open_source(str(folder)), AuditLimits()
    began = [time.perf_counter()]
    inspection = inspect_source(source)
    began.append(time.perf_counter())
    near = find_near_copies(inspection, limits)
    began.append(time.perf_counter())
    samples = build_samples(inspection, near=near.links)
    audit(Evidence(inspection=inspection, samples=samples, near=near, limits=limits, resolutions=(224,)))
    began.append(time.perf_counter())
    looked, compared, judged = (round(float(each), 2) for each in np.diff(began))
    return {
        "pictures": pictures,
        "side": SIDE,
        "inspection_s": looked,
        "near_copies_s": compared,
        "dealing_and_judging_s": judged,
        "near_copies": len(near.links),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure the cost, then count what is found."""
    parser = argparse.ArgumentParser(description="How well near copies are told from likenesses, and what it costs.")
    parser.add_argument("--pictures", type=int, default=20_000, help="whose cost is measured")
    parser.add_argument("--most", type=int, help="pictures of each set that is searched for copies; default: all")
    given = parse_words(parser, quick={"pictures": 1100, "most": 24})
    with tempfile.TemporaryDirectory() as folder:
        found = cost(Path(folder), given.pictures)
    say(json.dumps(found))
    print_result({"cost": found, **likeness(given.most)})


if __name__ == "__main__":
    main()
