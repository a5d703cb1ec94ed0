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

import numpy as np

from benchmarks.curves import read_curves
from benchmarks.scale_driver import Load, Meter, Simulation, simulate
from spine_ray.space.load import load_space
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
    parser.add_argument("--actors", type=int, help="run real actors under Ray Tune instead")
    given = parser.parse_args()
    if given.actors is not None:
        from benchmarks.scale_actors import run_actors  # Ray, which the simulation does without

        run_actors(given.actors, given.trials, load_space(str(SPACE)), read_curves())
        return
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
        _simulated(load, Path(folder))


def _simulated(load: Load, folder: Path) -> None:
    paths = StudyPaths(folder)
    tracker = Tracker(sqlite_uri(paths.tracking), keep_tracking(paths, None), paths, [])
    began, used = time.perf_counter(), time.process_time()
    played = simulate(load, load_space(str(SPACE)), read_curves(), folder, tracker)
    took, used = time.perf_counter() - began, time.process_time() - used
    _tell(load, played, took, used)
    began = time.perf_counter()
    trials = trials_from_events(read_ledger(played.paths.ledger))
    read = time.perf_counter() - began
    write_trials(played.paths, trials.values(), played.known.costs)
    size = played.paths.ledger.stat().st_size
    print(f"ledger {size / 1e6:.1f} MB, read back in {read:.1f} s, table written in "
          f"{time.perf_counter() - began - read:.1f} s")  # fmt: skip
    began = time.perf_counter()
    tracker.close(WRITER_S)
    print(f"MLflow's writer finished {load.tracked} trials {time.perf_counter() - began:.0f} s later")


def _tell(load: Load, played: Simulation, took: float, used: float) -> None:
    meter = played.meter
    results, fresh = len(meter.result_s), load.trials - load.known
    statuses = Counter(trial.status for trial in played.known.trials.values())
    told = ", ".join(f"{count} {status}" for status, count in statuses.items())
    print(
        f"{load.trials} trials on {load.slots} slots, epochs of {load.epoch_s:g} s: {told}; "
        f"{results} results of the last {fresh} were measured"
    )
    print(f"simulated {played.now() / 3600:.1f} h in {took:.0f} s ({used:.0f} s of the processor)")
    for name, seconds in (("suggestion", meter.suggest_s), ("result", meter.result_s), ("end", meter.end_s)):
        print(f"  {name:<10} {_spread(seconds)}")
    a_result, a_trial = (1000 * meter.driver_s / count for count in (results, fresh))
    print(
        f"driver {a_result:.1f} ms a result, {a_trial:.1f} ms a trial, beside Ray's "
        f"{1000 * load.ray_result_s:g} a result and {1000 * load.ray_trial_s:g} a trial"
    )
    print(f"slots busy {meter.busy_share(load.slots):.1%} until the last trial began, memory "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at most")  # fmt: skip
    print(f"  {_growth(meter)}")


def _spread(seconds: list[float]) -> str:
    ms = 1000 * np.array(seconds)
    low, high = np.percentile(ms, (50, 99))
    all_s = ms.sum() / 1000
    return f"mean {ms.mean():.2f} ms, median {low:.2f}, 99 % {high:.2f}, most {ms.max():.1f}, in all {all_s:.1f} s"


def _growth(meter: Meter) -> str:
    """Return how a suggestion and a result become slower with the number of trials."""
    told = []
    for name, seconds in (("suggestions", meter.suggest_s), ("results", meter.result_s)):
        parts = np.array_split(1000 * np.array(seconds), 5)
        told.append(f"{name} by fifths {', '.join(f'{part.mean():.1f}' for part in parts)} ms")
    return "; ".join(told)


if __name__ == "__main__":
    main()
