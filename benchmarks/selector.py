"""How long the selector takes and how much memory, beside AutoGluon's `EnsembleSelection`, on made-up models.

    python -m benchmarks.selector > selector.json
    python -m benchmarks.selector --autogluon ../autogluon-env
    python -m benchmarks.selector --parts log whole --members 100 --samples 5000

`screen` is the greedy search on true-class probabilities, `log` the one in the log pool, `whole` a selection with its
cross-fitted report. Each part is a process of its own on one thread, so that the peaks of memory are separate. Seconds
are wall; those of the CPU beside them show what other work on the machine added. JSON goes to stdout, progress to
stderr.
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

from benchmarks.results import parse_words, print_result, say
from spine_ray.ensemble import select
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import calibrate
from spine_ray.ensemble.greedy import Rules, Traits, Way, pose, walk
from spine_ray.ensemble.objective import OBJECTIVES
from spine_ray.ensemble.pool import FLOOR
from spine_ray.ensemble.price import as_cost

ROOT = Path(__file__).parents[1]
AUTOGLUON = "autogluon.core==1.6.3"
HINT = f"name --autogluon DIR, or `pip install {AUTOGLUON}` in an environment of its own and run this with its python"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
FAMILIES, FOLDS, SEED = 8, 5, 0
SCREEN_STEPS, LOG_STEPS = 40, 25
REPEATS = 3
FULL_CANDIDATES, FULL_STEPS = 20, 3
"""Of AutoGluon's search on all classes: each candidate costs the same in each step, so the rest is multiplied."""
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


@dataclass(frozen=True, order=True, slots=True)
class Seconds:
    """How long something took."""

    wall: float
    cpu: float

    def __add__(self, other: "Seconds") -> "Seconds":
        """Return both together."""
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)


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
        return logits * np.float32(loudness)


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
    given = parse_words(parser, quick={"members": 40, "samples": 400})
    changes = {name: value for name in ("members", "samples") if (value := getattr(given, name))}
    sizes = {part: replace(SIZES[part], **changes) for part in given.parts}
    if given.inside:
        step, folder = given.inside
        told = INSIDE[step](sizes[given.parts[0]], Path(folder), given.pool)
        print_result({"numpy": np.__version__, **told})
        return
    python = environment(given.autogluon.resolve()) if given.autogluon else Path(sys.executable)
    parts = {part: outside(part, size, given.pool, python) for part, size in sizes.items()}
    print_result({"python": sys.version.split()[0], "threads": 1, **parts})


def environment(folder: Path) -> Path:
    """Return the python of an environment that has AutoGluon's core, made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", AUTOGLUON], cwd=folder, check=True, stdout=sys.stderr
        )
    return python


def outside(part: str, size: Size, pool: str, python: Path) -> dict[str, Any]:
    """Run one part in processes of its own: one that writes the logits, where it reads them, and the part itself."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--parts", part, "--members", str(size.members), "--samples", str(size.samples), "--pool", pool]
        told: dict[str, Any] = {}
        for step in (part,) if part == "screen" else ("write", part):
            say(f"{step} {size}")
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
    steps = len(way.picks)
    reading = min(timed(lambda: read_once_a_step(matrix, steps))[0] for _ in range(REPEATS))
    plain_seconds, plain = timed(lambda: plain_loop(matrix, steps))
    return {
        "steps": steps,
        "members_picked": len(set(way.picks)),
        "seconds": asdict(best),
        "of_which_scoring_each_alone": asdict(posing),
        "reading": "matrix @ vector, once a step",
        "reading_seconds": asdict(reading),
        "over_reading": ratios(best, reading),
        "plain_loop_seconds": asdict(plain_seconds),
        "plain_loop_over_ours": ratios(plain_seconds, best),
        "same_members_as_plain_loop": list(way.picks) == plain,
        "autogluon": beside_autogluon(made, matrix, list(way.picks), best),
    }


def posed_and_walked(matrix: Floats, rules: Rules) -> tuple[Seconds, Way]:
    """Search, and return how long scoring each candidate alone took, and the way."""
    members = len(matrix)
    traits = Traits(families=("any",) * members, resolutions=(1,) * members, costs=(as_cost(0.0),) * members)
    seconds, problem = timed(lambda: pose(matrix[:, None, :], OBJECTIVES["prob"], traits, rules, matrix.shape[1]))
    return seconds, walk(problem)


def read_once_a_step(matrix: Floats, steps: int) -> None:
    """Use every number once a step, in the way that costs least besides reading it."""
    vector = np.ones(matrix.shape[1], np.float32)
    for _ in range(steps):
        matrix @ vector


def plain_loop(matrix: Floats, steps: int) -> list[int]:
    """Return the picks of a search that computes every candidate in every step."""
    total, picks = np.zeros(matrix.shape[1]), []
    for step in range(steps):
        losses = [-np.log((total + row) / (step + 1)).mean() for row in matrix]
        picks.append(int(np.argmin(losses)))
        total += matrix[picks[-1]]
    return picks


def beside_autogluon(made: Cohort, matrix: Floats, picks: list[int], ours: Seconds) -> dict[str, Any]:
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
    times = len(matrix) * len(picks) / (len(full) * FULL_STEPS)
    scaled = Seconds(full_seconds.wall * times, full_seconds.cpu * times)
    return {
        "version": importlib.metadata.version(AUTOGLUON.partition("==")[0]),
        "true_class_seconds": asdict(loop_seconds),
        "true_class_over_ours": ratios(loop_seconds, ours),
        "same_members": found == picks,
        "same_members_without_its_rounding": unrounded == picks,
        "all_classes_timed": f"{len(full)} candidates, {FULL_STEPS} steps, multiplied",
        "all_classes_seconds": asdict(scaled),
        "all_classes_over_ours": ratios(scaled, ours),
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


def log(size: Size, folder: Path, _: str) -> dict[str, Any]:
    """Time the search in the log pool, and what comes before it: temperatures, encodings, each member alone."""
    logits, labels = np.load(folder / "logits.npy", mmap_mode="r"), np.load(folder / "labels.npy")
    candidates = Candidates(
        logits=logits, kept=tuple(range(size.members)), rows=None, labels=labels, groups=np.arange(size.samples),
        traits=traits(size), rules=Rules(max_steps=LOG_STEPS), screen=None,
    )  # fmt: skip
    with Memory() as memory:
        preparing, found = timed(lambda: calibrate(candidates, ("log",)))
        walking, way = timed(lambda: walk(found[1]["log"]))
    fitting = timed(lambda: [candidates.temperature(member) for member in candidates.kept])[0]
    return {
        "steps": len(way.picks),
        "members_picked": len(set(way.picks)),
        "seconds": asdict(preparing + walking),
        "of_which_preparing": asdict(preparing),
        "of_which_searching": asdict(walking),
        "temperatures_alone": asdict(fitting),
        "logits_mb": logits.nbytes / 1e6,
        **memory.told(),
    }


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
        "seconds": asdict(seconds),
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


def timed(work: Callable[[], Result]) -> tuple[Seconds, Result]:
    """Return how long some work takes, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu), result


def ratios(longer: Seconds, shorter: Seconds) -> dict[str, float]:
    """Return how many times as long something takes, by either clock."""
    return {"wall": longer.wall / shorter.wall, "cpu": longer.cpu / shorter.cpu}


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


INSIDE = {step.__name__: step for step in (write, screen, log, whole)}

if __name__ == "__main__":
    main()
