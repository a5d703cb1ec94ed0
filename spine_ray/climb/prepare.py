"""What can be tried at all: names checked, weights found, combinations built on the meta device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spine_ray.climb.request import SearchRequest
from spine_ray.core.backbone import BackboneFacts, check_name, facts, family_of
from spine_ray.core.weights import (
    RANDOM,
    Weights,
    WeightsOutOfReachError,
    weights_from_folder,
    weights_from_hub,
)
from spine_ray.show.live import Progress
from spine_ray.space.load import drop_frozen
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import WeightsRecord, read_record


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """The spaces that will run, with what their backbones are."""

    spaces: tuple[Space, ...]
    weights: Weights
    facts: dict[tuple[str, int], BackboneFacts]
    """By (backbone, resolution): those that can be built."""
    families: dict[str, str]
    """By backbone."""

    def record(self) -> WeightsRecord:
        """Return what the study remembers of the weights."""
        return WeightsRecord(kind=self.weights.kind, source=self.weights.source, hashes=self.weights.hashes())

    @property
    def largest_resolution(self) -> int:
        """The largest input any trial may have, px."""
        return max(resolution for _, resolution in self.facts)


def prepare(request: SearchRequest, classes: int, is_sample: bool, progress: Progress) -> Prepared:
    """Check and resolve everything that needs no training.

    Raises:
        ValueError: If a backbone is unknown, weights are missing, or nothing of a tier can be built.
    """
    backbones = _backbones(request.spaces)
    for backbone in backbones:
        check_name(backbone)
    weights = find_weights(_choice(request), backbones, is_sample, progress)
    spaces = request.spaces
    if weights.kind == "random":
        spaces = tuple(_without_frozen(space, request.sets, progress) for space in spaces)
    known: dict[tuple[str, int], BackboneFacts] = {}
    kept = tuple(_buildable(space, classes, known, progress) for space in spaces)
    return Prepared(
        spaces=kept, weights=weights, facts=known, families={backbone: family_of(backbone) for backbone in backbones}
    )


def find_weights(choice: str, backbones: Sequence[str], is_sample: bool, progress: Progress) -> Weights:
    """Resolve `--weights`; only the built-in sample may fall back to random ones, and says so loudly.

    Raises:
        ValueError: If the weights are out of reach, with the ways out.
    """
    if choice == "random":
        return RANDOM
    if choice not in ("auto", "pretrained"):
        return weights_from_folder(Path(choice).absolute(), backbones)
    try:
        return weights_from_hub(backbones, progress.say)
    except WeightsOutOfReachError as error:
        if is_sample and choice == "auto":
            progress.say(f"WARNING: no pretrained weights: {error}.")
            progress.say("WARNING: the sample goes on with RANDOM weights. Its numbers say nothing of fine-tuning.")
            return RANDOM
        raise ValueError(
            f"no pretrained weights: {error}. Run once with network, or name a folder of safetensors files "
            "(--weights DIR), or ask for --weights random"
        ) from error


def _choice(request: SearchRequest) -> str:
    """Return what `--weights` means: in a study that exists, `auto` is what the study began with."""
    paths = StudyPaths(request.study)
    if request.weights != "auto" or not paths.record.exists():
        return request.weights
    source = read_record(request.study).weights.source
    return "pretrained" if source == "hub" else source


def _backbones(spaces: Sequence[Space]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(backbone for space in spaces for tier in space.tiers for backbone in tier.backbones))


def _without_frozen(space: Space, sets: Sequence[str], progress: Progress) -> Space:
    kept, reasons = drop_frozen(space, sets=sets)
    for reason in reasons:
        progress.say(reason)
    return kept


def _buildable(space: Space, classes: int, known: dict[tuple[str, int], BackboneFacts], progress: Progress) -> Space:
    return replace(space, tiers=tuple(_buildable_tier(tier, classes, known, progress) for tier in space.tiers))


def _buildable_tier(
    tier: TierSpace, classes: int, known: dict[tuple[str, int], BackboneFacts], progress: Progress
) -> TierSpace:
    for backbone in tier.backbones:
        for resolution in tier.resolutions:
            if (backbone, resolution) in known:
                continue
            try:
                known[backbone, resolution] = facts(backbone, resolution, classes)
            except ValueError as error:
                progress.say(f"dropped from tier {tier.name}: {error}")
    # A start recipe stands at the first resolution, so a backbone that cannot be built there has no start.
    kept = tuple(backbone for backbone in tier.backbones if (backbone, tier.resolutions[0]) in known)
    if not kept:
        raise ValueError(f"tier {tier.name}: none of its backbones can be built at {tier.resolutions[0]} px")
    overrides = {backbone: values for backbone, values in tier.overrides.items() if backbone in kept}
    return replace(tier, backbones=kept, overrides=overrides)
