"""The report of a search as large as they come: 200 trials, or 300 classes."""

import re
from pathlib import Path

import pytest

from spine_ray.report import main
from spine_ray.study.paths import StudyPaths
from tests.support.patience import cpu_seconds
from tests.support.study_files import many, write_study

pytestmark = pytest.mark.timeout(900)


def report(paths: StudyPaths) -> str:
    assert main([str(paths.root)]) == 0
    return paths.report.read_text(encoding="utf-8")


def names(count: int) -> list[str]:
    return [f"class {number:03d}" for number in range(count)]


@pytest.mark.parametrize(
    ("trials", "classes", "rows"), [((50, 200), (3, 3), 12), ((12, 12), (75, 300), 6)], ids=["trials", "classes"]
)
def test_four_times_as_much_takes_less_than_four_times_as_long(
    tmp_path: Path, trials: tuple[int, int], classes: tuple[int, int], rows: int
) -> None:
    small, large = (
        write_study(tmp_path / size, many(trials[place]), names(classes[place]), per_class=rows)
        for place, size in enumerate(("small", "large"))
    )
    least = cpu_seconds(lambda: report(small), times=3)
    assert cpu_seconds(lambda: report(large), times=2) < 4 * least
    text = large.report.read_text(encoding="utf-8")
    assert len(re.findall(r'<g id="ladder-find-\d+"', text)) == trials[1]
    assert all(name in text for name in names(classes[1]))
    assert len(text) < 3_000_000
