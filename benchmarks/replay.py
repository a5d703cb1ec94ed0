"""A search replayed from a stored grid: the climb's own code, with stored curves and logits in place of training.

`benchmarks/grid.py` trains every configuration of a space once. Here the search climbs that space on a virtual clock:
the queue, Optuna, the rungs, the gates and the ladder are the search's own; what a trial would have said is read.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.grid_store import Grid, Key, key_of
from spine_ray.climb.decisions import Proof, Question, decide
from spine_ray.climb.known import Known
from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.tiers import Climb
from spine_ray.core.backbone import facts
from spine_ray.core.epoch_record import ALL_FOLDS
from spine_ray.core.weights import weights_from_folder
from spine_ray.data.samples import Samples
from spine_ray.ladder.budget import Budget
from spine_ray.ladder.evidence import Evidence
from spine_ray.ladder.gates import GateDecision
from spine_ray.sampling.simulation import VirtualClock, simulate_tier
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import Space
from spine_ray.study.events import EpochDone, Event, TrialEnded
from spine_ray.study.tables import Cost

WORKERS = 2


@dataclass(frozen=True)
class Archive:
    """A grid, with what a replay asks of it over and over."""

    grid: Grid
    space: Space
    """Its tiers hold the grid's configurations, in whatever order."""
    overhead: float = 0.0
    """Device seconds of the checks before training, once a search."""

    @cached_property
    def places(self) -> dict[str, int]:
        """Where a trial stands in the grid."""
        return {config.trial_id: place for place, config in enumerate(self.grid.configs)}

    @cached_property
    def prefixes(self) -> dict[Key, tuple[float, ...]]:
        """Seconds that a key's frozen prefix took in each step of the trial that found the cache cold."""
        found: dict[Key, tuple[float, ...]] = {}
        for config, curve in zip(self.grid.configs, self.grid.curves, strict=True):
            passed = tuple(step.prefix.cpu for step in curve.steps)
            if sum(passed) >= sum(found.get(key_of(config), ())):
                found[key_of(config)] = passed
        return found

    @cached_property
    def costs(self) -> dict[tuple[str, int, float], Cost]:
        """What would have been measured of every fine-tune; the probes tell of their own costs as they end."""
        found = {}
        for place, config in enumerate(self.grid.configs):
            if config.is_probe:
                continue
            steps = self.grid.curves[place].steps
            rate = float(np.median([step.record.train_images / step.train_s for step in steps]))
            passed = sum(self.prefixes[key_of(config)])
            views = len(self.grid.labels) * (config.training.epochs + 1)
            scored = len(self.grid.labels) / self.grid.samples.num_folds
            score = float(np.median([scored / max(step.score_s, 1e-6) for step in steps]))
            found[key_of(config)] = Cost(
                backbone=config.backbone, resolution=config.resolution, freeze=config.freeze, device="cpu",
                arithmetic=self.grid.arithmetic[config.backbone], train_images_s=rate, infer_images_s=score,
                score_images_s=score, prefix_images_s=views / passed if passed else None, activation_mb=None,
                peak_mb=0.0, macs=self.grid.macs[place], prefix_macs=0, prefix_params=0,
            )  # fmt: skip
        return found

    @cached_property
    def prepared(self) -> Prepared:
        """The space as a search would have prepared it."""
        backbones = tuple(dict.fromkeys(config.backbone for config in self.grid.configs))
        classes = len(self.grid.samples.classes)
        return Prepared(
            spaces=(self.space,),
            weights=weights_from_folder(Path(str(self.space.weights)), backbones),
            facts={
                (backbone, side): facts(backbone, side, classes)
                for backbone in backbones
                for side in dict.fromkeys(config.resolution for config in self.grid.configs)
            },
            families=dict(zip((config.backbone for config in self.grid.configs), self.grid.families, strict=True)),
        )


@dataclass(frozen=True)
class Rows:
    """The rows that a replay takes for its dev rows, and what every configuration says of them."""

    samples: Samples
    """Dev rows only."""
    logits: npt.NDArray[np.float32]
    """(configurations, dev rows, classes), OOF."""


def dev_rows(grid: Grid) -> Rows:
    """Return the rows that the grid was trained along."""
    return Rows(_only(grid.samples, grid.samples.dev, grid.samples.folds[grid.samples.dev]), grid.oof)


def fresh_rows(grid: Grid, rows: int, seed: int) -> Rows:
    """Return fresh rows dealt into folds, each with what the model says whose fold it fell into: OOF rows anew.

    Args:
        grid: With logits of every fold's model on fresh rows.
        rows: About how many; groups stay whole.
        seed: Decides which rows, and how they are dealt.
    """
    generator, groups = np.random.default_rng(seed), grid.fresh_groups
    order = generator.permutation(np.unique(groups))
    chosen = np.sort(np.flatnonzero(np.isin(groups, order[: round(len(order) * rows / len(groups))])))
    dealt = dict(zip(order.tolist(), (np.arange(len(order)) % grid.samples.num_folds).tolist(), strict=True))
    folds = np.array([dealt[group] for group in groups[chosen].tolist()], np.int8)
    logits = grid.fresh[:, folds, chosen].astype(np.float32)
    return Rows(_only(grid.samples, grid.samples.test[chosen], folds), logits)


