"""What the search finds for its device time, against an exhaustive grid of the same configurations.

    python -m benchmarks.quality_per_cost --grid grids/digits --grid grids/glyphs --grid grids/lattices

The grid (`benchmarks/grid.py`: every probe, every backbone x resolution x freeze depth x rate, all folds, no early
stop) was trained once; its answer is the ensemble that the same selector chooses from all of it. The search is replayed
from it over many seeds. Both answers are judged on fresh rows that nobody chose on. Device seconds are the CPU seconds
of the one thread that trained and scored when the grid was made, so that other load does not count: `plain` without a
cache, as a sweep by hand runs, `cached` with the activations shared.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np
import numpy.typing as npt

from benchmarks.grid import SPACE, GridSet
from benchmarks.grid_looks import seconds_of_looks
from benchmarks.grid_store import Grid, read_grid
from benchmarks.grid_tiny import trained_tiny_grid
from benchmarks.replay import Archive, dev_rows, replay
from benchmarks.results import parse_words, print_result, say
from spine_ray.climb.prepare import look_up
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.choose import Model, calibrate, choose
from spine_ray.ensemble.greedy import Rules
from spine_ray.ensemble.inputs import Rows, check_inputs, checked_traits
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.pool import floored, pooled
from spine_ray.space.load import load_space
from spine_ray.space.schema import Space

SEEDS = 50
MAX_MEMBERS = 8
NEAR = 0.01
"""Nats: an answer that is worse by less is as good."""


@dataclass
class Judge:
    """Chooses ensembles from a grid's OOF logits and scores them on its fresh rows; remembers what it was asked."""

    grid: Grid
    answers: dict[frozenset[int], float] = field(default_factory=dict)

    def log_loss(self, places: frozenset[int]) -> float:
        """Return the fresh log-loss of the ensemble chosen from some configurations."""
        if places not in self.answers:
            self.answers[places] = self._judged(tuple(sorted(places)))
        return self.answers[places]

    def _judged(self, places: tuple[int, ...]) -> float:
        """Choose as the selector does, but for the cross-fit that says how sure a gain is; score on fresh rows."""
        grid = self.grid
        traits = checked_traits(
            [grid.families[place] for place in places],
            [grid.configs[place].resolution for place in places],
            [float(grid.macs[place]) for place in places],
        )
        rules = Rules(max_members=MAX_MEMBERS, max_cost=None, price=0.0, max_per_family=None, pinned=())
        given = Rows(labels=grid.labels, folds=None, groups=grid.samples.groups[grid.samples.dev])
        candidates = check_inputs(grid.oof[list(places)], given, traits, rules, pinned=(), banned=()).candidates
        starts = {member: float(grid.temperatures[place]) for member, place in enumerate(places)}
        calibrated, problems = calibrate(candidates, ("log",), starts)
        model = choose(candidates, calibrated, "log", problems["log"]).model
        fresh = grid.fresh[[places[member] for member in model.members]].astype(np.float32)
        return fmean(self._loss(model, fresh[:, fold]) for fold in range(grid.samples.num_folds))

    def _loss(self, model: Model, logits: npt.NDArray[np.float32]) -> float:
        heated = zip(logits, model.temperatures, strict=True)
        values = np.stack([floored(log_probs(block, temperature)) for block, temperature in heated])
        predicted = log_probs(pooled(model.pool, values, model.weights), model.final_temperature)
        return float(row_losses(predicted, self.grid.fresh_labels).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """One search."""

    seconds: float
    """Device seconds in all."""
    reached: float
    """Device seconds until its ensemble was as good as the grid's; infinite where it never was."""
    regret: float
    """Log-loss of its last ensemble minus the grid's, nats."""
    trials: int
    completed: int


def search_once(archive: Archive, judge: Judge, target: float, seed: int) -> Replayed:
    """Replay one search and find when its ensemble became as good as the target."""
    played = replay(archive, dev_rows(archive.grid), seed)
    places: set[int] = set()
    reached, loss = math.inf, math.inf
    for seconds, trial_id in played.finished:
        places.add(archive.places[trial_id])
        is_last = len(places) == len(played.finished)
        if math.isfinite(reached) and not is_last:
            continue
        loss = judge.log_loss(frozenset(places))
        if loss <= target + NEAR:
            reached = min(reached, seconds)
    return Replayed(
        seconds=played.device_seconds,
        reached=reached,
        regret=loss - target,
        trials=len(played.known.trials),
        completed=len(played.finished),
    )


VARIANTS = ("search", "without early stopping", "without the ladder")


def variants(space: Space) -> Iterator[tuple[str, Space]]:
    """Yield the space as it is, and with one mechanism less each."""
    yield VARIANTS[0], space
    yield VARIANTS[1], replace(space, reduction=1)
    names = tuple(backbone for tier in space.tiers for backbone in tier.backbones)
    trials = sum(tier.trials for tier in space.tiers)
    flat = replace(space.tiers[0], name="all", backbones=names, trials=trials)
    yield VARIANTS[2], replace(space, tiers=(flat,))


def report(archive: Archive, judge: Judge, seeds: int, wanted: Sequence[str]) -> Iterator[dict[str, object]]:
    """Yield the grid's own line, then one for each wanted variant of the search."""
    grid = archive.grid
    everything = frozenset(range(len(grid.configs)))
    target = judge.log_loss(everything)
    plain = sum(grid.plain_seconds(place).cpu for place in everything)
    cached = sum(curve.total.cpu for curve in grid.curves)
    singles = grid.fresh_losses.mean(axis=1)
    yield {
        "set": grid.name,
        "grid_log_loss": round(target, 4),
        "best_single_log_loss": round(float(singles[grid.oof_losses.argmin()]), 4),
        "trials": len(everything),
        "plain_device_s": round(plain),
        "cached_device_s": round(cached),
    }
    for name, space in variants(archive.space):
        if name not in wanted:
            continue
        altered = replace(archive, space=space)
        found = [search_once(altered, judge, target, seed) for seed in range(seeds)]
        reached = [each.reached for each in found]
        regrets = [each.regret for each in found]
        upper = fmean(regrets) + 1.96 * (stdev(regrets) / math.sqrt(len(regrets)) if len(regrets) > 1 else 0.0)
        share = _share_uncached(archive, altered)
        yield {
            "set": grid.name,
            "variant": name,
            "seeds": seeds,
            "device_s": round(median(each.seconds for each in found)),
            "reached_s": _finite(median(reached)),
            "reached_share": round(fmean(math.isfinite(each) for each in reached), 3),
            "plain_grid_over_reached": _finite(plain / median(reached)),
            "cached_grid_over_reached": _finite(cached / median(reached)),
            "cached_grid_over_whole_search": round(cached / median(each.seconds for each in found), 2),
            "plain_over_cached": share,
            "mean_regret": round(fmean(regrets), 4),
            "regret_upper_95": round(upper, 4),
            "worst_regret": round(max(regrets), 4),
            "trials": round(fmean(each.trials for each in found), 1),
            "completed": round(fmean(each.completed for each in found), 1),
        }


def _share_uncached(archive: Archive, altered: Archive) -> float:
    """Return how many times as long the trials of one search take without a cache."""
    grid, played = archive.grid, replay(altered, dev_rows(archive.grid), 0)
    plain = cached = 0.0
    for trial in played.known.trials.values():
        place = archive.places[trial.trial_id]
        share = (trial.epochs[-1].step if trial.epochs else 0) / trial.started.total_steps
        plain += grid.plain_seconds(place).cpu * share
        cached += trial.seconds
    return round(plain / cached, 2)


def _finite(value: float) -> float | None:
    return round(value, 2) if math.isfinite(value) else None


def main(words: Sequence[str] | None = None) -> None:
    """Print for every grid its own cost and quality, and those of the search."""
    parser = argparse.ArgumentParser(description="Quality for device time, against an exhaustive grid.")
    parser.add_argument("--grid", action="append", type=Path, metavar="FOLDER", help="with --quick: a tiny one is made")
    parser.add_argument("--space", default=str(SPACE))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    given = parse_words(parser, words, quick={"seeds": 1}, needed=["grid"])
    lines = []
    with tempfile.TemporaryDirectory() as out:
        for folder, space in _places(given.grid, given.space, Path(out)):
            grid = read_grid(folder)
            archive = Archive(grid, space, seconds_of_looks(GridSet(grid.name, folder, space)))
            for line in report(archive, Judge(grid), given.seeds, given.variants):
                lines.append(line)
                say(json.dumps(line))
    print_result({"sets": lines})


def _places(folders: Sequence[Path] | None, space: str, out: Path) -> Iterator[tuple[Path, Space]]:
    """Yield where the grids lie that are named, or else a tiny one, and the space that each is searched in."""
    if folders is None:
        grid = trained_tiny_grid(out)
        yield grid.folder, grid.space
        return
    for folder in folders:
        yield folder.resolve(), look_up([load_space(space)])[0]


if __name__ == "__main__":
    main()
