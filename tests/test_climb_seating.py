import pytest

from spine_ray.climb.seating import _largest, trials_on_a_gpu
from spine_ray.sampling.queue import SearchDomain
from spine_ray.space.configs import start_configs
from spine_ray.space.schema import TierSpace

TIER = TierSpace(
    name="light", backbones=("test_resnet", "test_vit"), resolutions=(96, 160, 128), freezes=(0.75, 0.0, 1.0)
)


@pytest.mark.parametrize(
    ("peaks", "gpu_mb", "expected"),
    [
        ([3000.0], 24_000.0, 4),  # 0.85 * 24,000 = 20,400 holds four times 1.3 * 3,000 + 700 = 4,600
        ([3000.0, 5000.0], 24_000.0, 2),  # the largest decides: 7,200
        ([8000.0], 24_000.0, 1),
        ([30_000.0], 24_000.0, 1),  # it has to try, with smaller portions of the batch
        ([100.0], 80_000.0, 4),  # no more, however small
        ([100.0, None], 80_000.0, 1),  # nothing is known of one
        ([], 80_000.0, 1),
    ],
)
def test_as_many_trials_share_a_gpu_as_its_memory_holds(
    peaks: list[float | None], gpu_mb: float, expected: int
) -> None:
    assert trials_on_a_gpu(peaks, gpu_mb) == expected


def test_what_is_measured_is_the_largest_resolution_that_can_be_built_with_least_frozen() -> None:
    starts = start_configs(TIER, "pretrained")
    domain = SearchDomain(
        tier=TIER,
        weights="pretrained",
        buildable=frozenset({("test_resnet", 96), ("test_resnet", 160), ("test_vit", 96), ("test_vit", 128)}),
        seed=0,
    )
    found = _largest(domain, starts)
    assert [(each.backbone, each.resolution, each.freeze) for each in found] == [
        ("test_resnet", 160, 0.0),
        ("test_vit", 128, 0.0),
    ]
