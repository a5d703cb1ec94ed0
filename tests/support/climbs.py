"""What a climb decides from, made up: a request, rows, backbones and costs; no weights are read, no picture is."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spine_ray.climb.known import Known
from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.core.backbone import BackboneFacts
from spine_ray.core.weights import RANDOM, Weights
from spine_ray.data.samples import Samples
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.tables import Cost

FAMILIES = {
    "test_resnet": "resnet",
    "test_efficientnet": "efficientnet",
    "test_convnext": "convnext",
    "test_vit": "vit",
    "test_vit2": "vit",
}
MILLION_MACS = {"test_resnet": 1, "test_efficientnet": 2, "test_vit": 3, "test_vit2": 4, "test_convnext": 8}
"""Multiply-accumulates of one image at 32 px, millions; made up."""
FEATURES, SIDE = 16, 32
PRETRAINED = Weights(kind="pretrained", source="hub", files={})


def climb_request(spaces: Sequence[Space], **changes: Any) -> SearchRequest:
    """Return a request that leaves everything as it is; keywords are its fields."""
    values: dict[str, Any] = {
        "spaces": tuple(spaces), "sets": (), "data": None, "study": Path("study"), "budget_s": None,
        "weights": "random", "seed": 0, "workers": None, "address": None, "tracking": None, "open_test": False,
        "resume": False, "finish": False, "force": False, "update": (), "plan": False, "on": None, "began": 0.0,
        "command": "",
    }  # fmt: skip
    return SearchRequest(**{**values, **changes})


def climb_samples(rows: int, folds: int) -> Samples:
    """Return dev rows of two classes that take turns, as do the folds."""
    return Samples(
        sample_ids=tuple(f"{row:016x}" for row in range(rows)), paths=tuple(map(str, range(rows))),
        labels=(np.arange(rows) % 2).astype(np.int64), classes=("a", "b"), groups=np.arange(rows),
        splits=("dev",) * rows, folds=(np.arange(rows) % folds).astype(np.int8),
    )  # fmt: skip


def made_up_facts(tiers: Sequence[TierSpace]) -> dict[tuple[str, int], BackboneFacts]:
    """Return facts of all backbones of some tiers at all of their resolutions."""
    return {
        (backbone, side): BackboneFacts(
            params=1000 * MILLION_MACS[backbone],
            macs=10**6 * MILLION_MACS[backbone] * side**2 // SIDE**2,
            features=FEATURES,
        )
        for tier in tiers
        for backbone in tier.backbones
        for side in tier.resolutions
    }


def climb_known(
    space: Space,
    rows: int,
    *,
    is_pretrained: bool = False,
    facts: Mapping[tuple[str, int], BackboneFacts] | None = None,
    costs: Sequence[Cost] = (),
    samples: Samples | None = None,
    **changes: Any,
) -> Known:
    """Return what is known when the climb of a space begins; keywords are fields of the request."""
    return Known(
        request=climb_request([space], **changes),
        samples=samples or climb_samples(rows, space.folds),
        prepared=Prepared(
            spaces=(space,),
            weights=PRETRAINED if is_pretrained else RANDOM,
            facts=made_up_facts(space.tiers) if facts is None else dict(facts),
            families={backbone: FAMILIES[backbone] for tier in space.tiers for backbone in tier.backbones},
        ),
        device="cpu",
        events=[],
        costs={cost.key: cost for cost in costs},
    )


def fine_tune_cost(backbone: str, images_s: float = 30.0, **changes: Any) -> Cost:
    """Return the cost of a backbone with nothing frozen at 32 px, trained twice as fast as it infers."""
    values: dict[str, Any] = {
        "backbone": backbone, "resolution": SIDE, "freeze": 0.0, "device": "cpu", "arithmetic": "float32 contiguous",
        "train_images_s": 2 * images_s, "infer_images_s": images_s, "score_images_s": images_s,
        "prefix_images_s": None, "activation_mb": None, "peak_mb": 500.0, "macs": 10**6 * MILLION_MACS[backbone],
        "prefix_macs": 0, "prefix_params": 0,
    }  # fmt: skip
    return Cost(**{**values, **changes})
