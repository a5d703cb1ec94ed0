"""How long the selector takes and how much memory, beside AutoGluon's `EnsembleSelection`, on made-up models.

    python -m benchmarks.selector > selector.json
    python -m benchmarks.selector --autogluon ../autogluon-env
    python -m benchmarks.selector --parts log whole --members 100 --samples 5000

`screen` is the greedy search on true-class probabilities, `log` the one in the log pool, `whole` a selection with its
cross-fitted report. Each part is a process of its own on one thread, so that the peaks of memory are separate. JSON
goes to stdout, progress to stderr.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from spine_ray.ensemble import select
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.greedy import Rules, Traits, Way, pose, walk
from spine_ray.ensemble.objective import OBJECTIVES
from spine_ray.ensemble.pool import FLOOR, floored
from spine_ray.ensemble.price import as_cost

ROOT = Path(__file__).parents[1]
AUTOGLUON = "autogluon.core==1.6.3"
HINT = f"name --autogluon DIR, or `pip install {AUTOGLUON}` in an environment of its own and run this with its python"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
FAMILIES, FOLDS, SEED = 8, 5, 0
SCREEN_STEPS, LOG_STEPS = 40, 25
REPEATS = 3
FULL_CANDIDATES, FULL_STEPS = 20, 3
"""Of AutoGluon's own log-loss on all classes: each candidate of each step costs the same, so the rest is multiplied."""
MICRO = 1e6
"""AutoGluon rounds scores to six decimals; in millionths of a nat that decides nothing."""
PAUSE_S = 0.02

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much is selected from."""

    members: int
    samples: int
    classes: int


SIZES = {
    "screen": Size(members=1000, samples=50_000, classes=10),
    "log": Size(members=64, samples=50_000, classes=100),
    "whole": Size(members=1000, samples=50_000, classes=10),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cohort:
    """Made-up models on the same rows: what is hard is hard for all, and members of a family err together."""

    labels: npt.NDArray[np.int64]
    """(samples,)."""
    margin: Floats
    """(samples,), how far a row's label stands out, in logits."""
    common: Floats
    """(families, samples, classes), the errors of all members of a family; a part of them is that of all families."""

    def logits(self, member: int) -> Floats:
        """Return a member's logits, (samples, classes): its skill, its own errors and how loud it is are drawn."""
        rng = np.random.default_rng((SEED, member))
        skill, loudness = rng.uniform(0.75, 1.0), rng.uniform(0.5, 2.0)
        logits = rng.standard_normal(self.common.shape[1:], np.float32)
        logits *= np.float32(rng.uniform(0.3, 0.8))
        logits += self.common[member % FAMILIES]
        logits[np.arange(len(self.labels)), self.labels] += np.float32(skill) * self.margin
        logits *= np.float32(loudness)
        return logits


def cohort(samples: int, classes: int) -> Cohort:
    """Draw what made-up models have in common."""
    rng = np.random.default_rng(SEED)
    for_all = rng.standard_normal((samples, classes), np.float32)
    common = rng.standard_normal((FAMILIES, samples, classes), np.float32)
    common *= np.float32(0.7)
    common += np.float32(0.7) * for_all
    margin = rng.normal(2.0 + np.log(classes) / 2.0, 1.5, samples).astype(np.float32)
    return Cohort(labels=rng.integers(0, classes, samples), margin=margin, common=common)


