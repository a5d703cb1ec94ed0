"""How much memory a search over many pictures takes, in all of its processes together, page cache aside (Linux).

python -m benchmarks.footprint --pictures 20000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results import parse_words, print_result
from benchmarks.textures import drawings, picture

SIDE, CLASSES = 64, 10
SPACE = """
folds: 3
weights: random
resolution: 48
freeze: [0.0, 0.75, 1.0]
trials: 4
recipe:
  epochs: 2
  lr: {around_start: 3}
tiers:
  light:
    backbone: [test_resnet, test_vit]
"""
QUICK = (
    f"weights={Path(__file__).parents[1] / 'search_spaces' / 'small_weights'}",
    "tiers.light.backbone=[test_resnet]",
    "trials=1",
    "resolution=32",
    "recipe.epochs=1",
)
PAUSE_S = 0.5
_PRIVATE = ("Pss_Anon", "Pss_Shmem")
"""What is not a page of a file; shared pages are divided among those that share them."""


def main() -> None:
    """Draw the pictures, search, and print the peak as JSON."""
    parser = argparse.ArgumentParser(description="Measure the memory of a search.")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--workers", help="as the search takes it; default: the search's own")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as the search takes it")
    given = parse_words(parser, quick={"pictures": 200, "workers": "2", "set": QUICK})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw(folder / "pictures", given.pictures)
        (folder / "footprint.yaml").write_text(SPACE)
        words = ["--space", str(folder / "footprint.yaml"), "--data", str(folder / "pictures")]
        words += ["--study", str(folder / "study"), "--set", "recipe.crop_area_min=0.8"]
        words += [word for each in given.set for word in ("--set", each)]
        words += ["--workers", given.workers] if given.workers else []
        began = time.perf_counter()
        with subprocess.Popen([sys.executable, "-m", "spine_ray.search", *words], stdout=sys.stderr) as search:
            peak = watch(search)
        seconds = time.perf_counter() - began
    if search.returncode:
        sys.exit(f"the search ended with {search.returncode}")
    told = {"pictures": given.pictures, "seconds": round(seconds, 1)}
    print_result({**told, "peak_mb": round(sum(peak.values())), "at_peak": dict(peak)})


def draw(folder: Path, pictures: int) -> None:
    """Write small JPEGs in class folders: some hundred drawings a class, each with a noise of its own."""
    rng = np.random.default_rng(0)
    kinds = dict(list(drawings().items())[:CLASSES])
    for name, kind in kinds.items():
        (folder / name).mkdir(parents=True)
        drawn = [picture(kind, rng, SIDE).astype(np.int16) for _ in range(min(200, pictures // CLASSES))]
        for number in range(pictures // CLASSES):
            noisy = drawn[number % len(drawn)] + rng.integers(-20, 21, (SIDE, SIDE, 1))
            Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.jpg")


def watch(search: "subprocess.Popen[bytes]") -> dict[str, int]:
    """Return MB by kind of process at the moment when all together took most."""
    peak: dict[str, int] = {}
    while search.poll() is None:
        now: dict[str, int] = defaultdict(int)
        for pid in descendants(search.pid):
            name, size = private_mb(pid)
            now[name] += size
        if sum(now.values()) > sum(peak.values()):
            peak = dict(now)
        time.sleep(PAUSE_S)
    return peak


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started, directly or not."""
    children: dict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
        children[parent].append(int(status.parent.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children[found[-1]]
    return found


def private_mb(pid: int) -> tuple[str, int]:
    """Return a process's name and what it takes of memory beside files, MB; nothing if it has just ended."""
    folder = Path(f"/proc/{pid}")
    try:
        lines = (folder / "smaps_rollup").read_text().splitlines()
        name = (folder / "comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "ended", 0
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith(_PRIVATE))
    return name, round(kilobytes * 1024 / 1e6)


if __name__ == "__main__":
    main()
