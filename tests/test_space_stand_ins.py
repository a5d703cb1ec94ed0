import pytest
import timm

from spine_ray.core.backbone import check_name, family_of
from spine_ray.space.load import load_space, with_stand_ins
from spine_ray.space.schema import TierSpace
from spine_ray.space.stand_ins import STAND_INS, TIERS, is_stand_in, stand_ins_folder, stand_ins_of

NAMES = [row.backbone for row in STAND_INS]


def names_of(name: str, index: int, *families: str) -> list[str]:
    return [row.backbone for row in stand_ins_of(name, index, families)]


@pytest.mark.parametrize("row", STAND_INS, ids=NAMES)
def test_a_row_says_of_a_backbone_what_timm_and_the_family_table_say(row) -> None:
    check_name(row.backbone)
    assert row.family == family_of(row.backbone)
    model = timm.create_model(row.backbone, num_classes=0)
    assert row.params == sum(parameter.numel() for parameter in model.parameters())
    assert row.stands_for


def test_they_fill_the_ladder_and_are_of_several_families() -> None:
    ladder = load_space("ladder")
    assert tuple(tier.name for tier in ladder.tiers) == TIERS
    assert [row.tier for row in STAND_INS] == sorted((row.tier for row in STAND_INS), key=TIERS.index)
    counts = [sum(row.tier == name for row in STAND_INS) for name in TIERS]
    assert min(counts) >= 2
    assert len(set(NAMES)) == len(STAND_INS) >= 6
    assert len({row.family for row in STAND_INS}) >= 4
    for tier, count in zip(ladder.tiers, counts, strict=True):
        assert tier.trials >= count


def test_the_folder_of_their_weights_holds_one_file_each_within_15_mb() -> None:
    files = sorted(stand_ins_folder().glob("*.safetensors"))
    assert [file.stem for file in files] == sorted(NAMES)
    assert sum(file.stat().st_size for file in files) <= 15e6


def test_those_that_smoke_tries_are_among_them() -> None:
    space = load_space("smoke")
    assert space.weights == str(stand_ins_folder())
    assert all(is_stand_in(backbone) for tier in space.tiers for backbone in tier.backbones)
    assert not is_stand_in("resnet50.a1_in1k")


@pytest.mark.parametrize("name", TIERS)
def test_a_tier_of_the_ladders_name_has_that_tiers_stand_ins_wherever_it_stands(name: str) -> None:
    expected = [row.backbone for row in STAND_INS if row.tier == name]
    for index in range(4):
        assert names_of(name, index, "vit", "swin") == expected


def test_another_tier_has_the_stand_ins_of_its_families() -> None:
    assert names_of("single", 0, "resnet") == ["test_resnet"]
    both = names_of("single", 0, "vit", "efficientnet", "xcit")
    assert both == [row.backbone for row in STAND_INS if row.family in ("vit", "efficientnet")]


def test_a_tier_of_families_without_a_stand_in_has_those_of_the_tier_at_its_index() -> None:
    for index, level in enumerate((*TIERS, "heavy", "heavy")):
        assert names_of("other", index, "xcit") == [row.backbone for row in STAND_INS if row.tier == level]


def test_a_tier_keeps_everything_but_its_backbones_and_what_it_says_of_them() -> None:
    before = TierSpace(
        name="mid",
        backbones=("resnet50.a1_in1k", "resnet18.a1_in1k"),
        resolutions=(32, 48),
        freezes=(0.5, 1.0),
        recipe={"epochs": 3},
        overrides={"resnet50.a1_in1k": {"lr": 1e-3}},
        trials=5,
        gate="never",
        question="Which?",
    )
    after = with_stand_ins(before, stand_ins_of(before.name, 1, {"resnet"}))
    assert set(after.backbones) <= set(NAMES)
    expected = {**before.to_dict(), "backbone": list(after.backbones), "overrides": {}}
    assert after.to_dict() == expected