def _only(samples: Samples, rows: npt.NDArray[np.int64], folds: npt.NDArray[np.int8]) -> Samples:
    return Samples(
        sample_ids=tuple(samples.sample_ids[row] for row in rows),
        paths=tuple(samples.paths[row] for row in rows),
        labels=samples.labels[rows],
        classes=samples.classes,
        groups=samples.groups[rows],
        splits=tuple(itertools.repeat("dev", len(rows))),
        folds=folds.astype(np.int8),
    )


@dataclass
class Replay:
    """Carries a climb out from an archive."""

    archive: Archive
    known: Known
    rows: Rows
    clock: VirtualClock
    decisions: list[tuple[GateDecision, Evidence]] = field(default_factory=list)
    """With what each was decided on."""
    device_seconds: float = 0.0
    """Of trials, the control and checks, so far."""
    finished: list[tuple[float, str]] = field(default_factory=list)
    """Completed trials with the device seconds that were spent until then."""
    has_control: bool = False
    _warm: set[Key] = field(default_factory=set)

    def now(self) -> float:
        """Return the virtual time."""
        return self.clock.now

    def say(self, line: str) -> None:
        """Keep silent."""

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Do nothing: everything was measured."""

    def sample_probes(self, configs: Sequence[TrialConfig], count: int) -> Mapping[str, float]:
        """Return nothing: there is time for all probes."""
        return {}

    def check(self, configs: Sequence[TrialConfig]) -> None:
        """Let the time of the checks before training pass."""
        self.device_seconds += self.archive.overhead
        self.clock.now += self.archive.overhead / WORKERS

    @property
    def workers(self) -> int:
        """How many trials run at once."""
        return WORKERS

    def run(self, plan: TierPlan, question: str) -> None:
        """Play a tier."""
        if plan.control is not None:
            self.device_seconds += self._control_seconds(plan.control)
        self.has_control = True
        simulate_tier(plan, WORKERS, self.clock, self._script, self._happened)

    def _control_seconds(self, config: TrialConfig) -> float:
        """Return what the first fold of a trial takes; of a probe, which is one step, all of it."""
        epochs = self._script(config)
        return sum(epoch.seconds for epoch in epochs if epoch.fold in (ALL_FOLDS, 0))

    def decide(self, question: Question) -> GateDecision:
        """Decide on the logits of the trials that were completed, with the search's own gates."""
        evidence = self.evidence()
        decision = decide(self.known, Proof(evidence=evidence, control=None, views=None), question)
        self.decisions.append((decision, evidence))
        return decision

    def evidence(self) -> Evidence:
        """Return what the completed trials say."""
        completed = tuple(trial for trial in self.known.trials.values() if trial.is_completed)
        samples = self.rows.samples
        return Evidence(
            trials=completed,
            logits=self.rows.logits[[self.archive.places[trial.trial_id] for trial in completed]],
            labels=samples.labels,
            folds=samples.folds.astype(np.int64),
            groups=samples.groups,
        )

    def _happened(self, event: Event) -> None:
        self.known.events.append(event)
        if isinstance(event, EpochDone):
            self.device_seconds += event.seconds
        elif isinstance(event, TrialEnded) and event.status == "completed":
            self.finished.append((self.device_seconds, event.trial_id))

    def _script(self, config: TrialConfig) -> list[EpochDone]:
        """Return a stored trial's epochs, by its thread's CPU time; the first of a frozen prefix pays for it."""
        archive = self.archive
        key = key_of(config)
        steps = archive.grid.curves[archive.places[config.trial_id]].steps
        passes = (0.0,) * len(steps) if key in self._warm else archive.prefixes[key]
        self._warm.add(key)
        return [
            EpochDone(
                trial_id=config.trial_id,
                **{
                    name: getattr(step.record, name)
                    for name in EpochDone.__dataclass_fields__
                    if name not in ("trial_id", "seconds")
                },
                seconds=max(1e-6, step.cpu - step.prefix.cpu) + passed,
            )
            for step, passed in zip(steps, passes, strict=True)
        ]


def replay(archive: Archive, rows: Rows, seed: int, trials: int | None = None) -> Replay:
    """Climb the archive's space: the probes of all tiers, then the fine-tunes from the first to the last gate.

    Args:
        archive: What every trial would do.
        rows: What gates and ensemble look at.
        seed: Of the search.
        trials: Of each tier; None for what the space says.
    """
    space = archive.space
    if trials is not None:
        space = replace(space, tiers=tuple(replace(tier, trials=trials) for tier in space.tiers))
    request = SearchRequest(
        spaces=(space,), sets=(), data=None, study=Path("replay"), budget_s=None, weights=str(space.weights), seed=seed,
        workers=None, address=None, tracking=None, open_test=False, resume=False, finish=False, force=False, update=(),
        plan=False, on=None, began=0.0, command="",
    )  # fmt: skip
    known = Known(
        request=request,
        samples=rows.samples,
        prepared=archive.prepared,
        device="cpu",
        events=[],
        costs=dict(archive.costs),
    )
    played = Replay(archive, known, rows, VirtualClock(0.0))
    climb = Climb(known, played, space, Budget(began=0.0, seconds=None))
    climb.probe()
    climb.fine_tune()
    return played
