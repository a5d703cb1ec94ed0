"""What to try next: start recipes first, then Optuna, told the truth about every trial. Knows nothing of ray.

Each suggestion is a function of (seed, its number, what is known of the tier's trials): the sampler is built anew from
the records each time, so that a search that died goes on as if it had not.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from spine_ray.core.seeds import derive_seed
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import build_config, sampled_values, searched_fields
from spine_ray.space.fields import Choice, Scalar, Uniform
from spine_ray.space.recipes import WeightsKind
from spine_ray.space.schema import TierSpace

_CONTROL_PLACE = 2
"""How many trials are handed out before the control, where there are as many."""
_ASKS = 10
"""Suggestions asked of the sampler; it may insist on what was tried, or what is not admitted."""
_DRAWS = 100
"""Suggestions then drawn at random before giving up on one that is new and admitted."""
_LED = 5
"""Suggestions after the start recipes that lean to what was screened best; the sampler would draw them blindly."""
_CHEAPER = 0.5
"""Of several suggestions, one that costs a quarter is taken twice as readily (docs/log.md)."""
_REMEMBERED = 200
"""Most trials the sampler is built from: the newest."""
_ROUNDING = 0.01
"""Relative distance beyond a bound that rounding to three digits can explain."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of one configuration of the tier."""

    config: TrialConfig
    state: str
    """`running`, `completed`, `stopped` or `failed`."""
    step: int = 0
    log_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a setting did for a backbone of an earlier tier, which a sampler may take for a hint at the next."""

    config: TrialConfig
    change: float
    """Its log-loss minus that of the backbone's start recipe, nats; below 0 is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchDomain:
    """What may be suggested in a tier."""

    tier: TierSpace
    weights: WeightsKind
    buildable: frozenset[tuple[str, int]]
    """(backbone, resolution) pairs that can be built."""
    seed: int
    favoured: tuple[str, ...] = ()
    """Backbones by what their frozen features promise, best first; empty where nothing was screened."""
    lessons: tuple[Lesson, ...] = ()
    """Of earlier tiers."""


Ask = Callable[[SearchDomain, Sequence[Outcome], int, int], TrialConfig]
"""From a domain, what is known, the number of the suggestion and the attempt at it to a configuration."""


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
    ask: Ask
    """Returns a suggestion; it may be one that was tried, or one that is not admitted."""
    refused: dict[str, tuple[TrialConfig, str]] = field(default_factory=dict)

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
        for attempt in range(_ASKS + _DRAWS):
            config = self.ask(self.domain, list(self.outcomes.values()), number, attempt)
            if config.trial_id not in found and config.trial_id not in self.outcomes and self._is_admitted(config):
                found[config.trial_id] = config
            if found and attempt >= _ASKS - 1:
                break
        return list(found.values())

    def _cheap_first(self, found: Sequence[TrialConfig], number: int) -> TrialConfig:
        """Draw one of several suggestions, cheap ones more readily.

        By arithmetic, not by measured seconds: those differ from run to run, and what is tried must not.
        """
        rng = random.Random(derive_seed(self.domain.seed, "cheap", self.domain.tier.name, number))
        return rng.choices(found, [self.effort(config) ** -_CHEAPER for config in found])[0]

    def tell(self, outcome: Outcome) -> None:
        """Record how a trial ended."""
        self.outcomes[outcome.config.trial_id] = outcome

    def _is_admitted(self, config: TrialConfig) -> bool:
        if config.trial_id in self.refused:
            return False
        reason = self.admit(config)
        if reason is not None:
            self.refused[config.trial_id] = (config, reason)
        return reason is None


