"""A climb that trains nothing: trials last as long as their measured costs say, losses are drawn, gates are told."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spine_ray.climb.decisions import Question
from spine_ray.climb.known import Known
from spine_ray.core.epoch_record import ALL_FOLDS
from spine_ray.core.seeds import derive_seed
from spine_ray.core.soundness import CHECKED_ROWS
from spine_ray.ladder.gates import GateDecision, Verdict
from spine_ray.ladder.prediction import Effort
from spine_ray.sampling.sampler import random_suggest
from spine_ray.sampling.simulation import VirtualClock, simulate_tier
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone, Event
from spine_ray.study.tables import Cost, cost_key
from spine_ray.study.trials import Trial

TIER_SECONDS = 4.0
"""Ray Tune's own start and end of a tier, the gate before it and the table after it (docs/log.md)."""
CHECK_PASSES, CHECK_STEPS = 4, 60
"""Of the checks before training: pictures through the frozen backbone, and training steps, at most."""
_BEST, _SPREAD, _LUCK = 0.5, 0.3, 0.1
"""Drawn losses: between configurations, and between the epochs of one. Only their order matters."""


COSTS_ARE_OFF = (0.8, 1.3)
"""Seconds that trials take over what their measured costs say (docs/log.md)."""


@dataclass(slots=True)
class Rehearsal:
    """Carries a climb out on a virtual clock.

    Args:
        known: A copy of what the study knows, which grows as the trials are played; what could not be measured of it
            is not played.
        clock: The time.
        workers: How many trials run at once.
        verdicts: What the gates say, one after the other.
        seed: Decides what is suggested, how trials do and how far the costs are off.
        has_control: Whether the shuffled-label control was run before.
    """

    known: Known
    clock: VirtualClock
    workers: int
    verdicts: Iterator[Verdict]
    seed: int
    has_control: bool
    tiers: dict[str, Effort] = field(default_factory=dict)
    """What each tier took, by name."""
    _random: random.Random = field(init=False)
    _off: float = field(init=False)

    def __post_init__(self) -> None:
        """Draw how far the measured costs are off in this rehearsal."""
        self._random = random.Random(derive_seed(self.seed, "rehearsal"))
        self._off = self._random.uniform(*COSTS_ARE_OFF)

    def now(self) -> float:
        """Return the time of the rehearsal."""
        return self.clock.now

    def say(self, line: str) -> None:
        """Keep silent."""

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Do nothing: what was not measured before is reckoned."""

    def sample_probes(self, configs: Sequence[TrialConfig], count: int) -> Mapping[str, float]:
        """Return nothing: which probe is promising cannot be simulated, and the work on it is part of the probe's."""
        return {}

    def check(self, configs: Sequence[TrialConfig]) -> None:
        """Let the time of the checks before training pass."""
        config = next(filter(self._is_measured, configs), None)
        if config is None:
            return
        cost = nearest_cost(self.known.costs, config)
        passes = CHECK_PASSES * min(CHECKED_ROWS, len(self.known.samples.dev)) / cost.infer_images_s
        # The batch is learnt after a few of its steps, or looked at until the time for it is over.
        steps = self._random.uniform(0.05, 1.0) * CHECK_STEPS * config.training.batch_size / cost.train_images_s
        self.clock.now += (passes + min(steps, 10.0)) * self._off

    def run(self, plan: TierPlan, question: str) -> None:
        """Play a tier's trials."""
        began, events = self.clock.now, list[Event]()
        self.clock.now += TIER_SECONDS * self._random.uniform(0.5, 1.5)

        def happened(event: Event) -> None:
            events.append(event)
            self.known.events.append(event)

        def admit(config: TrialConfig, now: float) -> str | None:
            return plan.admit(config, now) if self._is_measured(config) else "it could not be measured"

        domain = replace(plan.domain, seed=derive_seed(self.seed, "tier", plan.domain.seed) % 2**32)
        simulate_tier(
            replace(plan, domain=domain, admit=admit, suggest=random_suggest),
            self.workers,
            self.clock,
            self._script,
            happened,
        )
        self.has_control = True
        if not events:  # where nothing is admitted no tier is started
            self.clock.now = began
            return
        name = plan.domain.tier.name
        self.tiers[name] = _added(self.tiers.get(name), self._effort(events, self.clock.now - began))

    def _is_measured(self, config: TrialConfig) -> bool:
        if config.is_probe:
            return self.known.predicted_seconds(config) is not None
        return self.known.forecast().parts(config) is not None

    def decide(self, question: Question) -> GateDecision:
        """Say what this rehearsal is about."""
        return GateDecision(
            gate="sound" if question.place == 1 else "plateau",
            after=question.space.tiers[question.place - 1].name,
            verdict=next(self.verdicts),
            reason="a rehearsal",
            numbers={},
        )

    def _script(self, config: TrialConfig) -> list[EpochDone]:
        """Return the epochs of a trial: as long as the costs say, and as good as luck has it."""
        if config.is_probe:
            return [self._probe(config)]
        known, recipe = self.known, config.training
        forecast = known.forecast()
        parts = forecast.parts(config)
        if parts is None:
            raise ValueError(f"the cost of {config.backbone} was never measured")
        folds = known.samples.num_folds
        luck = random.Random(derive_seed(self.seed, "trial", config.trial_id))
        quality = _BEST + luck.gauss(0.0, _SPREAD)
        # The forecast is stretched for the sake of budgets; how far costs are off is drawn here.
        times = self._off / forecast.stretch
        epochs = []
        for turn in range(recipe.epochs * folds):
            # Each epoch of the first fold asks for a view that nobody has computed.
            prefix = parts.prefix / recipe.epochs if turn < recipe.epochs else 0.0
            epochs.append(
                _epoch(
                    config,
                    step=turn + 1,
                    fold=turn // recipe.epochs,
                    log_loss=max(1e-6, quality + luck.gauss(0.0, _LUCK)),
                    seconds=max(1e-6, (parts.epoch + prefix) * times),
                    images=len(known.samples.dev) * (folds - 1) // folds,
                )
            )
        return epochs

    def _probe(self, config: TrialConfig) -> EpochDone:
        """Return the one step of a probe."""
        seconds = (self.known.predicted_seconds(config) or 0.0) * self._off
        luck = random.Random(derive_seed(self.seed, "trial", config.trial_id))
        return _epoch(
            config,
            step=1,
            fold=ALL_FOLDS,
            log_loss=max(1e-6, _BEST + luck.gauss(0.0, _SPREAD)),
            seconds=max(1e-6, seconds),
            images=len(self.known.samples.dev),
        )

    def _effort(self, events: Sequence[Event], wall: float) -> Effort:
        epochs = [event for event in events if isinstance(event, EpochDone)]
        trials = {event.trial_id: self.known.trials[event.trial_id] for event in epochs}
        return Effort(
            trials=len(trials),
            epochs=sum(trial.epochs[-1].step for trial in trials.values()),
            images=sum(epoch.train_images for epoch in epochs),
            device_seconds=sum(epoch.seconds for epoch in epochs),
            wall_seconds=wall,
            disk_mb=_activations_mb(self.known, list(trials.values())),
            peak_mb=self.workers
            * max((nearest_cost(self.known.costs, each.config).peak_mb for each in trials.values()), default=0.0),
        )


