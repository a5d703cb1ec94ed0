"""A hundred thousand inputs that nobody has seen before: other ones at every run."""

import pytest

from tests.support.fuzzing import DATA_TARGETS, NAMES, Target, hunt, study_targets

CASES = 5_000
"""Of a target, before its share."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {**DATA_TARGETS, **study_targets(tmp_path_factory.mktemp("whole") / "study")}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_anything_is_read_or_refused_in_a_line(targets: dict[str, Target], name: str, tmp_path) -> None:
    hunt(targets[name], tmp_path, CASES, is_random=True)


def test_there_are_a_hundred_thousand_cases(targets: dict[str, Target]) -> None:
    assert sum(round(CASES * target.share) for target in targets.values()) >= 100_000