@dataclass(slots=True)
class Queue:
    """Hands out a tier's trials one after the other, the shuffled-label control among them."""

    suggester: Suggester
    control: TrialConfig | None
    """It is handed out third, or last where there are fewer trials, and nobody is told how it went."""
    _handed: int = 0

    def next_trial(self) -> "Handed | None":
        """Return the next trial, or None when the tier is over."""
        self._handed += 1
        if self._handed > _CONTROL_PLACE and (control := self._take_control()):
            return control
        config = self.suggester.next_config()
        return self._take_control() if config is None else Handed(config)

    def _take_control(self) -> "Handed | None":
        control, self.control = self.control, None
        if control is None or self.suggester.admit(control) is not None:
            return None
        return Handed(control, is_control=True)


@dataclass(frozen=True, slots=True)
class Handed:
    """A trial that was handed out."""

    config: TrialConfig
    is_control: bool = False


def suggest(domain: SearchDomain, outcomes: Sequence[Outcome], number: int, attempt: int) -> TrialConfig:
    """Ask a sampler that is built from the outcomes alone; from the eleventh attempt on, draw at random."""
    seed = derive_seed(domain.seed, "suggest", domain.tier.name, number, attempt) % 2**32
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler: BaseSampler = RandomSampler(seed=seed)
    if attempt < _ASKS:
        sampler = TPESampler(seed=seed, n_startup_trials=5, multivariate=True, constant_liar=True)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    remembered = [outcome for outcome in outcomes if _is_in_range(domain, outcome.config)][-_REMEMBERED:]
    study.add_trials([_record(domain, outcome) for outcome in (*_taught(domain, outcomes), *remembered)])
    names = _backbones(domain)
    if attempt < _ASKS and number < len(names) + _LED and (led := _led_backbone(domain, names, seed)):
        study.enqueue_trial({"backbone": led})
    backbones = CategoricalDistribution(names)
    freezes = CategoricalDistribution(domain.tier.freezes)
    recipe = _recipe_distributions(domain.tier)
    asked = study.ask({"backbone": backbones, "freeze": freezes, **recipe})
    backbone: str = asked.params["backbone"]
    name, resolutions = _resolutions(domain, backbone)
    resolution = int(asked.suggest_categorical(name, resolutions))
    values: dict[str, Scalar] = {each: asked.params[each] for each in recipe}
    config = build_config(domain.tier, domain.weights, backbone, resolution, asked.params["freeze"], values)
    if "lr" not in values:
        return config
    return replace(config, recipe=replace(config.recipe, lr=float(f"{config.recipe.lr:.3g}")))


def draw(domain: SearchDomain, outcomes: Sequence[Outcome], number: int, attempt: int) -> TrialConfig:
    """Draw a configuration blindly, as a sampler does that has not learnt anything yet."""
    rng = random.Random(derive_seed(domain.seed, "draw", domain.tier.name, number, attempt))
    backbone = rng.choice(_backbones(domain))
    _, resolutions = _resolutions(domain, backbone)
    values: dict[str, Scalar] = {}
    for name, distribution in _recipe_distributions(domain.tier).items():
        if isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            values[name] = low * (high / low) ** rng.random() if distribution.log else rng.uniform(low, high)
        elif isinstance(distribution, CategoricalDistribution):
            values[name] = cast("Scalar", rng.choice(distribution.choices))
    freeze = rng.choice(domain.tier.freezes)
    return build_config(domain.tier, domain.weights, backbone, rng.choice(resolutions), freeze, values)


