"""From a tier to the configurations of its trials, and back to what was sampled."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from spine_ray.space.config import AUGMENTATIONS, RECIPE_FIELDS, TrialConfig, probe_config
from spine_ray.space.fields import Around, Choice, Distribution, LogUniform, Scalar, Uniform
from spine_ray.space.recipes import WeightsKind, start_epochs, start_recipe
from spine_ray.space.schema import TierSpace


def searched_fields(tier: TierSpace) -> dict[str, Distribution]:
    """Return the recipe fields that a tier searches, with their distributions."""
    return {
        name: searched
        for name, searched in tier.recipe.items()
        if isinstance(searched, Choice | LogUniform | Uniform | Around)
    }


def build_config(
    tier: TierSpace,
    weights_kind: WeightsKind,
    backbone: str,
    resolution: int,
    freeze: float,
    values: Mapping[str, Scalar],
) -> TrialConfig:
    """Return the configuration of one fine-tune of a tier.

    Args:
        tier: The tier that is searched.
        weights_kind: Which start recipe holds where the tier says nothing.
        backbone: One of the tier's.
        resolution: One of the tier's, px.
        freeze: One of the tier's freeze depths below 1.0.
        values: What was sampled for the searched recipe fields: a multiplier of the start for `Around`, the
            value itself for all other distributions. A field that is missing takes its start.

    Raises:
        ValueError: If the backbone, resolution or freeze depth is none of the tier's, if a value is for a field
            that it does not search, or if the recipe refuses a value.
    """
    _check_member("backbone", backbone, tier.backbones)
    _check_member("resolution", resolution, tier.resolutions_of(backbone))
    _check_member("freeze", freeze, tier.trained_freezes)
    searched = searched_fields(tier)
    for name in values:
        _check_member("searched recipe field", name, tuple(searched))
    recipe: dict[str, Any] = dict(_starting_values(tier, weights_kind, backbone))
    for name, value in values.items():
        is_multiplier = isinstance(searched[name], Around)
        recipe[name] = recipe[name] * float(value) if is_multiplier else value
    if "augment" in values:
        recipe |= _dialled(tier, backbone, str(values["augment"]))
    start = start_recipe(weights_kind, tier.family_of(backbone))
    return TrialConfig(backbone=backbone, resolution=resolution, freeze=freeze, recipe=replace(start, **recipe))


def start_configs(tier: TierSpace, weights_kind: WeightsKind) -> tuple[TrialConfig, ...]:
    """Return the fine-tunes to compare first: every backbone at the first resolution and freeze depth, unsampled.

    None where the tier has no freeze depth below 1.0.
    """
    return tuple(
        build_config(tier, weights_kind, backbone, tier.resolutions_of(backbone)[0], freeze, {})
        for freeze in tier.trained_freezes[:1]
        for backbone in tier.backbones
    )


def has_probes(tier: TierSpace, weights_kind: WeightsKind) -> bool:
    """Say whether a tier's backbones are probed: always on pretrained weights, on random ones only if asked for."""
    return weights_kind == "pretrained" or 1.0 in tier.freezes


def probe_configs(tier: TierSpace, weights_kind: WeightsKind) -> tuple[TrialConfig, ...]:
    """Return the probes of every backbone at every resolution, resolution by resolution, the smallest first."""
    if not has_probes(tier, weights_kind):
        return ()
    pairs = [(resolution, backbone) for backbone in tier.backbones for resolution in tier.resolutions_of(backbone)]
    return tuple(probe_config(backbone, side) for side, backbone in sorted(pairs, key=lambda pair: pair[0]))


def with_epochs(tier: TierSpace, epochs: int) -> TierSpace:
    """Return a tier whose trials take some number of epochs and are otherwise the same."""
    return replace(tier, recipe={**tier.recipe, "epochs": epochs})


def frozen_first(tier: TierSpace, freeze: float) -> TierSpace:
    """Return a tier that begins with one of its freeze depths and is otherwise the same."""
    return replace(tier, freezes=(freeze, *(each for each in tier.freezes if each != freeze)))


def sized(tier: TierSpace, weights_kind: WeightsKind, rows: int) -> TierSpace:
    """Return a tier whose epochs suit the size of the data, where its file leaves them open.

    Args:
        tier: Of the space.
        weights_kind: Of the initial weights; on random ones the epochs are those of the start recipe.
        rows: Training rows of a fold.
    """
    if weights_kind == "random" or "epochs" in tier.recipe:
        return tier
    batch_size = start_configs(tier, weights_kind)[0].training.batch_size if tier.trained_freezes else 1
    return with_epochs(tier, start_epochs(rows, batch_size))


def belongs(tier: TierSpace, weights_kind: WeightsKind, config: TrialConfig) -> bool:
    """Say whether a configuration could have come from a tier: then its trial need not be trained again for it.

    The searched recipe fields may have any value; everything else must be the tier's.
    """
    if config.backbone not in tier.backbones or config.resolution not in tier.resolutions_of(config.backbone):
        return False
    if config.is_probe:
        return has_probes(tier, weights_kind)
    if config.freeze not in tier.freezes:
        return False
    searched = searched_fields(tier)
    dial: dict[str, Scalar] = {"augment": config.training.augment} if "augment" in searched else {}
    start = build_config(tier, weights_kind, config.backbone, config.resolution, config.freeze, dial)
    fixed = [name for name in RECIPE_FIELDS if name not in searched]
    return all(getattr(config.training, name) == getattr(start.training, name) for name in fixed)


def sampled_values(tier: TierSpace, weights_kind: WeightsKind, config: TrialConfig) -> dict[str, Scalar]:
    """Return the values from which `build_config` makes this configuration, up to rounding of multipliers.

    Args:
        tier: The tier that is searched.
        weights_kind: The kind that the configuration was built with.
        config: A configuration with a backbone and a freeze depth of the tier.
    """
    starts = _starting_values(tier, weights_kind, config.backbone)
    values: dict[str, Scalar] = {}
    for name, searched in searched_fields(tier).items():
        value: Scalar = getattr(config.training, name)
        values[name] = float(value) / float(starts[name]) if isinstance(searched, Around) else value
    return values


def _starting_values(tier: TierSpace, weights_kind: WeightsKind, backbone: str) -> dict[str, Scalar]:
    """Return where the tier's recipe fields start for a backbone: its override, else the field's start."""
    shared = start_recipe(weights_kind, tier.family_of(backbone))
    values: dict[str, Scalar] = {}
    for name, searched in tier.recipe.items():
        match searched:
            case Around():
                values[name] = getattr(shared, name)
            case Choice() | LogUniform() | Uniform():
                values[name] = searched.start
            case _:
                values[name] = searched
    values |= tier.overrides.get(backbone, {})
    return {**_dialled(tier, backbone, str(values["augment"])), **values} if "augment" in values else values


def _dialled(tier: TierSpace, backbone: str, level: str) -> dict[str, Scalar]:
    """Return what a position of the dial sets of that which a tier does not set itself."""
    own = {*tier.recipe, *tier.overrides.get(backbone, {})}
    return {name: value for name, value in AUGMENTATIONS.get(level, {}).items() if name not in own}


def _check_member(what: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"the tier has no {what} {value!r}; it has {', '.join(map(str, allowed)) or 'none'}")
