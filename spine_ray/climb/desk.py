"""The open study while a search runs: events go in, tables come out."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.core.backbone import licence_of
from spine_ray.data.samples import Samples
from spine_ray.ladder.budget import FoldSizes, Forecast, observed_stretch
from spine_ray.ladder.gates import GateDecision
from spine_ray.ladder.view_check import ViewCheck
from spine_ray.show.live import Progress
from spine_ray.space.arithmetic import Arithmetic, parse_arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import belongs
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import Event, TrialStarted
from spine_ray.study.ledger import append_event, read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import StudyRecord, write_record
from spine_ray.study.tables import Cost, cost_key, write_costs, write_trials
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.track.mlflow_log import Tracker
from spine_ray.tune.cluster import Workers
from spine_ray.tune.crew import choose_arithmetic, measure_costs
from spine_ray.tune.order import WorkOrder


@dataclass(kw_only=True, slots=True)
class Desk:
    """Everything the steps of a search share."""

    request: SearchRequest
    paths: StudyPaths
    samples: Samples
    prepared: Prepared
    order: WorkOrder
    workers: Workers
    progress: Progress
    tracker: Tracker
    events: list[Event]
    study: StudyRecord
    costs: dict[tuple[str, int, float], Cost] = field(default_factory=dict)
    decisions: list[GateDecision] = field(default_factory=list)
    """Of the gates, in order."""
    views: ViewCheck | None = None
    """What augmentation does to the classes, once that was looked at."""

    @property
    def trials(self) -> dict[str, Trial]:
        """All trials of the study, by id, in the order in which they first started."""
        return trials_from_events(self.events)

    @property
    def present(self) -> dict[str, Trial]:
        """The trials on the rows as they are now, by id; others were trained before the data changed."""
        version = self.samples.version
        return {name: trial for name, trial in self.trials.items() if trial.is_of(version)}

    def of_tier(self, tier: TierSpace) -> tuple[Trial, ...]:
        """Return the present trials that a tier can count as its own, whichever tier or space first ran them."""
        kind = self.prepared.weights.kind
        return tuple(trial for trial in self.present.values() if belongs(tier, kind, trial.config))

    def earlier_of_tier(self, tier: TierSpace) -> tuple[Trial, ...]:
        """Return a tier's completed trials on the rows as they were, lowest log-loss first."""
        kind, present = self.prepared.weights.kind, self.present
        earlier = [trial for name, trial in self.trials.items() if name not in present and trial.is_completed]
        mine = [trial for trial in earlier if belongs(tier, kind, trial.config)]
        return tuple(sorted(mine, key=lambda trial: (trial.log_loss or 0.0, trial.trial_id)))

    def record(self, event: Event) -> None:
        """Write an event to the ledger, then show and track it."""
        append_event(self.paths.ledger, event)
        self.events.append(event)
        self.progress.event(event)
        self.tracker.put(event)

    def forecast(self) -> Forecast:
        """Return the predictor of seconds, corrected by what finished trials took."""
        folds = self.samples.num_folds
        held_out = len(self.samples.dev) / folds
        sizes = FoldSizes(train=len(self.samples.dev) - held_out, held_out=held_out, folds=folds)
        trials = list(self.trials.values())
        stretch = observed_stretch(trials, Forecast(self.costs, sizes))
        built = frozenset(cost_key(trial.config) for trial in trials if trial.is_completed)
        return Forecast(self.costs, sizes, stretch, built)

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Measure on the workers what was not measured before, and keep it."""
        self._choose_arithmetic(configs)
        wanted = {cost_key(config): config for config in configs if cost_key(config) not in self.costs}
        speeds = measure_costs(list(wanted.values()), self.order, self.workers)
        for (key, config), speed in zip(wanted.items(), speeds, strict=True):
            self.costs[key] = Cost(
                backbone=config.backbone,
                resolution=config.resolution,
                freeze=config.freeze,
                device=self.order.device,
                arithmetic=str(self.order.arithmetic_of(config.backbone)),
                macs=self.prepared.facts[config.backbone, config.resolution].macs,
                **asdict(speed),
            )
        write_costs(self.paths, self.costs.values())

    def _choose_arithmetic(self, configs: Sequence[TrialConfig]) -> None:
        """Measure on the workers what serves each new backbone best, and fix it for the study."""
        chosen = self.study.choices.arithmetic
        fresh = {config.backbone: config for config in reversed(configs) if config.backbone not in chosen}
        if fresh:
            found = choose_arithmetic(list(fresh.values()), self.order, self.workers)
            self.study = self.study.with_arithmetic(dict(zip(fresh, map(str, found), strict=True)))
            write_record(self.paths, self.study)
            self.order = replace(self.order, arithmetic=arithmetic_of(self.study))

    def describe(self, tier: str) -> Callable[[TrialConfig, bool], TrialStarted]:
        """Return what makes the ledger's record of a trial that starts in a tier."""

        def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
            known = self.prepared.facts[config.backbone, config.resolution]
            return TrialStarted(
                trial_id=config.trial_id,
                tier=tier,
                config=config,
                family=self.prepared.families[config.backbone],
                is_start=is_start,
                total_steps=config.recipe.epochs * self.samples.num_folds,
                params=known.params,
                macs=known.macs,
                weights_source=self.prepared.weights.source,
                licence=licence_of(config.backbone),
                data_version=self.samples.version,
                time=time.time(),
            )

        return describe

    def write_tables(self) -> None:
        """Rebuild the table of trials from the ledger."""
        write_trials(self.paths, self.trials.values(), self.costs)


def work_order(
    request: SearchRequest, prepared: Prepared, hashes: Mapping[str, str], pixels: Path, device: str
) -> WorkOrder:
    """Return what a worker must know, for one thread in plain float32 that keeps no activations.

    Args:
        request: Study and seed.
        prepared: The weights.
        hashes: Of their files, by backbone.
        pixels: Folder of the decoded pictures.
        device: Where to compute.
    """
    files = prepared.weights.files.items()
    weights = tuple((backbone, file.resolve(), hashes.get(backbone, "")) for backbone, file in files)
    return WorkOrder(
        study=request.study.resolve(), pixels=pixels, seed=request.seed, weights=weights, device=device, threads=1
    )


def open_events(paths: StudyPaths) -> list[Event]:
    """Return what the ledger holds, starting it if there is none."""
    paths.ledger.parent.mkdir(parents=True, exist_ok=True)
    paths.ledger.touch()
    return read_ledger(paths.ledger)


def arithmetic_of(study: StudyRecord) -> tuple[tuple[str, Arithmetic], ...]:
    """Return what each backbone of a study is computed in."""
    return tuple((backbone, parse_arithmetic(text)) for backbone, text in study.choices.arithmetic.items())
