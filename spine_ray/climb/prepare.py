"""What can be tried at all: names checked, weights found, combinations built on the meta device."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spine_ray.climb.request import SearchRequest
from spine_ray.core.backbone import BackboneFacts, check_name, facts, family_of, licence_of, native_resolution
from spine_ray.core.weights import (
    RANDOM,
    Weights,
    WeightsOutOfReachError,
    weights_from_cache,
    weights_from_folder,
    weights_from_hub,
    weights_of_stand_ins,
)
from spine_ray.data.samples import Samples
from spine_ray.show.live import Progress
from spine_ray.space.configs import sized
from spine_ray.space.load import drop_frozen, with_stand_ins
from spine_ray.space.schema import Space, TierSpace
from spine_ray.space.stand_ins import STAND_INS_LICENCE, STAND_INS_SOURCE, is_stand_in, stand_ins_of
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

    def licence_of(self, backbone: str) -> str:
        """Return the licence of a backbone's initial weights, or `unknown`."""
        return STAND_INS_LICENCE if self.weights.source == STAND_INS_SOURCE else licence_of(backbone)

    @property
    def largest_resolution(self) -> int:
        """The largest input any trial may have, px."""
        return max(resolution for _, resolution in self.facts)


def prepare(request: SearchRequest, samples: Samples, is_sample: bool, progress: Progress) -> Prepared:
    """Check and resolve everything that needs no training.

    Args:
        request: With the spaces.
        samples: The rows: their number decides how long start recipes train.
        is_sample: Whether they are the built-in sample's.
        progress: Where it is said what was left out.

    Raises:
        ValueError: If weights are missing, or nothing of a tier can be built.
    """
    spaces, weights = find_weights(request, is_sample, progress)
    spaces = look_up(spaces)  # stand-ins may have come in
    if weights.kind == "random":
        spaces = tuple(_without_frozen(space, request.sets, progress) for space in spaces)
    rows = len(samples.dev) * (samples.num_folds - 1) // samples.num_folds
    spaces = tuple(
        replace(space, tiers=tuple(sized(tier, weights.kind, rows) for tier in space.tiers)) for space in spaces
    )
    known: dict[tuple[str, int], BackboneFacts] = {}
    kept = tuple(_buildable(space, len(samples.classes), known, progress) for space in spaces)
    families = {name: family for space in spaces for tier in space.tiers for name, family in tier.families.items()}
    return Prepared(spaces=kept, weights=weights, facts=known, families=families)


def look_up(spaces: Sequence[Space]) -> tuple[Space, ...]:
    """Return spaces with what timm knows of their backbones' names.

    Raises:
        ValueError: If it does not know one.
    """
    for backbone in _backbones(spaces):
        check_name(backbone)

    def looked_up(tier: TierSpace) -> TierSpace:
        return replace(
            tier,
            families={backbone: family_of(backbone) for backbone in tier.backbones},
            natives={backbone: native_resolution(backbone) for backbone in tier.backbones},
        )

    return tuple(replace(space, tiers=tuple(map(looked_up, space.tiers))) for space in spaces)


def find_weights(request: SearchRequest, is_sample: bool, progress: Progress) -> tuple[tuple[Space, ...], Weights]:
    """Resolve `--weights`; return the spaces with what climbs in them, and the weights.

    Only the sample has stand-ins: it downloads nothing unless asked, so where the local cache lacks the spaces' own
    weights, small backbones climb whose weights come along. A study goes on with what it began with.

    Raises:
        ValueError: If the weights are out of reach, with the ways out.
    """
    backbones, began = _backbones(request.spaces), _source_of(request)
    if request.weights != "auto":
        return request.spaces, _weights_of(request.weights, backbones, progress)
    if began is not None and began != STAND_INS_SOURCE:
        return request.spaces, _weights_of("pretrained" if began == "hub" else began, backbones, progress)
    if not is_sample:
        return request.spaces, _weights_of("auto", backbones, progress)
    found = weights_from_cache(backbones) if began is None else None
    return (request.spaces, found) if found is not None else _stood_in(request, progress)


def _weights_of(choice: str, backbones: Sequence[str], progress: Progress) -> Weights:
    if choice == "random":
        return RANDOM
    if choice not in ("auto", "pretrained"):
        return weights_from_folder(Path(choice).absolute(), backbones)
    try:
        return weights_from_hub(backbones, progress.say)
    except WeightsOutOfReachError as error:
        raise ValueError(
            f"no pretrained weights: {error}. Run once with network, or name a folder of safetensors files "
            "(--weights DIR), or ask for --weights random"
        ) from error


def _source_of(request: SearchRequest) -> str | None:
    """Return where the weights of a study that exists come from: there, `auto` is what it began with."""
    exists = StudyPaths(request.study).record.exists()
    return read_record(request.study).weights.source if exists else None


def _stood_in(request: SearchRequest, progress: Progress) -> tuple[tuple[Space, ...], Weights]:
    """Return the spaces with stand-ins in the tiers whose backbones nobody asked for with `--set`, and say so."""
    spaces = tuple(_with_stand_ins(space, request.sets) for space in request.spaces)
    backbones = _backbones(spaces)
    own = [backbone for backbone in backbones if not is_stand_in(backbone)]
    if own:
        progress.say(f"WARNING: the local cache lacks weights of {', '.join(own)}, for which nothing stands in.")
        progress.say(
            "WARNING: the sample goes on with RANDOM weights. Its numbers say nothing of fine-tuning "
            "(--weights pretrained downloads)."
        )
        return request.spaces, RANDOM
    replaced = [
        f"tier {tier.name}: {', '.join(tier.backbones)} for {', '.join(before.backbones)}"
        for space, climbing in zip(request.spaces, spaces, strict=True)
        for before, tier in zip(space.tiers, climbing.tiers, strict=True)
        if tier is not before
    ]
    if replaced:
        progress.say(
            "the local cache lacks pretrained weights, and the sample downloads nothing unless asked (--weights "
            "pretrained): small stand-ins climb, whose numbers say nothing about the backbones they stand for"
        )
    for line in replaced:
        progress.say(line)
    return spaces, weights_of_stand_ins(backbones)


def _with_stand_ins(space: Space, sets: Sequence[str]) -> Space:
    asked = {text.partition("=")[0].strip() for text in sets}
    tiers = []
    for index, tier in enumerate(space.tiers):
        if not asked & {"backbone", f"tiers.{tier.name}.backbone"} and not all(map(is_stand_in, tier.backbones)):
            families = {family_of(backbone) for backbone in tier.backbones}
            tier = with_stand_ins(tier, stand_ins_of(tier.name, index, families))
        tiers.append(tier)
    return replace(space, tiers=tuple(tiers))


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
        for resolution in tier.resolutions_of(backbone):
            if (backbone, resolution) in known:
                continue
            try:
                known[backbone, resolution] = facts(backbone, resolution, classes)
            except ValueError as error:
                progress.say(f"dropped from tier {tier.name}: {error}")
    # A start recipe stands at the first resolution, so a backbone that cannot be built there has no start.
    kept = tuple(backbone for backbone in tier.backbones if (backbone, tier.resolutions_of(backbone)[0]) in known)
    if not kept:
        first = tier.resolutions[0]
        where = "its native resolution" if first == "native" else f"{first} px"
        raise ValueError(f"tier {tier.name}: none of its backbones can be built at {where}")
    overrides = {backbone: values for backbone, values in tier.overrides.items() if backbone in kept}
    return replace(tier, backbones=kept, overrides=overrides)
