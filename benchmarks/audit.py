"""What happens before the first trial, phase by phase, in seconds: `python -m benchmarks.audit`.

Looking at every picture, the search for near copies, dealing the rows into folds, the findings, and decoding all
pictures once: on generated small pictures (PNG with transparency and JPEG by turns) and on the built-in sample, or on
any data with `--data`. Then what the command loads before it does any of that.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from benchmarks.results import parse_words, print_result, say
from benchmarks.textures import drawings, picture
from spine_ray.core.pixels import build_pixels
from spine_ray.data.audit import audit
from spine_ray.data.digits import digits_source
from spine_ray.data.evidence import Evidence
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.limits import AuditLimits
from spine_ray.data.near import find_near_copies
from spine_ray.data.rows import Source
from spine_ray.data.sources import open_source

ROOT = Path(__file__).parents[1]
SIDE, RESOLUTION, FOLDS = 64, 64, 5
LOADED = {
    "search_help": ["-m", "spine_ray.search", "--help"],
    "audit": ["-c", "import spine_ray.data.audit, spine_ray.data.near, spine_ray.data.sources"],
    "search": ["-c", "import spine_ray.climb.search, spine_ray.climb.words, spine_ray.show.terminal"],
    "worker": ["-c", "import spine_ray.workers.tasks"],
}
"""By what is loaded, the words of a Python that loads it and ends."""
Found = TypeVar("Found")


class Clock:
    """Takes the time of phases, by their names."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = {}

    def timed(self, phase: str, run: Callable[[], Found]) -> Found:
        """Run a phase; keep its wall time and the time of all cores."""
        wall, cores = time.perf_counter(), time.process_time()
        found = run()
        self.seconds[phase] = {
            "wall_s": round(time.perf_counter() - wall, 3),
            "cpu_s": round(time.process_time() - cores, 3),
        }
        return found


def write_pictures(folder: Path, pictures: int) -> None:
    """Write class folders of generated pictures, half of them PNG with transparency, half JPEG."""
    rng, names = np.random.default_rng(0), list(drawings().items())
    for index in range(pictures):
        name, draw = names[index % len(names)]
        (folder / name).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(picture(draw, rng, SIDE))
        if index // len(names) % 2:
            image.save(folder / name / f"{index:06d}.jpg", quality=90)
        else:
            image.putalpha(Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), np.uint8)))
            image.save(folder / name / f"{index:06d}.png")


def phases(open_rows: Callable[[], Source]) -> dict[str, Any]:
    """Return the seconds of each phase, and what was found, by which two versions can be compared."""
    clock, limits = Clock(), AuditLimits()
    source = clock.timed("source", open_rows)
    inspection = clock.timed("inspection", lambda: inspect_source(source))
    near = clock.timed("near_copies", lambda: find_near_copies(inspection, limits))
    samples = clock.timed("dealing", lambda: build_samples(inspection, folds=FOLDS, near=near.links))
    evidence = Evidence(inspection=inspection, samples=samples, near=near, limits=limits, resolutions=(RESOLUTION,))
    found = clock.timed("findings", lambda: audit(evidence))
    rows = source.locate(samples.paths)
    clock.timed(
        "decoding", lambda: build_pixels(lambda row: source.read(int(rows[row])), samples.sample_ids, RESOLUTION)
    )
    total = {unit: round(sum(phase[unit] for phase in clock.seconds.values()), 3) for unit in ("wall_s", "cpu_s")}
    return {
        "pictures": len(source.rows),
        "near_links": len(near.links),
        "found": digest([found.to_dict(), near.links, near.crowds, samples.fold_fingerprint]),
        "phases": clock.seconds,
        "total": total,
    }


def digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def loading(repeats: int) -> dict[str, dict[str, float]]:
    """Return the seconds of Python processes that load what a command needs, and do nothing: medians of several."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADED}
    for _ in range(repeats):
        for name, words in LOADED.items():
            wall, cores = time.perf_counter(), cpu_of_children()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            seconds[name].append((time.perf_counter() - wall, cpu_of_children() - cores))
    return {
        name: {
            "wall_s": round(median(wall for wall, _ in pairs), 3),
            "cpu_s": round(median(cpu for _, cpu in pairs), 3),
        }
        for name, pairs in seconds.items()
    }


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Time the phases on generated pictures or given data, on the sample, and the loading."""
    parser = argparse.ArgumentParser(description="The seconds before the first trial, phase by phase.")
    parser.add_argument("--pictures", type=int, default=7570, help="generated ones")
    parser.add_argument("--data", help="a folder or table as the search takes it, instead of generated pictures")
    parser.add_argument("--repeats", type=int, default=3, help="processes whose loading is timed")
    args = parse_words(parser, quick={"pictures": 1100, "repeats": 1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPINE_RAY_CACHE"] = str(folder / "cache")
        if args.data is None:
            say(f"drawing {args.pictures} pictures")
            write_pictures(folder / "pictures", args.pictures)
        found = {"pictures": phases(lambda: open_source(args.data or str(folder / "pictures")))}
        say(json.dumps(found["pictures"]))
        found["digits"] = phases(digits_source)
        say(json.dumps(found["digits"]))
    print_result({**found, "loading_s": loading(args.repeats)})


if __name__ == "__main__":
    main()
