"""Thousands of damaged files of a study that nobody has seen before: other ones at every run."""

from pathlib import Path

import pytest

from tests.support.fuzzing import DATA_TARGETS, NAMES, SAME_CASES, Target, hunt, study_targets

CASES = 5_000
"""Of a target, before its share; with `fuzz_data` a hundred thousand."""
STUDY_NAMES = [name for name in NAMES if name not in DATA_TARGETS]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return study_targets(tmp_path_factory.mktemp("whole") / "study")


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", STUDY_NAMES)
def test_anything_is_read_or_refused_in_a_line(targets: dict[str, Target], name: str, tmp_path: Path) -> None:
    hunt(targets[name], tmp_path, CASES, is_random=True)


@pytest.mark.parametrize("name", STUDY_NAMES)
def test_the_cases_that_are_the_same_at_every_run_are_read_or_refused_in_a_line(
    targets: dict[str, Target], name: str, tmp_path: Path
) -> None:
    hunt(targets[name], tmp_path, SAME_CASES, is_random=False)


def test_there_are_two_thousand_cases_that_are_the_same_at_every_run(targets: dict[str, Target]) -> None:
    assert sum(round(SAME_CASES * target.share) for target in (*DATA_TARGETS.values(), *targets.values())) >= 2_000


def test_there_are_sixty_two_thousand_cases(targets: dict[str, Target]) -> None:
    assert set(targets) == set(STUDY_NAMES)
    assert sum(round(CASES * target.share) for target in targets.values()) >= 62_000
