import pytest

from spine_ray.data.counted import counted


@pytest.mark.parametrize(("count", "told"), [(0, "0 pictures are"), (1, "1 picture is"), (2, "2 pictures are")])
def test_one_is_singular_and_any_other_count_is_plural(count: int, told: str) -> None:
    assert counted(count, "picture is", "pictures are") == told
