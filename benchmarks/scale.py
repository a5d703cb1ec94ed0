"""What the driver of a large search takes: time a result, memory, and how busy it keeps its workers.

    python -m benchmarks.scale --trials 10000 --slots 256     # the driver on a simulated clock, no Ray
    python -m benchmarks.scale --known 9000 --slots 256       # only the last 1,000 of 10,000: a tenth of the time
    python -m benchmarks.scale --actors 32 --trials 300       # Ray Tune's own part: real actors that train nothing

The first needs minutes and says what it left out (`benchmarks/scale_driver.py`); the second starts a process an actor.
Figures and what they mean: docs/scale.md.
"""

import argparse
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves import Curves, read_curves
from benchmarks.results import parse_words, print_result
from benchmarks.scale_driver import Load, Simulation, simulate
from spine_ray.space.load import load_space
from spine_ray.space.schema import Space
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import write_trials
from spine_ray.study.tracking import keep_tracking
from spine_ray.study.trials import trials_from_events
from spine_ray.track.mlflow_log import Tracker, sqlite_uri

SPACE = Path(__file__).with_name("spaces") / "scale.yaml"
RAY_RESULT_MS, RAY_TRIAL_MS = 5.0, 60.0
"""Ray Tune's own time with 32 actors, ms (docs/scale.md)."""
WRITER_S = 900.0


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=256, help="simulated workers")
    parser.add_argument("--known", type=int, default=0, help="of the trials, those that are there before")
    parser.add_argument("--epoch", type=float, default=60.0, metavar="S", help="simulated seconds of an epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tracked", type=int, default=200, help="trials whose events go to MLflow")
    parser.add_argument("--cpu-time", action="store_true", help="count the driver's processor time, not wall time")
    parser.add_argument("--actors", type=int, help="run real actors under Ray Tune instead; with --quick, too")
    given = parse_words(parser, quick={"trials": 12, "slots": 4, "tracked": 2, "actors": 2})
    space, curves = load_space(str(SPACE)), read_curves()
    found: dict[str, Any] = {}
    if given.actors is None or given.quick:
        load = Load(
            trials=given.trials,
            slots=given.slots,
            epoch_s=given.epoch,
            seed=given.seed,
            ray_result_s=RAY_RESULT_MS / 1000,
            ray_trial_s=RAY_TRIAL_MS / 1000,
            is_cpu_time=given.cpu_time,
            known=given.known,
            tracked=given.tracked,
        )
        with tempfile.TemporaryDirectory() as folder:
            found["simulation"] = _simulated(load, space, curves, Path(folder))
    if given.actors is not None:
        from benchmarks.scale_actors import run_actors  # Ray, which the simulation does without

        found["ray"] = run_actors(given.actors, given.trials, space, curves)
    print_result(found)


def _simulated(load: Load, space: Space, curves: Curves, folder: Path) -> dict[str, Any]:
    paths = StudyPaths(folder)
    tracker = Tracker(sqlite_uri(paths.tracking), keep_tracking(paths, None), paths, [])
    began, used = time.perf_counter(), time.process_time()
    played = simulate(load, space, curves, folder, tracker)
    took = {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time() - used, 1)}
    found = _summary(load, played)
    began = time.perf_counter()
    trials = trials_from_events(read_ledger(played.paths.ledger))
    read = time.perf_counter()
    write_trials(played.paths, trials.values(), played.known.costs)
    written = time.perf_counter()
    tracker.close(WRITER_S)
    return {
        **found,
        **took,
        "ledger_mb": round(played.paths.ledger.stat().st_size / 1e6, 2),
        "ledger_read_s": round(read - began, 2),
        "table_written_s": round(written - read, 2),
        "mlflow_finished_later_s": round(time.perf_counter() - written, 1),
    }


def _summary(load: Load, played: Simulation) -> dict[str, Any]:
    meter = played.meter
    results, fresh = len(meter.result_s), load.trials - load.known
    return {
        "trials": load.trials,
        "slots": load.slots,
        "epoch_s": load.epoch_s,
        "statuses": dict(Counter(str(trial.status) for trial in played.known.trials.values())),
        "measured": {"trials": fresh, "results": results},
        "simulated_h": round(played.now() / 3600, 2),
        "suggestion_ms": _spread(meter.suggest_s),
        "result_ms": _spread(meter.result_s),
        "end_ms": _spread(meter.end_s),
        "driver_ms_a_result": round(1000 * meter.driver_s / results, 1),
        "driver_ms_a_trial": round(1000 * meter.driver_s / fresh, 1),
        "ray_ms_a_result": 1000 * load.ray_result_s,
        "ray_ms_a_trial": 1000 * load.ray_trial_s,
        "busy_share_until_last_start": round(meter.busy_share(load.slots), 3),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def _spread(seconds: list[float]) -> dict[str, Any]:
    """Return the spread of some times, ms, and how they grow with the number of trials: their means by fifths."""
    ms = 1000 * np.array(seconds)
    median, high = np.percentile(ms, (50, 99))
    spread = {"mean": ms.mean(), "median": median, "99 %": high, "most": ms.max()}
    fifths = [round(float(part.mean()), 1) for part in np.array_split(ms, 5) if len(part)]
    return {**{name: round(float(each), 2) for name, each in spread.items()}, "by_fifths": fifths}


if __name__ == "__main__":
    main()
