"""Whatever is read, the answer is an answer or a line for the user: no other error, and no study changed by reading."""

import pytest

from tests.support.fuzzing import DATA_TARGETS, NAMES, Target, hunt, study_targets

CASES = 30
"""Of a target, before its share: together more than 500; the drills have a hundred thousand."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    return {**DATA_TARGETS, **study_targets(tmp_path_factory.mktemp("whole") / "study")}


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_anything_is_read_or_refused_in_a_line(targets: dict[str, Target], name: str, tmp_path) -> None:
    hunt(targets[name], tmp_path, CASES, is_random=False)


def test_there_are_five_hundred_cases(targets: dict[str, Target]) -> None:
    assert set(targets) == set(NAMES)
    assert sum(round(CASES * target.share) for target in targets.values()) >= 500
