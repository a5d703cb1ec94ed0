"""The queue of a tier's trials: start recipes first, then suggestions, the shuffled-label control among them."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from spine_ray.core.seeds import derive_seed
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import WeightsKind
from spine_ray.space.schema import TierSpace

MODEL_TRIALS = 200
"""Most ended trials that a sampler is built from."""
_CONTROL_POSITION = 2
"""How many trials are handed out before the control, where there are as many."""
_ASKS, _ASKS_LATER = 10, 4
"""Suggestions asked of the sampler, which may insist on what was tried; fewer where hundreds of trials are known."""
_RANDOM_ASKS = 100
"""Suggestions then drawn at random before giving up on one that is new and admitted."""
_COST_EXPONENT = 0.5
"""Of several suggestions, one that costs a quarter is taken twice as readily (docs/log.md)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of one configuration of the tier."""

    config: TrialConfig
    state: str
    """`running`, `completed`, `stopped` or `failed`."""
    step: int = 0
    log_loss: float | None = None


@dataclass(frozen=True, slots=True)
class TransferHint:
    """The effect of a setting on a backbone of an earlier tier, a hint for the sampler of the next."""

    config: TrialConfig
    change: float
    """Its log-loss minus that of the backbone's start recipe, nats; below 0 is better."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SearchDomain:
    """The configurations that may be suggested in a tier. Compared by identity, as is what is cached of it."""

    tier: TierSpace
    weights: WeightsKind
    buildable: frozenset[tuple[str, int]]
    """(backbone, resolution) pairs that can be built."""
    seed: int
    favoured: tuple[str, ...] = ()
    """Backbones by the log-loss of their best probe, best first; empty where nothing was probed."""
    hints: tuple[TransferHint, ...] = ()
    """Of earlier tiers."""


SuggestFn = Callable[[SearchDomain, Sequence[Outcome], int], Iterator[TrialConfig]]
"""From a domain, what is known and the number of the suggestion to configurations without end, to choose from."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A configuration that was not tried."""

    config: TrialConfig
    reason: str


@dataclass(slots=True)
class Suggester:
    """Chooses configurations."""

    domain: SearchDomain
    waiting: list[TrialConfig]
    """Start recipes and interrupted trials that come before any suggestion, in order."""
    outcomes: dict[str, Outcome]
    """By trial id, in the order in which they started."""
    most_trials: int
    admit: Callable[[TrialConfig], str | None]
    """Returns why a configuration cannot be tried now, or None."""
    effort: Callable[[TrialConfig], float]
    """Returns a configuration's training arithmetic, above 0; only ratios count."""
    suggest: SuggestFn
    refused: dict[str, Refusal] = field(default_factory=dict)

    def next_config(self) -> TrialConfig | None:
        """Return the next configuration, or None when the tier is over."""
        while self.waiting:
            config = self.waiting.pop(0)
            if self._is_admitted(config):
                self.outcomes[config.trial_id] = Outcome(config, "running")
                return config
        if len(self.outcomes) >= self.most_trials:
            return None
        number = len(self.outcomes)
        found = self._candidates(number)
        if not found:
            return None
        chosen = self._cheap_first(found, number)
        self.outcomes[chosen.trial_id] = Outcome(chosen, "running")
        return chosen

    def _candidates(self, number: int) -> list[TrialConfig]:
        """Return new suggestions that are admitted: what the sampler says when asked again and again, else a draw."""
        found: dict[str, TrialConfig] = {}
        asks = sampler_asks(len(self.outcomes))
        asked = self.suggest(self.domain, tuple(self.outcomes.values()), number)
        for attempt, config in enumerate(itertools.islice(asked, asks + _RANDOM_ASKS), 1):
            trial_id = config.trial_id
            if trial_id not in found and trial_id not in self.outcomes and self._is_admitted(config):
                found[trial_id] = config
            if found and attempt >= asks:
                break
        return list(found.values())

    def _cheap_first(self, found: Sequence[TrialConfig], number: int) -> TrialConfig:
        """Draw one of several suggestions, cheap ones more readily.

        By arithmetic, not by measured seconds: those differ from run to run, and what is tried must not.
        """
        rng = random.Random(derive_seed(self.domain.seed, "cheap", self.domain.tier.name, number))
        return rng.choices(found, [self.effort(config) ** -_COST_EXPONENT for config in found])[0]

    def tell(self, outcome: Outcome) -> None:
        """Record how a trial ended."""
        self.outcomes[outcome.config.trial_id] = outcome

    def _is_admitted(self, config: TrialConfig) -> bool:
        if config.trial_id in self.refused:
            return False
        reason = self.admit(config)
        if reason is not None:
            self.refused[config.trial_id] = Refusal(config, reason)
        return reason is None


@dataclass(slots=True)
class TrialQueue:
    """Hands out a tier's trials one after the other, the shuffled-label control among them."""

    suggester: Suggester
    control: TrialConfig | None
    """It is handed out third, or last where there are fewer trials, and nobody is told how it went."""
    _count: int = 0

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The configurations that were not admitted so far."""
        return tuple(self.suggester.refused.values())

    def next_trial(self) -> "QueuedTrial | None":
        """Return the next trial, or None when the tier is over."""
        self._count += 1
        if self._count > _CONTROL_POSITION and (control := self._take_control()):
            return control
        config = self.suggester.next_config()
        return self._take_control() if config is None else QueuedTrial(config)

    def _take_control(self) -> "QueuedTrial | None":
        control, self.control = self.control, None
        if control is None or self.suggester.admit(control) is not None:
            return None
        return QueuedTrial(control, is_control=True)


@dataclass(frozen=True, slots=True)
class QueuedTrial:
    """A trial that was handed out."""

    config: TrialConfig
    is_control: bool = False


def sampler_asks(known: int) -> int:
    """Return how many suggestions are asked of the sampler where so many trials are known."""
    return _ASKS if known <= MODEL_TRIALS else _ASKS_LATER