def main() -> None:
    """Run the parts, each in a process of its own, and print what they say as JSON."""
    parser = argparse.ArgumentParser(description="Time the selector and measure its memory.")
    parser.add_argument("--parts", nargs="+", choices=tuple(SIZES), default=list(SIZES))
    parser.add_argument("--members", type=int, help="default: 1000, and 64 in the log pool")
    parser.add_argument("--samples", type=int, help="default: 50000")
    parser.add_argument("--pool", choices=("log", "prob", "auto"), default="log", help="of the whole selection")
    parser.add_argument("--autogluon", type=Path, metavar="DIR", help=f"environment with {AUTOGLUON}; made if missing")
    parser.add_argument("--inside", nargs=2, metavar=("STEP", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    given_sizes = {"members": given.members, "samples": given.samples}
    changes = {name: value for name, value in given_sizes.items() if value is not None}
    sizes = {part: replace(SIZES[part], **changes) for part in given.parts}
    if given.inside:
        step, folder = given.inside
        told = INSIDE[step](sizes[given.parts[0]], Path(folder), given.pool)
        print(json.dumps({"numpy": np.__version__, **told}))
        return
    python = environment(given.autogluon) if given.autogluon else Path(sys.executable)
    parts = {part: outside(part, size, given.pool, python) for part, size in sizes.items()}
    print(json.dumps({"python": sys.version.split()[0], "threads": 1, **parts}, indent=1))


def environment(folder: Path) -> Path:
    """Return the python of an environment that has AutoGluon's core, made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", AUTOGLUON], check=True, stdout=sys.stderr)
    return python


def outside(part: str, size: Size, pool: str, python: Path) -> dict[str, Any]:
    """Run one part in processes of its own: one that writes the logits, where it reads them, and the part itself."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--parts", part, "--members", str(size.members), "--samples", str(size.samples), "--pool", pool]
        told: dict[str, Any] = {}
        for step in (part,) if part == "screen" else ("write", part):
            print(f"{step} {size}", file=sys.stderr)
            command = [str(python if part == "screen" else sys.executable), "-m", "benchmarks.selector", *words]
            variables = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(ROOT)}
            done = subprocess.run(
                [*command, "--inside", step, folder], env=variables, cwd=ROOT, stdout=subprocess.PIPE, check=True
            )
            told = json.loads(done.stdout)
    return {**asdict(size), **told}


def write(size: Size, folder: Path, _: str) -> dict[str, Any]:
    """Write the labels and the logits, one member at a time."""
    made = cohort(size.samples, size.classes)
    np.save(folder / "labels.npy", made.labels)
    with (folder / "logits.npy").open("wb") as file:
        shape = (size.members, size.samples, size.classes)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for member in range(size.members):
            made.logits(member).tofile(file)
    return {}


def screen(size: Size, _: Path, __: str) -> dict[str, Any]:
    """Time the search on true-class probabilities, the reading of them, a plain loop and AutoGluon."""
    made = cohort(size.samples, size.classes)
    matrix = np.empty((size.members, size.samples), np.float32)
    for member in range(size.members):
        matrix[member] = np.maximum(probabilities(made, member)[np.arange(size.samples), made.labels], FLOOR)
    rules = Rules(max_members=SCREEN_STEPS, max_steps=SCREEN_STEPS, tie_band=0.0)
    ours = [timed(lambda: posed_and_walked(matrix, rules)) for _ in range(REPEATS)]
    best, (posing, way) = min(ours, key=lambda run: run[0])
    reading = min(read_once_a_step(matrix, len(way.picks)) for _ in range(REPEATS))
    plain_seconds, plain = timed(lambda: plain_loop(matrix, len(way.picks)))
    return {
        "steps": len(way.picks),
        "members_picked": len(set(way.picks)),
        "seconds": best,
        "seconds_of_each": [seconds for seconds, _ in ours],
        "of_which_scoring_each_alone": posing,
        "reading": "matrix @ vector, once a step",
        "reading_seconds": reading,
        "seconds_over_reading": best / reading,
        "plain_loop_seconds": plain_seconds,
        "plain_loop_over_ours": plain_seconds / best,
        "same_members_as_plain_loop": list(way.picks) == plain,
        "autogluon": beside_autogluon(made, matrix, list(way.picks), best),
    }


