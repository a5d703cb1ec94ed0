"""How fast a search is: spine_ray, plain Ray Tune with timm, and the bare arithmetic, on the same trials.

    python -m benchmarks.throughput > throughput.json
    python -m benchmarks.throughput --backbones mobilenetv3_small_100 --rates 2e-3 --resolution 64 --repeats 1

Every run of a side is a process of its own, and its whole life is timed. Progress goes to stderr, JSON to stdout.
Nothing else may run beside it: other work falls on one side or the other, and `machine_cpu_seconds` shows it.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.comparison import (
    Run,
    against_bare,
    compare,
    group_name,
    images_s_over_bare,
    oof_log_loss,
    summary_of_side,
)
from benchmarks.fold_table import FoldTable, read_table
from benchmarks.results import parse_words, print_result, say
from benchmarks.sides import (
    EQUAL,
    SIDES,
    WORKERS,
    Order,
    Side,
    SideResult,
    logits_file,
    read_order,
    read_result,
    write_order,
    write_result,
)
from spine_ray.space.arithmetic import FLOAT32, Arithmetic, parse_arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe

ROOT = Path(__file__).parents[1]
SEED = 0
RESULT = "result.json"
STAT = Path("/proc/stat")
PARTNER: dict[Side, Side] = {"bare": "spine", "bare_equal": "spine_equal"}
"""Whose arithmetic a bare side has, and whose wall it is measured against."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mix:
    """What is trained, on what, and how often."""

    backbones: tuple[str, ...] = ("mobilenetv3_small_100", "resnet18", "vit_tiny_patch16_224")
    freezes: tuple[float, ...] = (0.0, 0.75)
    rates: tuple[float, ...] = (1e-3, 2e-3, 4e-3)
    resolution: int = 96
    epochs: int = 3
    folds: int = 3
    pictures: int = 600
    classes: int = 10
    repeats: int = 3
    loader_workers: int = 0
    reuse_actors: bool = False

    def trials(self) -> tuple[TrialConfig, ...]:
        """Every backbone at every freeze depth with every learning rate, else at the recipe for random weights."""
        return tuple(
            TrialConfig(
                backbone=backbone,
                resolution=self.resolution,
                freeze=freeze,
                recipe=replace(start_recipe("random"), epochs=self.epochs, lr=rate),
            )
            for backbone, freeze, rate in itertools.product(self.backbones, self.freezes, self.rates)
        )


QUICK = Mix(
    backbones=("test_resnet",),
    freezes=(0.75,),
    rates=(2e-3,),
    resolution=32,
    epochs=1,
    folds=2,
    pictures=40,
    classes=4,
    repeats=1,
)


@dataclass(slots=True)
class Runs:
    """What was measured so far."""

    trained: dict[Side, list[Run]] = field(default_factory=dict)
    bare_walls: dict[Side, list[float]] = field(default_factory=dict)
    bare_seconds: dict[Side, list[float]] = field(default_factory=dict)
    bare_images_s: dict[Side, list[dict[str, float]]] = field(default_factory=dict)
    machine_cpu: dict[Side, list[float | None]] = field(default_factory=dict)
    """CPU seconds of the whole machine during each run. A side's runs need about the same: more is other work."""
    arithmetic: dict[Side, dict[str, Arithmetic]] = field(default_factory=dict)
    """What the newest run of a side that trains computed in."""


def main() -> None:
    """Measure all sides in turn and print the comparison, or be one side."""
    given = parse_words(_parser(), quick={})
    if given.order:
        run_side(read_order(given.order))
        return
    mix = mix_of(given)
    sides: tuple[Side, ...] = tuple(given.sides) + (("spine_equal", "bare_equal") if given.equal else ())
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder.absolute() if given.folder else Path(name)
        _draw(folder, mix)
        runs = measure(mix, folder, sides, dict(given.arithmetic))
    print_result({"mix": asdict(mix), "workers": WORKERS, **report(mix.trials(), runs)})


def mix_of(given: argparse.Namespace) -> Mix:
    """Return the full or the quick mix with what was asked for instead."""
    names = ("backbones", "freezes", "rates", "resolution", "epochs", "pictures", "repeats", "loader_workers")
    changes = {name: value for name in names if (value := getattr(given, name)) is not None}
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in changes.items()}
    return replace(QUICK if given.quick else Mix(), reuse_actors=given.reuse_actors, **changes)


def measure(mix: Mix, folder: Path, sides: Sequence[Side], arithmetic: Mapping[str, Arithmetic]) -> Runs:
    """Run side after side, all of them once before any twice.

    Args:
        mix: What is trained.
        folder: Holds the pictures; the runs write beside them.
        sides: In this order.
        arithmetic: What the bare side computes in, by backbone; for others what the spine side chose.
    """
    table, runs = read_table(folder / "pictures"), Runs()
    for repeat, side in itertools.product(range(mix.repeats), sides):
        out = folder / f"{side}-{repeat}"
        out.mkdir()
        order = Order(
            side=side,
            trials=mix.trials(),
            folder=folder / "pictures",
            out=out,
            loader_workers=mix.loader_workers,
            reuse_actors=mix.reuse_actors,
            arithmetic=_bare_arithmetic(side, mix, runs, arithmetic),
        )
        before = machine_cpu_seconds()
        wall = time_side(order)
        after = machine_cpu_seconds()
        _keep(order, wall, table, runs)
        busy = None if before is None or after is None else round(after - before, 2)
        runs.machine_cpu.setdefault(side, []).append(busy)
        told = f"{wall:.1f} s, the whole machine's CPU {busy} s"
        say(f"{side}, run {repeat + 1} of {mix.repeats}: {told}")
    return runs


