from dataclasses import replace

import pytest

from spine_ray.climb.preflight import Rows, begin_study, look_at_data
from spine_ray.climb.words import search_request
from spine_ray.data.digits import digits_source
from spine_ray.search import _parser
from spine_ray.study.record import WeightsRecord, read_record


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
    with pytest.raises(ValueError, match=r"the weights of test_vit are not those that the study .* began with"):
        begin(test_vit="c" * 64, test_resnet="b" * 64)
    assert read_record(tmp_path / "study") == record
