"""What is known of a study while it is climbed: rows, trials, measured costs; and what follows from them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.data.samples import Samples
from spine_ray.ladder.budget import RECKONING_IS_OFF, FoldSizes, Forecast, observed_stretch, reckon
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import belongs, start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import Event, TrialEnded, TrialStarted
from spine_ray.study.tables import Cost, cost_key
from spine_ray.study.trials import Trial, add_event

HANGS_AFTER = 10.0
"""Times its predicted seconds after which an epoch is taken to hang."""
MIN_HANG_TIMEOUT = 600.0
"""Seconds in which no epoch is taken to hang, however short it should be: a busy machine is no reason."""
UNMEASURED_HANG_TIMEOUT = 6 * 3600.0
"""The same where nothing is known of the backbone, s."""


@dataclass(kw_only=True, slots=True)
class Known:
    """Everything that decides a climb."""

    request: SearchRequest
    samples: Samples
    prepared: Prepared
    events: list[Event]
    costs: dict[tuple[str, int, float], Cost] = field(default_factory=dict)
    unmeasurable: set[str] = field(default_factory=set)
    """Backbones that no worker could measure in this search: nothing is predicted of them."""
    _trials: dict[str, Trial] = field(default_factory=dict, init=False)
    _folded: int = field(default=0, init=False)
    _ends: int = field(default=0, init=False)
    _forecast: tuple[tuple[int, int], Forecast] | None = field(default=None, init=False)

    @property
    def trials(self) -> dict[str, Trial]:
        """All trials of the study, by id, in the order in which they first started."""
        for event in self.events[self._folded :]:  # folded once: admission asks before every trial
            add_event(self._trials, event)
            self._ends += isinstance(event, TrialEnded)
        self._folded = len(self.events)
        return self._trials

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

    def starts(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        """Return a tier's start recipes, as the space lists them."""
        return start_configs(tier, self.prepared.weights.kind)[: tier.trials]

    def macs(self, config: TrialConfig) -> int:
        """Return the multiply-accumulates of one forward pass of one image."""
        return self.prepared.facts[config.backbone, config.resolution].macs

    def is_measured(self, backbone: str) -> bool:
        """Say whether anything was measured of a backbone."""
        return any(name == backbone for name, _, _ in self.costs)

    def reckoned(self) -> dict[tuple[str, int, float], Cost]:
        """Return what the start recipes cost whose backbones were not measured, by their arithmetic."""
        if not self.costs:
            return {}
        starts = [each for space in self.prepared.spaces for tier in space.tiers for each in self.starts(tier)]
        fresh = [
            each for each in starts if not self.is_measured(each.backbone) and each.backbone not in self.unmeasurable
        ]
        return {cost_key(each): reckon(self.costs.values(), each, self.macs(each)) for each in fresh}

    def worth_measuring(self, configs: Sequence[TrialConfig], left: float | None) -> list[TrialConfig]:
        """Return the configurations that could end in some seconds, by what is measured or their arithmetic.

        Args:
            configs: Any.
            left: Seconds; None for no limit. As long as nothing is measured at all, only the least arithmetic is worth
                it: it tells of the others.
        """
        if left is None or not configs:
            return list(configs)
        if not self.costs:
            return [min(configs, key=self.macs)]
        forecast = self.forecast()
        return [each for each in configs if (forecast.seconds(each) or 0.0) <= RECKONING_IS_OFF * left]

    def effort(self, config: TrialConfig) -> float:
        """Return a trial's training arithmetic, multiply-accumulates a dev row.

        What is trained is passed three times a step (forwards, and twice backwards) and once for scoring, in every
        epoch of every fold; what is frozen once a view, unless a trial before has left its activations.
        """
        folds, epochs = self.samples.num_folds, config.recipe.epochs
        trained = (1.0 - config.freeze) * epochs * (3 * (folds - 1) + 1)
        views = 1 if cost_key(config) in self.forecast().built else epochs + 1  # reading them is not free either
        return self.macs(config) * (trained + config.freeze * views)

    def forecast(self) -> Forecast:
        """Return the predictor of seconds, corrected by what finished trials took."""
        trials = self.trials
        known = (self._ends, len(self.costs))
        if self._forecast is None or self._forecast[0] != known:  # made once: every suggestion asks again and again
            self._forecast = (known, self._predictor(list(trials.values())))
        return self._forecast[1]

    def _predictor(self, trials: Sequence[Trial]) -> Forecast:
        folds = self.samples.num_folds
        held_out = len(self.samples.dev) / folds
        sizes = FoldSizes(train=len(self.samples.dev) - held_out, held_out=held_out, folds=folds)
        costs = {**self.reckoned(), **self.costs}
        stretch = observed_stretch(trials, Forecast(costs, sizes))
        built = frozenset(cost_key(trial.config) for trial in trials if trial.is_completed)
        return Forecast(costs, sizes, stretch, built)

    def seconds_left(self, config: TrialConfig) -> float | None:
        """Return the predicted seconds of what a trial has still to train; None where nothing was measured."""
        predicted, trial = self.forecast().seconds(config), self.trials.get(config.trial_id)
        if predicted is None or trial is None or not trial.epochs or not trial.is_of(self.samples.version):
            return predicted
        return predicted * (1.0 - trial.epochs[-1].step / trial.started.total_steps)

    def hang_timeout(self, config: TrialConfig) -> float:
        """Return how long an epoch may take, with all that comes before it, until its worker is taken to hang, s."""
        parts = self.forecast().parts(config)
        if parts is None:
            return UNMEASURED_HANG_TIMEOUT
        # A head alone trains all folds in an epoch; a prefix may be computed for all views in the first.
        return max(MIN_HANG_TIMEOUT, HANGS_AFTER * (parts.epoch * self.samples.num_folds + parts.prefix))

    def describe(self, tier: str) -> Callable[[TrialConfig, bool], TrialStarted]:
        """Return what makes the ledger's record of a trial that starts in a tier."""

        def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
            facts = self.prepared.facts[config.backbone, config.resolution]
            return TrialStarted(
                trial_id=config.trial_id,
                tier=tier,
                config=config,
                family=self.prepared.families[config.backbone],
                is_start=is_start,
                total_steps=config.recipe.epochs * self.samples.num_folds,
                params=facts.params,
                macs=facts.macs,
                weights_source=self.prepared.weights.source,
                licence=self.prepared.licence_of(config.backbone),
                data_version=self.samples.version,
                time=time.time(),
            )

        return describe
