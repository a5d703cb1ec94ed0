"""What climbs, and with which weights: the spaces' own backbones, or on the sample small stand-ins."""

import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from rich.console import Console
from safetensors.torch import save_file

from spine_ray.climb.prepare import find_weights, prepare
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.words import search_request
from spine_ray.core.backbone import family_of
from spine_ray.core.weights import Weights
from spine_ray.data.digits import digits_source
from spine_ray.search import _parser
from spine_ray.show.live import PlainProgress
from spine_ray.space.load import load_space
from spine_ray.space.schema import Space
from spine_ray.space.stand_ins import STAND_INS, TIERS, stand_ins_folder
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, write_record
from tests.support.climbs import climb_samples
from tests.support.loopback_hub import COMMIT, FILE, refusing_hub

LADDER = tuple(backbone for tier in load_space("ladder").tiers for backbone in tier.backbones)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def asked(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """What is asked of anybody beyond this process: a hub that refuses."""
    with refusing_hub(monkeypatch) as addresses:
        yield addresses


def put(cache: Path, backbone: str, content: bytes, name: str | None = None) -> None:
    """Put a file into the cache as the hub's client does: content by its hash, and a link to it."""
    folder = cache / f"models--timm--{backbone}"
    blob = folder / "blobs" / (name or hashlib.sha256(content).hexdigest())
    link = folder / "snapshots" / COMMIT / FILE
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    (folder / "refs" / "main").write_text(COMMIT)


def fill(cache: Path, *left_out: str) -> None:
    for backbone in LADDER:
        if backbone not in left_out:
            put(cache, backbone, backbone.encode())


def request_of(tmp_path: Path, *words: str, space: str = "ladder") -> SearchRequest:
    args = _parser().parse_args(["--space", space, "--study", str(tmp_path / "study"), *words])
    return search_request(args, digits_source(), "search", 0.0)


def found(request: SearchRequest, *, is_sample: bool = True) -> tuple[Space, Weights, list[str]]:
    paper = io.StringIO()
    (space, *_), weights = find_weights(request, is_sample, PlainProgress(Console(file=paper)))
    return space, weights, paper.getvalue().splitlines()


def climbing(space: Space) -> dict[str, list[str]]:
    return {tier.name: list(tier.backbones) for tier in space.tiers}


def ladders_own() -> dict[str, list[str]]:
    return climbing(load_space("ladder"))


def stand_ins() -> dict[str, list[str]]:
    return {name: [row.backbone for row in STAND_INS if row.tier == name] for name in TIERS}


def test_the_sample_without_weights_climbs_with_stand_ins_and_asks_nobody(asked: list[Any], tmp_path: Path) -> None:
    request = request_of(tmp_path)
    space, weights, lines = found(request)
    assert asked == []
    assert climbing(space) == stand_ins()
    assert (weights.kind, weights.source) == ("pretrained", "stand-ins")
    names = [row.backbone for row in STAND_INS]
    assert weights.files == {name: stand_ins_folder() / f"{name}.safetensors" for name in names}
    assert "downloads nothing unless asked (--weights pretrained): small stand-ins climb" in lines[0]
    assert lines[1:] == [
        f"tier {name}: {', '.join(stand_ins()[name])} for {', '.join(ladders_own()[name])}" for name in TIERS
    ]


def test_a_space_with_stand_ins_is_as_it_was_but_for_its_backbones(asked: list[Any], tmp_path: Path) -> None:
    request = request_of(tmp_path)
    space, _, _ = found(request)
    before = request.spaces[0].to_dict()
    for name, tier in before["tiers"].items():
        tier["backbone"] = stand_ins()[name]
    assert space.to_dict() == before
    assert {tier.resolutions for tier in space.tiers} == {(32,)}


def test_stand_ins_are_prepared_as_any_backbone(asked: list[Any], tmp_path: Path) -> None:
    prepared = prepare(request_of(tmp_path), climb_samples(1000, 3), True, PlainProgress(Console(file=io.StringIO())))
    names = [row.backbone for row in STAND_INS]
    assert climbing(prepared.spaces[0]) == stand_ins()
    assert prepared.facts.keys() == {(name, 32) for name in names}
    assert prepared.families == {name: family_of(name) for name in names}
    record = prepared.record()
    assert (record.kind, record.source) == ("pretrained", "stand-ins")
    assert record.hashes == {
        name: hashlib.sha256((stand_ins_folder() / f"{name}.safetensors").read_bytes()).hexdigest() for name in names
    }
    assert prepared.largest_resolution == 32
    assert {tier.recipe["epochs"] for space in prepared.spaces for tier in space.tiers} == {6}  # as the sample wants
    assert {prepared.licence_of(name) for name in names} == {"apache-2.0"}


def test_weights_that_all_lie_in_the_cache_are_used_and_nobody_is_asked(
    cache: Path, asked: list[Any], tmp_path: Path
) -> None:
    fill(cache)
    space, weights, lines = found(request_of(tmp_path))
    assert climbing(space) == ladders_own()
    assert (weights.kind, weights.source, lines, asked) == ("pretrained", "hub", [], [])
    assert weights.hashes() == {name: hashlib.sha256(name.encode()).hexdigest() for name in LADDER}


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_one_file_too_few_in_the_cache_and_all_climb_with_stand_ins(
    what: str, cache: Path, asked: list[Any], tmp_path: Path
) -> None:
    fill(cache, LADDER[4])
    if what == "damaged":
        put(cache, LADDER[4], b"half", name="0" * 64)
    space, weights, _ = found(request_of(tmp_path))
    assert climbing(space) == stand_ins()
    assert (weights.source, asked) == ("stand-ins", [])


def test_whoever_asks_for_pretrained_weights_has_them_or_an_error(
    cache: Path, asked: list[Any], tmp_path: Path
) -> None:
    request = request_of(tmp_path, "--weights", "pretrained")
    with pytest.raises(
        ValueError, match=r"^no pretrained weights: the weights of mobilenetv3_large_100.ra_in1k cannot"
    ):
        found(request)
    assert asked
    fill(cache)
    space, weights, _ = found(request)
    assert (climbing(space), weights.source) == (ladders_own(), "hub")


def test_random_weights_are_for_the_spaces_own_backbones(asked: list[Any], tmp_path: Path) -> None:
    space, weights, lines = found(request_of(tmp_path, "--weights", "random"))
    assert (climbing(space), weights.kind, lines, asked) == (ladders_own(), "random", [], [])


def test_a_folder_of_weights_is_for_the_spaces_own_backbones(asked: list[Any], tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    request = request_of(tmp_path, "--weights", str(folder))
    with pytest.raises(ValueError, match=rf"^the weights folder {folder} lacks {LADDER[0]}.safetensors"):
        found(request)
    for backbone in LADDER:
        save_file({}, folder / f"{backbone}.safetensors")
    space, weights, lines = found(request)
    assert (climbing(space), weights.source, lines, asked) == (ladders_own(), str(folder), [], [])


def test_own_data_has_no_stand_ins(asked: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^no pretrained weights: .*--weights DIR.*--weights random"):
        found(request_of(tmp_path), is_sample=False)
    assert asked


def test_backbones_that_were_set_stay_and_the_other_tiers_have_stand_ins(asked: list[Any], tmp_path: Path) -> None:
    space, weights, lines = found(request_of(tmp_path, "--set", "tiers.light.backbone=test_vit"))
    assert climbing(space) == {**stand_ins(), "light": ["test_vit"]}
    assert (weights.source, asked) == ("stand-ins", [])
    assert [line.partition(":")[0] for line in lines[1:]] == ["tier mid", "tier heavy"]


@pytest.mark.parametrize("key", ["backbone", "tiers.mid.backbone"])
def test_backbones_that_were_set_and_have_no_weights_here_climb_with_random_ones(
    key: str, asked: list[Any], tmp_path: Path
) -> None:
    request = request_of(tmp_path, "--set", f"{key}=resnet18.a1_in1k")
    space, weights, lines = found(request)
    assert climbing(space) == climbing(request.spaces[0])
    assert (weights.kind, asked) == ("random", [])
    assert lines[0].startswith(
        "WARNING: the local cache lacks weights of resnet18.a1_in1k, for which nothing stands in"
    )
    assert "RANDOM weights" in lines[1]


def test_a_space_of_one_backbone_climbs_with_its_family(asked: list[Any], tmp_path: Path) -> None:
    space, _, lines = found(request_of(tmp_path, space="resnet50"))
    assert climbing(space) == {"single": ["test_resnet"]}
    assert lines[1:] == ["tier single: test_resnet for resnet50.a1_in1k"]


def test_smoke_climbs_with_the_folder_that_it_names(asked: list[Any], tmp_path: Path) -> None:
    space, weights, lines = found(request_of(tmp_path, space="smoke"))
    assert climbing(space) == climbing(load_space("smoke"))
    assert (weights.source, lines, asked) == (str(stand_ins_folder()), [], [])


def test_a_study_goes_on_with_what_it_began_with(cache: Path, asked: list[Any], tmp_path: Path) -> None:
    fill(cache)
    sources = {"stand-ins": stand_ins(), "hub": ladders_own(), "random": ladders_own()}
    for source, expected in sources.items():
        begin(tmp_path / f"study-{source}", source)
        space, weights, _ = found(replace(request_of(tmp_path), study=tmp_path / f"study-{source}"))
        assert (climbing(space), weights.source, asked) == (expected, source, [])


def test_a_resolved_space_climbs_again_as_it_is(asked: list[Any], tmp_path: Path) -> None:
    space, _, _ = found(request_of(tmp_path))
    (tmp_path / "resolved.yaml").write_text(space.text)
    again, weights, lines = found(request_of(tmp_path, space=str(tmp_path / "resolved.yaml")))
    assert replace(again, file=space.file) == space
    assert (weights.source, lines) == ("stand-ins", [])


def begin(study: Path, source: str) -> None:
    kind = "random" if source == "random" else "pretrained"
    study.mkdir()
    write_record(
        StudyPaths(study),
        StudyRecord(
            seed=0, data="digits", data_fingerprint="d", fold_fingerprint="f", classes=("0", "1"), versions={},
            device="cpu", weights=WeightsRecord(kind=kind, source=source, hashes={}),
            choices=Choices(activation_bytes=0, arithmetic={}),
        ),
    )  # fmt: skip
