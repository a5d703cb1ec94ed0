"""What to try next: start recipes first, then Optuna, told the truth about every trial.

Each suggestion is a function of (seed, its number, what is known of the tier's trials): the sampler is built anew from
the records each time, so that a search that died goes on as if it had not.
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.search import Searcher

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


@dataclass(slots=True)
class Suggester:
    """Chooses configurations; knows nothing of ray."""

    domain: SearchDomain
    waiting: list[TrialConfig]
    """Start recipes and interrupted trials that come before any suggestion, in order."""
    outcomes: dict[str, Outcome]
    """By trial id, in the order in which they started."""
    most_trials: int
    admit: Callable[[TrialConfig], str | None]
    """Returns why a configuration cannot be tried now, or None."""
    refused: dict[str, tuple[TrialConfig, str]] = field(default_factory=dict)

    def next_config(self) -> TrialConfig | None:
        """Return the next configuration, or None when the tier is over."""
        while self.waiting:
            config = self.waiting.pop(0)
            if self._take(config):
                return config
        if len(self.outcomes) >= self.most_trials:
            return None
        number = len(self.outcomes)
        for attempt in range(_ASKS + _DRAWS):
            config = suggest(self.domain, list(self.outcomes.values()), number, attempt)
            if config.trial_id not in self.outcomes and config.trial_id not in self.refused and self._take(config):
                return config
        return None

    def tell(self, outcome: Outcome) -> None:
        """Record how a trial ended."""
        self.outcomes[outcome.config.trial_id] = outcome

    def _take(self, config: TrialConfig) -> bool:
        reason = self.admit(config)
        if reason is not None:
            self.refused[config.trial_id] = (config, reason)
            return False
        self.outcomes[config.trial_id] = Outcome(config, "running")
        return True


def suggest(domain: SearchDomain, outcomes: Sequence[Outcome], number: int, attempt: int) -> TrialConfig:
    """Ask a sampler that is built from the outcomes alone; from the eleventh attempt on, draw at random."""
    seed = derive_seed(domain.seed, "suggest", domain.tier.name, number, attempt) % 2**32
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler: BaseSampler = RandomSampler(seed=seed)
    if attempt < _ASKS:
        sampler = TPESampler(seed=seed, n_startup_trials=5, multivariate=True, constant_liar=True)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    remembered = [outcome for outcome in outcomes if _is_in_range(domain, outcome.config)][-_REMEMBERED:]
    study.add_trials([_record(domain, outcome) for outcome in remembered])
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


class TierSearcher(Searcher):
    """Hands the suggester's configurations to Ray Tune and tells it what became of them.

    Args:
        suggester: Chooses.
        describe: Returns what the worker must know beside the configuration.
        control: The configuration of the shuffled-label control, or None; it runs third, or last where there are
            fewer, and is never told.
        workers: How many there are to give trials to.
    """

    def __init__(
        self,
        suggester: Suggester,
        describe: Callable[[TrialConfig], dict[str, Any]],
        control: TrialConfig | None,
        *,
        workers: int = 1,
    ) -> None:
        """Start with nothing handed out."""
        super().__init__(metric="log_loss", mode="min")
        self._suggester, self._describe, self._control = suggester, describe, control
        self._handed: dict[str, TrialConfig] = {}
        self._count = itertools.count()
        self._busy: dict[str, int] = {}
        self._workers = workers

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of ray's snapshots: they are never read."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's configuration, or that there is none."""
        if next(self._count) == _CONTROL_PLACE and (control := self._hand_control()):
            return self._assigned(trial_id, control)
        config = self._suggester.next_config()
        if config is None:
            last = self._hand_control()
            return self._assigned(trial_id, last) if last else cast("dict[str, Any]", Searcher.FINISHED)
        self._handed[trial_id] = config
        return self._assigned(trial_id, self._describe(config))

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the suggester the truth: completed, stopped early or failed."""
        self._busy.pop(trial_id, None)
        config = self._handed.get(trial_id)
        if config is None:
            return
        if error or not result:
            self._suggester.tell(Outcome(config, "failed"))
        else:
            state = "completed" if result["is_last"] else "stopped"
            self._suggester.tell(Outcome(config, state, result["step"], result["log_loss"]))

    def _assigned(self, trial_id: str, given: dict[str, Any]) -> dict[str, Any]:
        """Add which worker trains the trial: the one with the fewest, which has none while ray keeps to its number."""
        taken = list(self._busy.values())
        self._busy[trial_id] = min(range(self._workers), key=taken.count)
        return {**given, "worker": self._busy[trial_id]}

    def _hand_control(self) -> dict[str, Any] | None:
        control, self._control = self._control, None
        if control is None or self._suggester.admit(control) is not None:
            return None
        return {**self._describe(control), "is_control": True}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is what a search is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is what a search is resumed from."""
