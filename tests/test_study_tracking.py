from pathlib import Path

import pytest

from spine_ray.study.paths import StudyPaths
from spine_ray.study.tracking import keep_tracking, read_tracking


def test_a_study_keeps_its_name_wherever_it_is_tracked(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    assert read_tracking(paths) is None
    first = keep_tracking(paths, None)
    second = keep_tracking(paths, "http://server")
    assert (first.study_id, second.uri) == (second.study_id, "http://server")
    assert read_tracking(paths) == second


def test_two_studies_have_two_names(tmp_path: Path) -> None:
    ids = {keep_tracking(StudyPaths(tmp_path / name), None).study_id for name in ("a", "b")}
    assert len(ids) == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    paths = StudyPaths(tmp_path)
    paths.tracking_record.write_text('{"other": 1}')
    with pytest.raises(ValueError, match=r"tracking\.json"):
        read_tracking(paths)