def time_side(order: Order) -> float:
    """Run a side in a process of its own and return the seconds of its whole life."""
    path = order.out / "order.json"
    write_order(order, path)
    environment = {**os.environ, "SPINE_RAY_CACHE": str(order.out / "cache")}
    command = [sys.executable, "-m", "benchmarks.throughput", "--side", order.side, "--order", str(path)]
    began = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)
    return time.perf_counter() - began


def machine_cpu_seconds() -> float | None:
    """Return the CPU seconds of all processes since the machine started; None where Linux does not say."""
    if not STAT.exists():
        return None
    user, nice, system, _, _, irq, softirq = (int(word) for word in STAT.read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def run_side(order: Order) -> None:
    """Be one side. Each imports what it needs itself, because its imports are part of its time."""
    path = order.out / RESULT
    if order.side == "plain":
        from benchmarks.plain_tune import run_plain

        write_result(run_plain(order), path)
    elif order.side in PARTNER:
        from benchmarks.bare_loop import run_bare
        from benchmarks.counts import work_of

        works = work_of(order.trials, read_table(order.folder))
        times = run_bare(works, order.arithmetic)
        pairs = list(zip(times, works, strict=True))
        images_s = {group_name(work.example): each.images_s(work) for each, work in pairs}
        path.write_text(json.dumps({"seconds": [each.seconds(work) for each, work in pairs], "images_s": images_s}))
    else:
        from benchmarks.spine_side import run_spine

        arithmetic = EQUAL if order.side == "spine_equal" else None
        write_result(run_spine(order.trials, order.folder, order.out, arithmetic), path)


def report(trials: Sequence[TrialConfig], runs: Runs) -> dict[str, Any]:
    """Return all numbers, those of sides that did not run left out."""
    said: dict[str, Any] = {side: summary_of_side(each) for side, each in runs.trained.items()}
    for side, walls in runs.bare_walls.items():
        said[side] = {"walls": walls, "median_wall": median(walls), "bare_seconds": runs.bare_seconds[side]}
    for side, seconds in runs.machine_cpu.items():
        said[side]["machine_cpu_seconds"] = seconds
    for side in ("spine", "spine_equal"):
        if side in runs.trained:
            said[side]["arithmetic"] = {name: str(each) for name, each in runs.arithmetic[side].items()}
            if "plain" in runs.trained:
                said[side]["against_plain"] = compare(trials, runs.trained["plain"], runs.trained[side])
    for bare, side in PARTNER.items():
        for trained in ("plain", side):
            if bare in runs.bare_seconds and trained in runs.trained:
                told = against_bare(runs.trained[trained], runs.bare_seconds[bare])
                said[trained][f"against_{bare}"] = told
        if runs.bare_images_s.get(bare) and side in runs.trained:
            share = images_s_over_bare(trials, runs.trained[side], runs.bare_images_s[bare])
            said[side][f"images_s_over_{bare}"] = share
    return said


def _draw(folder: Path, mix: Mix) -> FoldTable:
    from benchmarks.jpegs import write_jpegs  # only the parent draws

    pictures = folder / "pictures"
    return write_jpegs(pictures, pictures=mix.pictures, classes=mix.classes, folds=mix.folds, seed=SEED)


def _bare_arithmetic(side: Side, mix: Mix, runs: Runs, asked: Mapping[str, Arithmetic]) -> dict[str, Arithmetic]:
    if side == "bare_equal":
        return dict.fromkeys(mix.backbones, EQUAL)
    return {**dict.fromkeys(mix.backbones, FLOAT32), **runs.arithmetic.get("spine", {}), **asked}


def _keep(order: Order, wall: float, table: FoldTable, runs: Runs) -> None:
    """Read what a side wrote."""
    path = order.out / RESULT
    if order.side in PARTNER:
        # Seconds of one thread, spread over the workers without a gap.
        said = json.loads(path.read_text())
        runs.bare_seconds.setdefault(order.side, []).append(sum(said["seconds"]) / WORKERS)
        runs.bare_images_s.setdefault(order.side, []).append(said["images_s"])
        runs.bare_walls.setdefault(order.side, []).append(wall)
        return
    result: SideResult = read_result(path)
    files = {trial.trial_id: logits_file(order.out, trial) for trial in order.trials}
    losses = {name: oof_log_loss(np.load(file), table.labels) for name, file in files.items()}
    run = Run(wall=wall, seconds=result.seconds, losses=losses, images_s=result.images_s)
    runs.trained.setdefault(order.side, []).append(run)
    runs.arithmetic[order.side] = dict(result.arithmetic)


def _backbone_arithmetic(text: str) -> tuple[str, Arithmetic]:
    backbone, _, words = text.partition("=")
    return backbone, parse_arithmetic(words.replace(",", " "))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare spine_ray with plain Ray Tune and with bare arithmetic.")
    parser.add_argument("--equal", action="store_true", help="spine_ray once more in float32, contiguous, each repeat")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["plain", "spine", "bare"])
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--backbones", nargs="+")
    parser.add_argument("--freezes", nargs="+", type=float)
    parser.add_argument("--rates", nargs="+", type=float)
    parser.add_argument("--resolution", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--loader-workers", type=int, help="processes of each loader of the plain side")
    parser.add_argument("--reuse-actors", action="store_true", help="Ray Tune keeps the plain side's processes")
    parser.add_argument(
        "--arithmetic",
        nargs="+",
        type=_backbone_arithmetic,
        default=[],
        metavar="BACKBONE=PRECISION,FORMAT",
        help="what the bare side computes in; default: what spine_ray chose",
    )
    parser.add_argument("--folder", type=Path, help="an empty folder to keep everything in; default: a temporary one")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--order", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
