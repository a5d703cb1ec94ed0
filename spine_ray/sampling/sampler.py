"""Suggestions: Optuna's TPE, or random ones.

Each suggestion is a function of (seed, its number, what is known of the tier's trials): the sampler is built anew from
the records each time, so that a search that died goes on as if it had not.
"""

import copy
import functools
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from spine_ray.core.seeds import derive_seed
from spine_ray.sampling.queue import MODEL_TRIALS, Outcome, SearchDomain, sampler_asks
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import build_config, sampled_values, searched_fields
from spine_ray.space.fields import Choice, Scalar, Uniform

_LED = 5
"""Suggestions after the start recipes that lean to whose probe is best; the sampler would draw them blindly."""
_AWAITED = 50
"""Most trials without an end that the sampler is built from, the newest."""
_STATES = {
    "running": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "stopped": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
_NO_TIME = datetime(1970, 1, 1)
_ROUNDING = 0.01
"""Relative distance beyond a bound that rounding to three digits can explain."""


def suggest(domain: SearchDomain, outcomes: Sequence[Outcome], number: int) -> Iterator[TrialConfig]:
    """Ask a sampler that is built from the outcomes alone; after the first suggestions draw at random."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    records = (
        _record(domain, outcome) for outcome in (*_transferred(domain, outcomes), *_remembered(domain, outcomes))
    )
    study.add_trials([record for record in records if record is not None])
    names, kept, asks = _backbones(domain), dict[Any, Any](), sampler_asks(len(outcomes))
    for attempt in itertools.count():
        seed = derive_seed(domain.seed, "suggest", domain.tier.name, number, attempt) % 2**32
        study.sampler = RandomSampler(seed=seed) if attempt >= asks else _Sampler(seed, kept)
        if attempt < asks and number < len(names) + _LED and (led := _led_backbone(domain, names, seed)):
            study.enqueue_trial({"backbone": led})
        asked = study.ask({**_shared_distributions(domain), **_recipe_distributions(domain)})
        config = _config_of(domain, asked)
        study.tell(asked, state=TrialState.FAIL)  # nothing is known of it, so the next is asked as if it were the first
        yield config


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
    return replace(config, recipe=replace(config.training, lr=float(f"{config.training.lr:.3g}")))


def random_suggest(domain: SearchDomain, outcomes: Sequence[Outcome], number: int) -> Iterator[TrialConfig]:
    """Draw configurations blindly, as a sampler does that has not learnt anything yet."""
    for attempt in itertools.count():
        yield _random_config(domain, random.Random(derive_seed(domain.seed, "draw", domain.tier.name, number, attempt)))


def _random_config(domain: SearchDomain, rng: random.Random) -> TrialConfig:
    backbone = rng.choice(_backbones(domain))
    _, resolutions = _resolutions(domain, backbone)
    values: dict[str, Scalar] = {}
    for name, distribution in _recipe_distributions(domain).items():
        if isinstance(distribution, FloatDistribution):
            low, high = distribution.low, distribution.high
            values[name] = low * (high / low) ** rng.random() if distribution.log else rng.uniform(low, high)
        elif isinstance(distribution, CategoricalDistribution):
            values[name] = cast("Scalar", rng.choice(distribution.choices))
    freeze = rng.choice(domain.tier.trained_freezes)
    return build_config(domain.tier, domain.weights, backbone, rng.choice(resolutions), freeze, values)


def _remembered(domain: SearchDomain, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the newest outcomes that the sampler can be told of, oldest first.

    Those that run have a place of their own: where there are hundreds of workers, the newest trials all run.
    """
    room, kept = {True: _AWAITED, False: MODEL_TRIALS}, []
    for outcome in reversed(outcomes):
        is_running = outcome.state == "running"
        if room[is_running] and _record(domain, outcome) is not None:
            room[is_running] -= 1
            kept.append(outcome)
        if not any(room.values()):
            break
    return kept[::-1]


def _transferred(domain: SearchDomain, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return earlier tiers' hints as outcomes of this tier, the backbones in turn: each as far from its start."""
    if not domain.hints:
        return []
    starts = {
        outcome.config.backbone: outcome.log_loss
        for outcome in reversed(outcomes)
        if outcome.state == "completed" and outcome.log_loss is not None and math.isfinite(outcome.log_loss)
    }
    backbones = [backbone for backbone in _backbones(domain) if backbone in starts]
    transferred = []
    for index, hint in enumerate(domain.hints if backbones else ()):
        backbone = backbones[index % len(backbones)]
        config, tier = replace(hint.config, backbone=backbone), domain.tier
        fits = (backbone, config.resolution) in domain.buildable and config.resolution in tier.resolutions_of(backbone)
        if fits and config.freeze in tier.trained_freezes:
            loss = (starts[backbone] or 0.0) + hint.change
            transferred.append(Outcome(config, "completed", 0, loss))
    return transferred


def _led_backbone(domain: SearchDomain, names: Sequence[str], seed: int) -> str | None:
    """Draw a backbone, each half as likely as the one whose probe is better; none is ever left out."""
    ranked = [name for name in domain.favoured if name in names]
    if not ranked:
        return None
    ranked += [name for name in names if name not in ranked]
    weights = [2.0**-rank for rank in range(len(ranked))]
    return random.Random(seed).choices(ranked, weights)[0]


class _Record(FrozenTrial):
    """An outcome as an Optuna trial. Its values never change, so its study need not copy them."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Record":
        return copy.copy(self)


@functools.lru_cache(maxsize=4 * (MODEL_TRIALS + _AWAITED))
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
    choices = [each for each in domain.tier.resolutions_of(backbone) if (backbone, each) in domain.buildable]
    name = "resolution" if choices == list(domain.tier.resolutions) else f"resolution of {backbone}"
    return name, choices


@functools.lru_cache(maxsize=16)
def _shared_distributions(domain: SearchDomain) -> dict[str, BaseDistribution]:
    """Return what every suggestion chooses, whatever its backbone."""
    return {
        "backbone": CategoricalDistribution(_backbones(domain)),
        "freeze": CategoricalDistribution(domain.tier.trained_freezes),
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
