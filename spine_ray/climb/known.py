"""What is known of a study while it is climbed: rows, trials, measured costs; and what follows from them."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.data.samples import Samples
from spine_ray.ladder.budget import (
    RECKONING_IS_OFF,
    FoldSizes,
    Forecast,
    cost_from_probe,
    observed_stretch,
    probe_seconds,
    reckon,
    side_by_side,
)
from spine_ray.sampling.queue import SearchDomain, TransferHint
from spine_ray.space.arithmetic import FLOAT32, Device
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import belongs, probe_configs, start_configs
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted
from spine_ray.study.tables import Cost, cost_key
from spine_ray.study.trials import Trial, add_event

HANGS_AFTER = 10.0
"""Times its predicted seconds after which an epoch is taken to hang."""
MIN_HANG_TIMEOUT = 600.0
"""Seconds in which no epoch is taken to hang, however short it should be: a busy machine is no reason."""
UNMEASURED_HANG_TIMEOUT = 6 * 3600.0
"""The same where nothing is known of the backbone, s."""
ANSWER_SECONDS = 10.0
"""From the last trial to the answer without refits and test split: selection, report, last entries of the tracker."""
_LIKELY_MEMBERS = 4
"""Members for whose refits a search keeps time while it runs."""


@dataclass(kw_only=True, slots=True)
class Known:
    """Everything that decides a climb."""

    request: SearchRequest
    samples: Samples
    prepared: Prepared
    device: Device
    """What trials are computed on."""
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
            if isinstance(event, EpochDone):
                self._keep_cost(self._trials[event.trial_id].config, event)
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

    def probes_of_tier(self, tier: TierSpace) -> tuple[Trial, ...]:
        """Return the probes among a tier's present trials."""
        return tuple(trial for trial in self.of_tier(tier) if trial.config.is_probe)

    def fine_tunes_of_tier(self, tier: TierSpace) -> tuple[Trial, ...]:
        """Return the fine-tunes among a tier's present trials."""
        return tuple(trial for trial in self.of_tier(tier) if not trial.config.is_probe)

    def earlier_of_tier(self, tier: TierSpace) -> tuple[Trial, ...]:
        """Return a tier's completed trials on the rows as they were, lowest log-loss first."""
        kind, present = self.prepared.weights.kind, self.present
        earlier = [trial for name, trial in self.trials.items() if name not in present and trial.is_completed]
        mine = [trial for trial in earlier if not trial.config.is_probe and belongs(tier, kind, trial.config)]
        return tuple(sorted(mine, key=lambda trial: (trial.log_loss or 0.0, trial.trial_id)))

    def starts(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        """Return a tier's start recipes, as the space lists them."""
        return start_configs(tier, self.prepared.weights.kind)[: tier.trials]

    def probes(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        """Return a tier's probes that can be built, as the space lists them, the smallest resolution first."""
        facts = self.prepared.facts
        pairs = {pair for pair, known in facts.items() if known.features is not None}
        configs = probe_configs(tier, self.prepared.weights.kind)
        return tuple(config for config in configs if (config.backbone, config.resolution) in pairs)

    def domain(
        self, tier: TierSpace, favoured: tuple[str, ...] = (), hints: tuple[TransferHint, ...] = ()
    ) -> SearchDomain:
        """Return what may be suggested in a tier.

        Args:
            tier: The tier.
            favoured: Backbones by the log-loss of their best probe, best first.
            hints: What settings did in earlier tiers.
        """
        return SearchDomain(
            tier=tier,
            weights=self.prepared.weights.kind,
            buildable=frozenset(pair for pair in self.prepared.facts if pair[0] in tier.backbones),
            seed=self.request.seed,
            favoured=favoured,
            hints=hints,
        )

    def macs(self, config: TrialConfig) -> int:
        """Return the multiply-accumulates of one forward pass of one image."""
        return self.prepared.facts[config.backbone, config.resolution].macs

    def is_measured(self, backbone: str) -> bool:
        """Say whether the training of a backbone was measured."""
        return any(name == backbone and freeze < 1.0 for name, _, freeze in self.costs)

    def reckoned(self) -> dict[tuple[str, int, float], Cost]:
        """Return what the start recipes cost whose training was not measured.

        By the forward passes of the backbone's own probe, else by the arithmetic of one that was measured.
        """
        starts = [start for space in self.prepared.spaces for tier in space.tiers for start in self.starts(tier)]
        measured = [cost for cost in self.costs.values() if cost.freeze < 1.0]
        found = {}
        for start in starts:
            if self.is_measured(start.backbone) or start.backbone in self.unmeasurable:
                continue
            probes = [cost for cost in self.costs.values() if cost.freeze == 1.0]
            own = [cost for cost in probes if cost.backbone == start.backbone]
            if own:
                nearest = min(own, key=lambda cost: abs(cost.resolution - start.resolution))
                found[cost_key(start)] = cost_from_probe(nearest, start, self.macs(start))
            elif measured:
                found[cost_key(start)] = reckon(measured, start, self.macs(start))
            elif probes:
                nearest = min(probes, key=lambda cost: abs(cost.macs - self.macs(start)))
                reckoned = cost_from_probe(nearest, start, self.macs(start))
                found[cost_key(start)] = replace(reckoned, backbone=start.backbone)
        return found

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
        if config.is_probe:
            return float(self.macs(config))
        folds, epochs = self.samples.num_folds, config.training.epochs
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
        predicted, trial = self.predicted_seconds(config), self.trials.get(config.trial_id)
        if predicted is None or trial is None or not trial.epochs or not trial.is_of(self.samples.version):
            return predicted
        return predicted * (1.0 - trial.epochs[-1].step / trial.started.total_steps)

    def predicted_seconds(self, config: TrialConfig) -> float | None:
        """Return the predicted wall time of a trial on one worker, s; None where nothing tells of it.

        A probe that was never made is predicted by the completed one whose arithmetic is nearest.
        """
        predicted = self.forecast().seconds(config)
        if predicted is not None or not config.is_probe:
            return predicted
        made = [
            (self.costs[cost_key(trial.config)], trial.seconds)
            for trial in self.present.values()
            if trial.config.is_probe and trial.is_completed
        ]
        if not made:  # before the first probe: by the forward passes of a fine-tune that was measured
            costs = [cost for cost in self.costs.values() if cost.backbone == config.backbone]
            made = [(cost, len(self.samples.dev) / cost.infer_images_s) for cost in costs]
        return probe_seconds(made, self.macs(config), len(self.samples.dev))

    @property
    def refit_factor(self) -> float:
        """The time of a fine-tune with its fit on all rows, in units of its own: the fit takes what one fold takes."""
        return self.samples.num_folds / (self.samples.num_folds - 1)

    def refit_seconds(self, configs: Sequence[TrialConfig], workers: int) -> float:
        """Return the predicted wall time of fitting members once more and scoring them on the test split, s."""
        fitting = self.forecast().refit_seconds(configs, workers)  # first: it folds in what probes tell of costs
        scoring = [
            len(self.samples.test) / cost.infer_images_s
            for config in configs
            if (cost := self.costs.get(cost_key(config))) is not None
        ]
        return fitting + side_by_side(scoring, workers)

    def reserve(self, workers: int) -> float:
        """Return how many seconds to keep from now on for the way from the last trial to the answer."""
        completed = [trial for trial in self.present.values() if trial.is_completed]
        best = sorted(completed, key=lambda trial: trial.log_loss or math.inf)[:_LIKELY_MEMBERS]
        return ANSWER_SECONDS + self.refit_seconds([trial.config for trial in best], workers)

    def _keep_cost(self, config: TrialConfig, done: EpochDone) -> None:
        """Keep what a probe tells of the cost of its backbone's forward passes; what is known stays."""
        facts = self.prepared.facts.get((config.backbone, config.resolution))
        if not config.is_probe or facts is None or facts.features is None or cost_key(config) in self.costs:
            return
        head_macs = facts.features * len(self.samples.classes)
        # A matrix product beside a backbone is too short to be measured: it takes its share of the arithmetic.
        scoring = done.score_images_s * (facts.macs - head_macs) / head_macs
        self.costs[cost_key(config)] = Cost(
            backbone=config.backbone,
            resolution=config.resolution,
            freeze=config.freeze,
            device=self.device,
            arithmetic=str(FLOAT32),
            train_images_s=done.train_images_s,
            infer_images_s=1.0 / (1.0 / done.score_images_s + 1.0 / scoring),
            score_images_s=scoring,
            prefix_images_s=done.score_images_s,
            activation_mb=4 * facts.features / 1e6,
            peak_mb=done.peak_mb,
            macs=facts.macs,
            prefix_macs=facts.macs - head_macs,
            prefix_params=facts.params - head_macs - len(self.samples.classes),
        )

    def hang_timeout(self, config: TrialConfig) -> float:
        """Return how long an epoch may take, with all that comes before it, until its worker is taken to hang, s."""
        if config.is_probe:
            seconds = self.predicted_seconds(config)
            return UNMEASURED_HANG_TIMEOUT if seconds is None else max(MIN_HANG_TIMEOUT, HANGS_AFTER * seconds)
        parts = self.forecast().parts(config)
        if parts is None:
            return UNMEASURED_HANG_TIMEOUT
        # A prefix may be computed for all views in the first epoch.
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
                is_start=is_start and not config.is_probe,
                total_steps=1 if config.is_probe else config.training.epochs * self.samples.num_folds,
                params=facts.params,
                macs=facts.macs,
                weights_source=self.prepared.weights.source,
                licence=self.prepared.licence_of(config.backbone),
                data_version=self.samples.version,
                time=time.time(),
            )

        return describe
