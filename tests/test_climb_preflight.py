"""What a study takes over of the weights when it is opened again."""

from pathlib import Path

import pytest

from spine_ray.climb.preflight import take_weights
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