def posed_and_walked(matrix: Floats, rules: Rules) -> tuple[float, Way]:
    """Search, and return the seconds that scoring each candidate alone took, and the way."""
    members = len(matrix)
    traits = Traits(families=("any",) * members, resolutions=(1,) * members, costs=(as_cost(0.0),) * members)
    seconds, problem = timed(lambda: pose(matrix[:, None, :], OBJECTIVES["prob"], traits, rules, matrix.shape[1]))
    return seconds, walk(problem)


def read_once_a_step(matrix: Floats, steps: int) -> float:
    """Return the seconds that the cheapest use of every number once a step takes."""
    vector = np.ones(matrix.shape[1], np.float32)
    began = time.perf_counter()
    for _ in range(steps):
        matrix @ vector
    return time.perf_counter() - began


def plain_loop(matrix: Floats, steps: int) -> list[int]:
    """Return the picks of a search that computes every candidate in every step."""
    total, picks = np.zeros(matrix.shape[1]), []
    for step in range(steps):
        losses = [-np.log((total + row) / (step + 1)).mean() for row in matrix]
        picks.append(int(np.argmin(losses)))
        total += matrix[picks[-1]]
    return picks


def beside_autogluon(made: Cohort, matrix: Floats, picks: list[int], seconds: float) -> dict[str, Any]:
    """Return AutoGluon's times, what they are of ours, and whether it picks the same members."""
    if importlib.util.find_spec("autogluon") is None:
        return {"missing": HINT}
    metrics = importlib.import_module("autogluon.core.metrics")
    true_class = metrics.make_scorer(
        "true_class", true_class_loss, optimum=0, greater_is_better=False, needs_proba=True
    )
    micro = metrics.make_scorer("micro", micro_loss, optimum=0, greater_is_better=False, needs_proba=True)
    anything = np.zeros(matrix.shape[1], np.int64)
    loop_seconds, found = timed(lambda: autogluon_picks("binary", true_class, matrix, anything, len(picks)))
    unrounded = autogluon_picks("binary", micro, matrix, anything, len(picks))
    full = [probabilities(made, member) for member in range(min(FULL_CANDIDATES, len(matrix)))]
    full_seconds, _ = timed(lambda: autogluon_picks("multiclass", metrics.log_loss, full, made.labels, FULL_STEPS))
    scaled = full_seconds * len(matrix) * len(picks) / (len(full) * FULL_STEPS)
    return {
        "version": importlib.metadata.version("autogluon.core"),
        "true_class_seconds": loop_seconds,
        "true_class_over_ours": loop_seconds / seconds,
        "same_members": found == picks,
        "same_members_for_so_many_steps": same_until(found, picks),
        "same_members_without_its_rounding": unrounded == picks,
        "all_classes_timed": f"{len(full)} candidates, {FULL_STEPS} steps, multiplied",
        "all_classes_seconds": scaled,
        "all_classes_over_ours": scaled / seconds,
    }


def autogluon_picks(
    problem: str, metric: Any, predictions: Sequence[Floats] | Floats, labels: npt.NDArray[np.int64], steps: int
) -> list[int]:
    """Return all picks of AutoGluon's search, not only the best prefix."""
    module = importlib.import_module("autogluon.core.models.greedy_ensemble.ensemble_selection")
    selection = module.EnsembleSelection(ensemble_size=steps, problem_type=problem, metric=metric)
    selection.use_best = False
    selection.fit(list(predictions), labels)
    return [int(index) for index in selection.indices_]


def true_class_loss(_: npt.NDArray[Any], truth: npt.NDArray[np.float64]) -> float:
    """Return the log-loss, nats, given the probability of the label; a metric as AutoGluon calls it."""
    return float(-np.log(truth).mean())


def micro_loss(labels: npt.NDArray[Any], truth: npt.NDArray[np.float64]) -> float:
    """Return the same in millionths of a nat."""
    return MICRO * true_class_loss(labels, truth)


