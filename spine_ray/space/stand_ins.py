"""Small backbones that climb in place of a space's own on the built-in sample, with weights that come along."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

TIERS = ("light", "mid", "heavy")
"""The ladder's tiers, in climbing order."""
STAND_INS_SOURCE = "stand-ins"
"""The source of their weights, wherever the package lies: a study may move to another machine."""
STAND_INS_LICENCE = "apache-2.0"
"""Of their weights, whatever timm records of those that others trained for the same models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """One small backbone; `benchmarks/small_weights.py` trains it, `search_spaces/small_weights` holds the file."""

    backbone: str
    """timm model name."""
    tier: str
    """In which of the ladder's tiers it climbs: one of `TIERS`."""
    family: str
    params: int
    """Without a classifier."""
    stands_for: str
    """The kind of backbone that it takes the place of."""


STAND_INS = (
    StandIn(
        backbone="test_efficientnet",
        tier="light",
        family="efficientnet",
        params=99_196,
        stands_for="EfficientNets and MobileNetV3",
    ),
    StandIn(
        backbone="test_mambaout",
        tier="light",
        family="mambaout",
        params=190_560,
        stands_for="small nets of depthwise convolutions",
    ),
    StandIn(
        backbone="test_resnet",
        tier="mid",
        family="resnet",
        params=372_688,
        stands_for="ResNets",
    ),
    StandIn(
        backbone="test_byobnet",
        tier="mid",
        family="byobnet",
        params=199_856,
        stands_for="residual nets of mixed blocks with channel attention, as SE-ResNets",
    ),
    StandIn(
        backbone="test_convnext",
        tier="mid",
        family="convnext",
        params=207_128,
        stands_for="ConvNeXts",
    ),
    StandIn(
        backbone="test_vit",
        tier="heavy",
        family="vit",
        params=306_240,
        stands_for="ViTs with a class token",
    ),
    StandIn(
        backbone="test_vit2",
        tier="heavy",
        family="vit",
        params=390_720,
        stands_for="ViTs that average their patches, as DeiT III and SigLIP",
    ),
    StandIn(
        backbone="edgenext_xx_small",
        tier="heavy",
        family="edgenext",
        params=1_158_216,
        stands_for="hybrids of convolutions and attention, as Swin and MaxViT",
    ),
)
"""In climbing order."""
_NAMES = frozenset(row.backbone for row in STAND_INS)


def spaces_folder() -> Path:
    """Return the folder of the spaces that come along: inside an installed package, else beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def stand_ins_folder() -> Path:
    """Return the folder of the stand-ins' weights."""
    return spaces_folder() / "small_weights"


def is_stand_in(backbone: str) -> bool:
    """Say whether a backbone's weights come along."""
    return backbone in _NAMES


def stand_ins_of(tier: str, index: int, families: Collection[str]) -> tuple[StandIn, ...]:
    """Return the stand-ins that climb in a tier's place.

    A tier named as one of the ladder's has that tier's. Any other has those of its backbones' families or, where there
    are none of them, those of the ladder's tier at its index.

    Args:
        tier: The tier's name.
        index: Its index in the space, in climbing order.
        families: Of its backbones.
    """
    if tier in TIERS:
        return _of(tier)
    kin = tuple(row for row in STAND_INS if row.family in families)
    return kin or _of(TIERS[min(index, len(TIERS) - 1)])


def _of(tier: str) -> tuple[StandIn, ...]:
    return tuple(row for row in STAND_INS if row.tier == tier)
