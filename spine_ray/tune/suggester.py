"""What to try next: start recipes first, then Optuna, told the truth about every trial. Knows nothing of ray.

Each suggestion is a function of (seed, its number, what is known of the tier's trials): the sampler is built anew from
the records each time, so that a search that died goes on as if it had not.
"""

import copy
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from spine_ray.core.seeds import derive_seed
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import build_config, sampled_values, searched_fields
from spine_ray.space.fields import Choice, Scalar, Uniform
from spine_ray.space.recipes import WeightsKind
from spine_ray.space.schema import TierSpace

_CONTROL_PLACE = 2
"""How many trials are handed out before the control, where there are as many."""
_ASKS, _ASKS_LATER = 10, 4
"""Suggestions asked of the sampler, which may insist on what was tried; fewer where hundreds of trials are known."""
_DRAWS = 100
"""Suggestions then drawn at random before giving up on one that is new and admitted."""
_LED = 5
"""Suggestions after the start recipes that lean to what was screened best; the sampler would draw them blindly."""
_CHEAPER = 0.5
"""Of several suggestions, one that costs a quarter is taken twice as readily (docs/log.md)."""
_REMEMBERED, _AWAITED = 200, 50
"""Most trials the sampler is built from: the newest that have ended, and the newest that have not."""
_STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_NO_TIME = datetime(1970, 1, 1)
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


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SearchDomain:
    """What may be suggested in a tier. Two are the same only if they are one, so that what follows from it is kept."""

    tier: TierSpace
    weights: WeightsKind
    buildable: frozenset[tuple[str, int]]
    """(backbone, resolution) pairs that can be built."""
    seed: int
    favoured: tuple[str, ...] = ()
    """Backbones by what their frozen features promise, best first; empty where nothing was screened."""
    lessons: tuple[Lesson, ...] = ()
    """Of earlier tiers."""


Ask = Callable[[SearchDomain, Sequence[Outcome], int], Iterator[TrialConfig]]
"""From a domain, what is known and the number of the suggestion to configurations without end, to choose from."""


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
        asks = _asks(len(self.outcomes))
        asked = self.ask(self.domain, tuple(self.outcomes.values()), number)
        for attempt, config in enumerate(itertools.islice(asked, asks + _DRAWS), 1):
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


def suggest(domain: SearchDomain, outcomes: Sequence[Outcome], number: int) -> Iterator[TrialConfig]:
    """Ask a sampler that is built from the outcomes alone; after the first suggestions draw at random."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    told = (_record(domain, outcome) for outcome in (*_taught(domain, outcomes), *_remembered(domain, outcomes)))
    study.add_trials([record for record in told if record is not None])
    names, kept, asks = _backbones(domain), dict[Any, Any](), _asks(len(outcomes))
    for attempt in itertools.count():
        seed = derive_seed(domain.seed, "suggest", domain.tier.name, number, attempt) % 2**32
        study.sampler = RandomSampler(seed=seed) if attempt >= asks else _Sampler(seed, kept)
        if attempt < asks and number < len(names) + _LED and (led := _led_backbone(domain, names, seed)):
            study.enqueue_trial({"backbone": led})
        asked = study.ask({**_shared_distributions(domain), **_recipe_distributions(domain)})
        config = _config_of(domain, asked)
        study.tell(asked, state=TrialState.FAIL)  # nothing is known of it, so the next is asked as if it were the first
        yield config


def _asks(known: int) -> int:
    """Return how many suggestions are asked of the sampler where so many trials are known."""
    return _ASKS if known <= _REMEMBERED else _ASKS_LATER


class _Sampler(TPESampler):
    """Works out once for all asks what does not depend on luck; of Optuna's own affairs only to save time."""

    def __init__(self, seed: int, kept: dict[Any, Any]) -> None:
        super().__init__(seed=seed, n_startup_trials=5, multivariate=True, constant_liar=True)
        self._kept = kept

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        if "space" not in self._kept:
            self._kept["space"] = super().infer_relative_search_space(study, trial)
        return cast("dict[str, BaseDistribution]", self._kept["space"])

    def _build_parzen_estimator(
        self, study: optuna.Study, search_space: dict[str, BaseDistribution], trials: list[Any], handle_below: bool
    ) -> Any:
        key = (*search_space, handle_below)
        if key not in self._kept:
            self._kept[key] = super()._build_parzen_estimator(study, search_space, trials, handle_below)
        return self._kept[key]


def _config_of(domain: SearchDomain, asked: optuna.Trial) -> TrialConfig:
    """Return the configuration that a sampler has chosen."""
    backbone, freeze = asked.params["backbone"], asked.params["freeze"]
    name, resolutions = _resolutions(domain, backbone)
    values: dict[str, Scalar] = {each: asked.params[each] for each in _recipe_distributions(domain)}
    resolution = int(asked.suggest_categorical(name, resolutions))
    config = build_config(domain.tier, domain.weights, backbone, resolution, freeze, values)
    if "lr" not in values:
        return config
    return replace(config, recipe=replace(config.recipe, lr=float(f"{config.recipe.lr:.3g}")))