def same_until(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many picks are the same from the start."""
    return next((step for step, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]), len(first))


def log(size: Size, folder: Path, _: str) -> dict[str, Any]:
    """Time the search in the log pool on calibrated logits, and what comes before it."""
    logits, labels = np.load(folder / "logits.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    with Memory() as memory:
        fitting, temperatures = timed(lambda: [fit_temperature(block, labels) for block in logits])
        encoding, encodings = timed(lambda: encoded(logits, labels, temperatures))
        rules = Rules(max_steps=LOG_STEPS)
        posing, problem = timed(lambda: pose(encodings, OBJECTIVES["log"], traits(size), rules, size.samples))
        walking, way = timed(lambda: walk(problem))
    return {
        "steps": len(way.picks),
        "members_picked": len(set(way.picks)),
        "seconds": encoding + posing + walking,
        "of_which_encoding": encoding,
        "of_which_scoring_each_alone": posing,
        "of_which_searching": walking,
        "temperatures_seconds": fitting,
        "logits_mb": logits.nbytes / 1e6,
        **memory.told(),
    }


def encoded(logits: Floats, labels: npt.NDArray[np.int64], temperatures: Sequence[float]) -> Floats:
    """Return calibrated logits as the log pool's search reads them, (members, classes + 1, samples)."""
    members, samples, classes = logits.shape
    encodings = np.empty((members, classes + 1, samples), np.float32)
    for place, (block, temperature) in enumerate(zip(logits, temperatures, strict=True)):
        encodings[place] = OBJECTIVES["log"].encode(floored(log_probs(block, temperature)), labels)
    return encodings


def whole(size: Size, folder: Path, pool: Any) -> dict[str, Any]:
    """Time a selection with its cross-fitted report."""
    logits, labels = np.load(folder / "logits.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    facts = traits(size)
    with Memory() as memory:
        seconds, ensemble = timed(
            lambda: select(
                logits,
                labels,
                families=facts.families,
                resolutions=facts.resolutions,
                costs=facts.costs,
                folds=np.arange(size.samples) % FOLDS,
                pool=pool,
            )
        )
    return {
        "pool": pool,
        "seconds": seconds,
        "members_chosen": len(ensemble.members),
        "reason": ensemble.report["reason"],
        "logits_mb": logits.nbytes / 1e6,
        **memory.told(),
    }


def traits(size: Size) -> Traits:
    """Return families, resolutions and costs of made-up members: the later a family, the dearer."""
    families = [member % FAMILIES for member in range(size.members)]
    sides = [(128, 160, 224)[member // FAMILIES % 3] for member in range(size.members)]
    costs = [as_cost((1 + family) * (side / 224) ** 2) for family, side in zip(families, sides, strict=True)]
    return Traits(families=tuple(map(str, families)), resolutions=tuple(sides), costs=tuple(costs))


def probabilities(made: Cohort, member: int) -> Floats:
    """Return a member's probabilities as it has them, uncalibrated, (samples, classes)."""
    return np.exp(log_probs(made.logits(member))).astype(np.float32)


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Return the wall seconds that some work takes, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


class Memory:
    """The peak of what this process takes while it works: in all, and without the pages of mapped files (Linux)."""

    def __init__(self) -> None:
        self._private_kb = 0
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> "Memory":
        """Begin to watch."""
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._is_over.set()
        self._watcher.join()

    def told(self) -> dict[str, float]:
        """Return the peaks, MB; pages of a file count only as long as nobody needs the memory for something else."""
        peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak_rss_mb": peak_kb * 1024 / 1e6, "peak_without_file_pages_mb": self._private_kb * 1024 / 1e6}

    def _watch(self) -> None:
        while not self._is_over.wait(PAUSE_S):
            lines = Path("/proc/self/status").read_text().splitlines()
            private = sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
            self._private_kb = max(self._private_kb, private)


INSIDE: dict[str, Callable[[Size, Path, str], dict[str, Any]]] = {
    "write": write,
    "screen": screen,
    "log": log,
    "whole": whole,
}

if __name__ == "__main__":
    main()
