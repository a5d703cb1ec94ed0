"""Thousands of spaces, tables, pictures and weights that nobody has seen before: other ones at every run."""

from pathlib import Path

import pytest

from tests.support.fuzzing import DATA_TARGETS, SAME_CASES, hunt

CASES = 5_000
"""Of a target, before its share; with `fuzz_studies` a hundred thousand."""


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", DATA_TARGETS)
def test_anything_is_read_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    hunt(DATA_TARGETS[name], tmp_path, CASES, is_random=True)


@pytest.mark.parametrize("name", DATA_TARGETS)
def test_the_cases_that_are_the_same_at_every_run_are_read_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    hunt(DATA_TARGETS[name], tmp_path, SAME_CASES, is_random=False)


def test_there_are_thirty_eight_thousand_cases() -> None:
    assert sum(round(CASES * target.share) for target in DATA_TARGETS.values()) >= 38_000
