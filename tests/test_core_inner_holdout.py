import numpy as np
import pytest

from spine_ray.core.inner_holdout import inner_holdout


def grouped(rows: int, classes: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and groups of uneven sizes; most groups are of one class, some of several."""
    rng = np.random.default_rng(seed)
    group = np.minimum(rng.geometric(3.0 / groups, rows), groups) - 1
    of_group = rng.integers(0, classes, groups)
    label = np.where(rng.random(rows) < 0.9, of_group[group], rng.integers(0, classes, rows))
    return label.astype(np.int64), group.astype(np.int64)


@pytest.mark.parametrize("seed", range(10))
def test_groups_are_whole_and_no_class_is_missing_in_the_rest(seed: int) -> None:
    labels, groups = grouped(400, 6, 60, seed)
    held_out = inner_holdout(labels, groups, seed)
    assert held_out is not None
    assert not set(groups[held_out]) & set(groups[~held_out])
    assert set(labels[~held_out]) == set(labels)
    assert 0.1 < held_out.mean() < 0.3


def test_rows_without_groups_give_each_class_its_share() -> None:
    labels = np.repeat(np.arange(4), [500, 200, 50, 10])
    held_out = inner_holdout(labels, np.arange(len(labels)), 3)
    assert held_out is not None
    assert np.bincount(labels[held_out]).tolist() == [100, 40, 10, 2]


def test_of_many_classes_with_two_rows_a_part_is_held_out_in_turn() -> None:
    labels = np.repeat(np.arange(100), 2)
    held_out = inner_holdout(labels, np.arange(200), 0)
    assert held_out is not None
    assert held_out.sum() == 40
    assert np.bincount(labels[held_out]).max() == 1


def test_a_class_in_one_group_stays() -> None:
    labels = np.repeat([0, 1, 2], [60, 60, 30])
    groups = np.concatenate([np.arange(120), np.full(30, 1000)])
    held_out = inner_holdout(labels, groups, 0)
    assert held_out is not None
    assert not held_out[labels == 2].any()
    assert held_out.sum() == 24


def test_the_seed_decides_and_the_names_of_groups_do_not() -> None:
    labels, groups = grouped(300, 5, 80, 0)
    first, again, other = (inner_holdout(labels, groups, seed) for seed in (1, 1, 2))
    assert first is not None
    assert other is not None
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(inner_holdout(labels, 7 * groups - 1000, 1), first)


@pytest.mark.parametrize(
    ("labels", "groups"),
    [
        ([0, 1] * 100, [0] * 100 + [1] * 100),
        ([0, 1, 0, 1, 0], [0, 1, 2, 3, 4]),
        ([0] * 45, list(range(45))),
        ([0, 1] * 50, [3] * 100),
    ],
    ids=["two groups", "five rows", "nine would be held out", "one group"],
)
def test_without_enough_rows_or_groups_there_is_none(labels: list[int], groups: list[int]) -> None:
    assert inner_holdout(np.array(labels), np.array(groups), 0) is None


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 100_000)
    held_out = inner_holdout(labels, np.arange(100_000) // 2, 0)
    assert held_out is not None
    assert held_out.mean() == pytest.approx(0.2, abs=0.01)
