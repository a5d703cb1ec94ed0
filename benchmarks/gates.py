"""Do the gates decide as the truth has it? The plateau gate replayed over many samples of rows and search seeds.

    python -m benchmarks.gates --grid grids/lattices --grid grids/wrong:benchmarks/spaces/grid_turned.yaml

From a stored grid (`benchmarks/grid.py`) every seed draws other rows from the fresh ones, deals them into folds, lets
each row be judged by the model whose fold it fell into, and climbs with the search's own queue, rungs and gates. What a
gate said is then held against the truth: the losses of the very trials it compared, on all fresh rows.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.grid import SPACE
from benchmarks.grid_store import Grid, read_grid
from benchmarks.grid_tiny import trained_tiny_grid
from benchmarks.replay import Archive, Replay, fresh_rows, replay
from benchmarks.results import parse_words, print_result, say
from spine_ray.climb.decisions import of_stage
from spine_ray.climb.prepare import look_up
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ladder.evidence import Evidence
from spine_ray.ladder.gates import GateDecision
from spine_ray.space.load import load_space
from spine_ray.study.trials import Trial

ROWS = 1500
"""Rows of a sample, where the grid has so many fresh ones."""
SEEDS = 100
Side = Literal["above", "below", "undecided"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """One decision of a gate beside the truth; nats."""

    after: str
    verdict: str
    gain: float
    low: float
    high: float
    true_gain: float
    min_effect: float

    @property
    def said(self) -> Side:
        """Where the gate placed the gain against the effect that matters."""
        return "above" if self.low > self.min_effect else "below" if self.high < self.min_effect else "undecided"

    @property
    def truth(self) -> Side:
        """Where it is."""
        return "above" if self.true_gain > self.min_effect else "below"

    @property
    def is_covered(self) -> bool:
        """Whether the interval holds the true gain."""
        return self.low <= self.true_gain <= self.high


def judge(played: Replay) -> list[Judged]:
    """Hold every plateau decision of a replay against the truth."""
    space, names = played.archive.space, [tier.name for tier in played.archive.space.tiers]
    judged = []
    for decision, evidence in played.decisions:
        if decision.gate == "plateau":
            place = names.index(decision.after)
            stage, sides = decision.numbers["stage"], (names[:place], names[place : place + 1])
            best = [true_loss_of_best(played, evidence, of_stage(_trials(evidence, side), stage)) for side in sides]
            judged.append(_judged(decision, best[0] - best[1], space.min_effect))
    return judged


def _trials(evidence: Evidence, tiers: Sequence[str]) -> list[Trial]:
    return [trial for trial in evidence.trials if trial.started.tier in tiers]


def true_loss_of_best(played: Replay, evidence: Evidence, trials: Sequence[Trial]) -> float:
    """Return what the trial that is best on the sample truly loses, of some trials."""
    grid = played.archive.grid
    best = evidence.best(evidence.places(trials))
    heat = fit_temperature(evidence.logits[best], evidence.labels)
    of_folds = grid.fresh[played.archive.places[evidence.trials[best].trial_id]]
    return fmean(_loss(logits, heat, grid) for logits in of_folds)


def _loss(logits: npt.NDArray[np.float16], heat: float, grid: Grid) -> float:
    return float(row_losses(log_probs(logits.astype(np.float32), heat), grid.fresh_labels).mean())


def _judged(decision: GateDecision, true_gain: float, min_effect: float) -> Judged:
    numbers = decision.numbers
    return Judged(
        after=decision.after,
        verdict=decision.verdict,
        gain=numbers["gain"],
        low=numbers["low"],
        high=numbers["high"],
        true_gain=true_gain,
        min_effect=min_effect,
    )


def summary(name: str, judged: Sequence[Judged]) -> dict[str, object]:
    """Return how often a gate was right, and how often its interval held the truth."""
    gains = np.array([each.true_gain for each in judged])
    return {
        "set": name,
        "after": judged[0].after,
        "replays": len(judged),
        "true_gain": [round(float(value), 4) for value in np.quantile(gains, [0.05, 0.5, 0.95])],
        "right": round(fmean(each.said == each.truth for each in judged), 3),
        "wrong": round(fmean(each.said not in (each.truth, "undecided") for each in judged), 3),
        "undecided": round(fmean(each.said == "undecided" for each in judged), 3),
        "covered": round(fmean(each.is_covered for each in judged), 3),
        "mean_width": round(fmean(each.high - each.low for each in judged), 4),
        "bias": round(fmean(each.gain - each.true_gain for each in judged), 4),
        "verdicts": dict(Counter(each.verdict for each in judged)),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Replay every grid that is named, and print what is to be said of each of its plateau gates."""
    parser = argparse.ArgumentParser(description="Hold the gates' decisions against the truth.")
    parser.add_argument("--grid", action="append", metavar="FOLDER[:SPACE]", help="with --quick: a tiny one is made")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--rows", type=int, default=ROWS)
    given = parse_words(parser, words, quick={"seeds": 2, "rows": 90}, needed=["grid"])
    gates = []
    with tempfile.TemporaryDirectory() as out:
        for archive in _archives(given.grid, Path(out)):
            found: dict[str, list[Judged]] = {}
            for seed in range(given.seeds):
                for each in judge(replay(archive, fresh_rows(archive.grid, given.rows, seed), seed)):
                    found.setdefault(each.after, []).append(each)
            for judged in found.values():
                gates.append(summary(f"{archive.grid.name} on {archive.space.name}", judged))
                say(json.dumps(gates[-1]))
    print_result({"gates": gates})


def _archives(names: Sequence[str] | None, out: Path) -> Iterator[Archive]:
    """Yield the grids that are named, or else a tiny one."""
    if names is None:
        grid = trained_tiny_grid(out)
        yield Archive(read_grid(grid.folder), grid.space)
        return
    for named in names:
        folder, _, space = named.partition(":")
        yield Archive(read_grid(Path(folder)), look_up([load_space(space or str(SPACE))])[0])


if __name__ == "__main__":
    main()
