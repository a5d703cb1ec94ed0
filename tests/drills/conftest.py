"""Drills search on all cores of the machine."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def all_cores(own_cache_and_one_thread: None) -> Iterator[None]:
    """Give searches every core, one drill at a time; the suite gives each one core, because several run at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOKY_MAX_CPU_COUNT")
        yield