def _taught(domain: SearchDomain, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return earlier tiers' lessons as outcomes of this tier, the backbones in turn: each as far from its start."""
    starts = {
        outcome.config.backbone: outcome.log_loss
        for outcome in reversed(outcomes)
        if outcome.state == "completed" and outcome.log_loss is not None and math.isfinite(outcome.log_loss)
    }
    backbones = [backbone for backbone in _backbones(domain) if backbone in starts]
    taught = []
    for place, lesson in enumerate(domain.lessons if backbones else ()):
        backbone = backbones[place % len(backbones)]
        config, tier = replace(lesson.config, backbone=backbone), domain.tier
        fits = (backbone, config.resolution) in domain.buildable and config.resolution in tier.resolutions
        if fits and config.freeze in tier.freezes and _is_in_range(domain, config):
            loss = (starts[backbone] or 0.0) + lesson.change
            taught.append(Outcome(config, "completed", 0, loss))
    return taught


def _led_backbone(domain: SearchDomain, names: Sequence[str], seed: int) -> str | None:
    """Draw a backbone, each half as likely as the one that was screened better; none is ever left out."""
    ranked = [name for name in domain.favoured if name in names]
    if not ranked:
        return None
    ranked += [name for name in names if name not in ranked]
    weights = [2.0**-rank for rank in range(len(ranked))]
    return random.Random(seed).choices(ranked, weights)[0]


def _record(domain: SearchDomain, outcome: Outcome) -> FrozenTrial:
    params, distributions = _params(domain, outcome.config)
    described: dict[str, Any] = {"params": params, "distributions": distributions}
    if outcome.state == "running":
        return create_trial(state=TrialState.RUNNING, **described)
    loss = outcome.log_loss
    if loss is None or not math.isfinite(loss) or outcome.state == "failed":
        return create_trial(state=TrialState.FAIL, **described)
    if outcome.state == "stopped":
        return create_trial(state=TrialState.PRUNED, intermediate_values={outcome.step: loss}, **described)
    return create_trial(state=TrialState.COMPLETE, value=loss, **described)


def _params(domain: SearchDomain, config: TrialConfig) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
    name, resolutions = _resolutions(domain, config.backbone)
    params: dict[str, Any] = {"backbone": config.backbone, name: config.resolution, "freeze": config.freeze}
    distributions: dict[str, BaseDistribution] = {
        "backbone": CategoricalDistribution(_backbones(domain)),
        name: CategoricalDistribution(resolutions),
        "freeze": CategoricalDistribution(domain.tier.freezes),
    }
    values = sampled_values(domain.tier, domain.weights, config)
    for each, distribution in _recipe_distributions(domain.tier).items():
        params[each] = _clipped(distribution, values[each])
        distributions[each] = distribution
    return params, distributions


def _is_in_range(domain: SearchDomain, config: TrialConfig) -> bool:
    """Whether the sampler can be told of a configuration: another space's trial may have values beyond this one's."""
    values = sampled_values(domain.tier, domain.weights, config)
    for each, distribution in _recipe_distributions(domain.tier).items():
        value = values[each]
        if isinstance(distribution, CategoricalDistribution):
            if value not in distribution.choices:
                return False
        elif not math.isclose(float(value), float(_clipped(distribution, value)), rel_tol=_ROUNDING):
            return False
    return True


def _clipped(distribution: BaseDistribution, value: Scalar) -> Scalar:
    """Return a value led back over a bound that rounding has crossed."""
    if isinstance(distribution, FloatDistribution):
        return min(max(float(value), distribution.low), distribution.high)
    return value


def _backbones(domain: SearchDomain) -> list[str]:
    buildable = {backbone for backbone, _ in domain.buildable}
    return [backbone for backbone in domain.tier.backbones if backbone in buildable]


def _resolutions(domain: SearchDomain, backbone: str) -> tuple[str, list[int]]:
    """Return the parameter's name and choices: its own name where a backbone cannot be built at all resolutions."""
    choices = [each for each in domain.tier.resolutions if (backbone, each) in domain.buildable]
    name = "resolution" if len(choices) == len(domain.tier.resolutions) else f"resolution of {backbone}"
    return name, choices


def _recipe_distributions(tier: TierSpace) -> dict[str, BaseDistribution]:
    distributions: dict[str, BaseDistribution] = {}
    for name, searched in searched_fields(tier).items():
        if isinstance(searched, Choice):
            distributions[name] = CategoricalDistribution(searched.values)
        else:
            is_log = not isinstance(searched, Uniform)
            distributions[name] = FloatDistribution(searched.low, searched.high, log=is_log)
    return distributions