def draw(domain: SearchDomain, outcomes: Sequence[Outcome], number: int) -> Iterator[TrialConfig]:
    """Draw configurations blindly, as a sampler does that has not learnt anything yet."""
    for attempt in itertools.count():
        yield _drawn(domain, random.Random(derive_seed(domain.seed, "draw", domain.tier.name, number, attempt)))


def _drawn(domain: SearchDomain, rng: random.Random) -> TrialConfig:
    backbone = rng.choice(_backbones(domain))
    _, resolutions = _resolutions(domain, backbone)
    values: dict[str, Scalar] = {}
    for name, distribution in _recipe_distributions(domain).items():
        if isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            values[name] = low * (high / low) ** rng.random() if distribution.log else rng.uniform(low, high)
        elif isinstance(distribution, CategoricalDistribution):
            values[name] = cast("Scalar", rng.choice(distribution.choices))
    freeze = rng.choice(domain.tier.freezes)
    return build_config(domain.tier, domain.weights, backbone, rng.choice(resolutions), freeze, values)


def _remembered(domain: SearchDomain, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the newest outcomes that the sampler can be told of, oldest first.

    Those that run have a place of their own: where there are hundreds of workers, the newest trials all run.
    """
    room, kept = {True: _AWAITED, False: _REMEMBERED}, []
    for outcome in reversed(outcomes):
        is_running = outcome.state == "running"
        if room[is_running] and _record(domain, outcome) is not None:
            room[is_running] -= 1
            kept.append(outcome)
        if not any(room.values()):
            break
    return kept[::-1]


def _taught(domain: SearchDomain, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return earlier tiers' lessons as outcomes of this tier, the backbones in turn: each as far from its start."""
    if not domain.lessons:
        return []
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
        if fits and config.freeze in tier.freezes:
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


class _Record(FrozenTrial):
    """What the sampler is told of an outcome. Nobody changes its values, so its study need not copy them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Record":
        return copy.copy(self)


@functools.lru_cache(maxsize=4 * (_REMEMBERED + _AWAITED))
def _record(domain: SearchDomain, outcome: Outcome) -> _Record | None:
    """Return an outcome as the sampler is told of it; None where another space's trial has values beyond this one's."""
    described = _described(domain, outcome.config)
    if described is None:
        return None
    state, loss = _STATES[outcome.state], outcome.log_loss
    if state != TrialState.RUNNING and (loss is None or not math.isfinite(loss)):
        state = TrialState.FAIL
    return _Record(
        number=-1,
        trial_id=-1,
        state=state,
        value=loss if state == TrialState.COMPLETE else None,
        intermediate_values={outcome.step: loss} if state == TrialState.PRUNED and loss is not None else {},
        datetime_start=_NO_TIME,
        datetime_complete=None if state == TrialState.RUNNING else _NO_TIME,
        user_attrs={},
        system_attrs={},
        **described,
    )


def _described(domain: SearchDomain, config: TrialConfig) -> dict[str, Any] | None:
    name, resolutions = _resolutions(domain, config.backbone)
    params: dict[str, Any] = {"backbone": config.backbone, name: config.resolution, "freeze": config.freeze}
    searched = _recipe_distributions(domain)
    for each, value in sampled_values(domain.tier, domain.weights, config).items():
        if not _is_in_range(searched[each], value):
            return None
        params[each] = _clipped(searched[each], value)
    distributions = {**_shared_distributions(domain), name: CategoricalDistribution(resolutions), **searched}
    return {"params": params, "distributions": distributions}


def _is_in_range(distribution: BaseDistribution, value: Scalar) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return math.isclose(float(value), float(_clipped(distribution, value)), rel_tol=_ROUNDING)


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


@functools.lru_cache(maxsize=16)
def _shared_distributions(domain: SearchDomain) -> dict[str, BaseDistribution]:
    """Return what every suggestion chooses, whatever its backbone."""
    return {
        "backbone": CategoricalDistribution(_backbones(domain)),
        "freeze": CategoricalDistribution(domain.tier.freezes),
    }


@functools.lru_cache(maxsize=16)
def _recipe_distributions(domain: SearchDomain) -> dict[str, BaseDistribution]:
    distributions: dict[str, BaseDistribution] = {}
    for name, searched in searched_fields(domain.tier).items():
        if isinstance(searched, Choice):
            distributions[name] = CategoricalDistribution(searched.values)
        else:
            is_log = not isinstance(searched, Uniform)
            distributions[name] = FloatDistribution(searched.low, searched.high, log=is_log)
    return distributions
