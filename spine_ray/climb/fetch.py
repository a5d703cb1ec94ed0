"""Every weights file that spaces need, gathered in a folder for machines without a network; nothing is trained."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from spine_ray.core.backbone import check_name
from spine_ray.core.hub import Tell
from spine_ray.core.weights import Gathered, gather_weights
from spine_ray.space.load import load_space


def fetch_weights(names: Sequence[str], sets: Sequence[str], folder: Path, tell: Tell) -> Iterator[Gathered]:
    """Gather the weights of some spaces' backbones; yields each file as it is there.

    Args:
        names: Of the spaces, or their files.
        sets: `KEY=VALUE` texts on top of them.
        folder: What `--weights` will be told later.
        tell: Told what is fetched.

    Raises:
        ValueError: If a space or a backbone is unknown, or a file cannot be had; what was gathered before stays.
    """
    tiers = [tier for name in names for tier in load_space(name, sets=sets).tiers]
    backbones = tuple(dict.fromkeys(backbone for tier in tiers for backbone in tier.backbones))
    for backbone in backbones:
        check_name(backbone)
    yield from gather_weights(backbones, folder, tell)
