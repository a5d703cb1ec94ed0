"""What a study takes over of the weights when it is opened again."""

from dataclasses import replace
from pathlib import Path

import pytest

from spine_ray.climb.preflight import Rows, begin_study, look_at_data, take_weights
from spine_ray.climb.words import search_request
from spine_ray.data.digits import digits_source
from spine_ray.search import _parser
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, read_record, write_record


def weights(**hashes: str) -> WeightsRecord:
    return WeightsRecord(kind="pretrained", source="hub", hashes=hashes)


@pytest.fixture
def record() -> StudyRecord:
    return StudyRecord(
        seed=0, data="x", data_fingerprint="d", fold_fingerprint="f", classes=("a", "b"), versions={}, device="cpu",
        weights=weights(resnet="1" * 64), choices=Choices(activation_bytes=0, arithmetic={}),
    )  # fmt: skip


def test_a_file_of_weights_that_changed_is_refused_by_name_in_one_line(tmp_path: Path, record: StudyRecord) -> None:
    write_record(StudyPaths(tmp_path), record)
    with pytest.raises(ValueError, match="the weights of resnet are not those that the study") as refusal:
        take_weights(StudyPaths(tmp_path), record, weights(vit="3" * 64, resnet="2" * 64))
    assert "222222222222..., not 111111111111..." in str(refusal.value)
    assert "put the old file back" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert read_record(tmp_path) == record


def test_the_weights_of_more_backbones_are_pinned_too(tmp_path: Path, record: StudyRecord) -> None:
    taken = take_weights(StudyPaths(tmp_path), record, weights(vit="3" * 64, resnet="1" * 64))
    assert taken.weights.hashes == {"resnet": "1" * 64, "vit": "3" * 64}
    assert read_record(tmp_path) == taken
    assert take_weights(StudyPaths(tmp_path), taken, weights(vit="3" * 64)) == taken


@pytest.fixture(scope="module")
def looked(tmp_path_factory) -> tuple:
    source = digits_source()
    words = ["--space", "smoke", "--study", str(tmp_path_factory.mktemp("looked") / "study")]
    request = search_request(_parser().parse_args(words), source, "search", 0.0)
    return request, look_at_data(request, source)


@pytest.fixture
def begin(looked: tuple, tmp_path):
    """A function that begins the study, or opens it again, with weights that hash so."""
    request, rows = looked
    request = replace(request, study=tmp_path / "study")

    def opened(**hashes: str):
        weights = WeightsRecord(kind="pretrained", source="hub", hashes=hashes)
        return begin_study(request, Rows(rows.source, rows.samples, rows.audit), weights, "cpu")

    return opened


def test_a_study_keeps_what_its_weights_hash_to(begin, tmp_path) -> None:
    record = begin(test_vit="a" * 64)
    assert begin(test_vit="a" * 64) == record == read_record(tmp_path / "study")


def test_weights_of_backbones_that_are_new_to_the_study_are_added(begin, tmp_path) -> None:
    begin(test_vit="a" * 64)
    begin(test_resnet="b" * 64)
    assert read_record(tmp_path / "study").weights.hashes == {"test_vit": "a" * 64, "test_resnet": "b" * 64}


def test_weights_that_have_changed_since_are_refused_and_the_study_stays(begin, tmp_path) -> None:
    record = begin(test_vit="a" * 64)
    with pytest.raises(ValueError, match="the weights of test_vit are not those that the study"):
        begin(test_vit="c" * 64, test_resnet="b" * 64)
    assert read_record(tmp_path / "study") == record


def test_where_the_data_lies_is_kept_for_whoever_stands_elsewhere(looked: tuple, tmp_path, monkeypatch) -> None:
    request, rows = looked
    monkeypatch.chdir(tmp_path)
    request = replace(request, study=tmp_path / "study", data="pictures", data_root=Path())
    weights = WeightsRecord(kind="random", source="random", hashes={})
    begin_study(request, Rows(rows.source, rows.samples, rows.audit), weights, "cpu")
    record = read_record(tmp_path / "study")
    kept = "digits" if rows.source.is_sample else str(tmp_path / "pictures")
    assert (record.data, record.data_root) == (kept, str(tmp_path))
