import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spine_ray.study.paths import StudyPaths, copy_of
from spine_ray.study.record import SCHEMA_VERSION, Choices, StudyRecord, WeightsRecord, read_record, write_record
from spine_ray.study.record import TestOpening as Opening  # under its own name pytest would collect it

OPENING = Opening(time="2026-01-02T03:04:05+00:00", ensemble_hash="0123456789abcdef")


@pytest.fixture
def record() -> StudyRecord:
    return StudyRecord(
        seed=7,
        data="photos",
        data_fingerprint="d" * 64,
        fold_fingerprint="f" * 64,
        classes=("cat", "dög"),
        versions={"torch": "2.10.0"},
        device="cpu",
        weights=WeightsRecord(kind="pretrained", source="hub", hashes={"resnet18.a1_in1k": "a" * 64}),
        choices=Choices(activation_bytes=10**10, arithmetic={"resnet18.a1_in1k": "float32 channels_last"}),
    )


def change(root: Path, **values: Any) -> None:
    path = StudyPaths(root).record
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refusal(root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        read_record(root)
    told = str(caught.value)
    assert "\n" not in told
    return told


def test_a_record_is_equal_after_a_round_trip(tmp_path: Path, record: StudyRecord) -> None:
    for each in (record, record.with_opening(OPENING)):
        write_record(StudyPaths(tmp_path), each)
        assert read_record(tmp_path) == each


def test_openings_of_the_test_split_add_up_and_change_nothing_else(record: StudyRecord) -> None:
    twice = record.with_opening(OPENING).with_opening(OPENING)
    assert record.test_openings == ()
    assert twice.test_openings == (OPENING, OPENING)
    assert (twice.seed, twice.weights, twice.classes) == (record.seed, record.weights, record.classes)


def test_what_more_backbones_are_computed_in_adds_up_and_changes_nothing_else(record: StudyRecord) -> None:
    more = record.with_arithmetic({"vit": "bfloat16 contiguous"})
    assert more.choices.arithmetic == {"resnet18.a1_in1k": "float32 channels_last", "vit": "bfloat16 contiguous"}
    assert record.choices.arithmetic == {"resnet18.a1_in1k": "float32 channels_last"}
    assert more.choices.activation_bytes == record.choices.activation_bytes
    assert replace(more, choices=record.choices) == record


def test_the_file_says_its_schema_version(tmp_path: Path, record: StudyRecord) -> None:
    write_record(StudyPaths(tmp_path), record)
    assert json.loads((tmp_path / "study.json").read_text())["schema_version"] == SCHEMA_VERSION


@pytest.mark.parametrize(("version", "remedy"), [(SCHEMA_VERSION + 1, "upgrade spine_ray"), (0, "use the release")])
def test_another_schema_is_refused_with_both_versions_and_what_to_do(
    tmp_path: Path, record: StudyRecord, version: int, remedy: str
) -> None:
    write_record(StudyPaths(tmp_path), record)
    change(tmp_path, schema_version=version)
    told = refusal(tmp_path)
    assert f"schema version {version}," in told
    assert f"reads version {SCHEMA_VERSION}" in told
    assert remedy in told


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": null}', '{"schema_version": "1"}'])
def test_a_damaged_file_is_read_from_its_copy(tmp_path: Path, record: StudyRecord, text: str) -> None:
    write_record(StudyPaths(tmp_path), record)
    (tmp_path / "study.json").write_text(text)
    assert read_record(tmp_path) == record
    (tmp_path / "study.json").unlink()
    assert read_record(tmp_path) == record


def test_a_folder_without_a_study_is_refused_by_name(tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(tmp_path / "nowhere")
    assert "no study" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '{"schema_version": 1}'])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    assert "study.json" in refusal(tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {"weights": None},
        {"weights": {"kind": "random"}},
        {"choices": None},
        {"choices": {"activation_bytes": 0}},
        {"test_openings": [1]},
        {"classes": 3},
        {"mood": "good"},
    ],
)
def test_a_field_of_the_wrong_form_is_refused(tmp_path: Path, record: StudyRecord, values: dict[str, Any]) -> None:
    write_record(StudyPaths(tmp_path), record)
    copy_of(tmp_path / "study.json").unlink()
    change(tmp_path, **values)
    assert "study.json is damaged" in refusal(tmp_path)