def _epoch(config: TrialConfig, *, step: int, fold: int, log_loss: float, seconds: float, images: int) -> EpochDone:
    return EpochDone(
        trial_id=config.trial_id,
        step=step,
        fold=fold,
        epoch=1 if config.is_probe else (step - 1) % config.training.epochs + 1,
        train_loss=log_loss,
        log_loss=log_loss,
        accuracy=0.0,
        seconds=seconds,
        train_images=images,
        train_images_s=images / seconds,
        score_images_s=images / seconds,
        peak_mb=0.0,
        views=1 if config.is_probe else config.training.epochs,
        micro_batch=1 if config.is_probe else config.training.batch_size,
        note="",
    )


def nearest_cost(costs: Mapping[tuple[str, int, float], Cost], config: TrialConfig) -> Cost:
    """Return what was measured of a backbone nearest to a configuration.

    Raises:
        ValueError: If nothing was.
    """
    known = [cost for cost in costs.values() if cost.backbone == config.backbone]
    if not known:
        raise ValueError(f"the cost of {config.backbone} was never measured")
    return min(known, key=lambda cost: (abs(cost.freeze - config.freeze), abs(cost.resolution - config.resolution)))


def _activations_mb(known: Known, trials: Sequence[Trial]) -> float:
    """Return what the activations of the trials' frozen prefixes take on disk, each prefix once."""
    rows, found = len(known.samples.dev), dict[tuple[str, int, float], float]()
    for trial in trials:
        config = trial.config
        if 0 < config.freeze < 1:
            picture = nearest_cost(known.costs, config).activation_mb or 0.0
            found[cost_key(config)] = picture * rows * (config.training.epochs + 1)
    return sum(found.values())


def _added(before: Effort | None, more: Effort) -> Effort:
    """Return the effort of a tier that was run once more."""
    if before is None:
        return more
    return Effort(
        trials=before.trials + more.trials,
        epochs=before.epochs + more.epochs,
        images=before.images + more.images,
        device_seconds=before.device_seconds + more.device_seconds,
        wall_seconds=before.wall_seconds + more.wall_seconds,
        disk_mb=before.disk_mb + more.disk_mb,
        peak_mb=max(before.peak_mb, more.peak_mb),
    )
