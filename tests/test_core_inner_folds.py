import numpy as np
import pytest

from spine_ray.core.inner_folds import ALWAYS_FITTED, FOLDS, deal_inner_folds


def grouped(rows: int, classes: int, groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and groups of uneven sizes; most rows of a group are of one class."""
    rng = np.random.default_rng(seed)
    group = np.minimum(rng.geometric(3.0 / groups, rows), groups) - 1
    of_group = rng.integers(0, classes, groups)
    label = np.where(rng.random(rows) < 0.9, of_group[group], rng.integers(0, classes, rows))
    return label.astype(np.int64), group.astype(np.int64)


@pytest.mark.parametrize("seed", range(10))
def test_groups_are_whole_and_no_class_is_missing_in_the_rest(seed: int) -> None:
    labels, groups = grouped(400, 6, 60, seed)
    folds = deal_inner_folds(labels, groups, seed)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    for fold in range(FOLDS):
        assert set(labels[folds != fold]) == set(labels)
        assert 0.1 < (folds == fold).mean() < 0.3


def test_rows_without_groups_give_each_class_a_fifth_a_fold() -> None:
    labels = np.repeat(np.arange(4), [500, 203, 50, 10])
    folds = deal_inner_folds(labels, np.arange(len(labels)), 3)
    counts = np.array([np.bincount(folds[labels == label], minlength=FOLDS) for label in range(4)])
    assert (counts.max(axis=1) - counts.min(axis=1)).tolist() == [0, 1, 0, 0]


def test_classes_with_fewer_rows_than_folds_are_spread_over_all_folds() -> None:
    labels = np.repeat(np.arange(100), 2)
    folds = deal_inner_folds(labels, np.arange(200), 0)
    assert np.bincount(folds).tolist() == [40] * FOLDS
    assert (folds[::2] != folds[1::2]).all()


def test_a_class_in_one_group_is_never_held_out() -> None:
    labels = np.repeat([0, 1, 2], [60, 60, 30])
    groups = np.concatenate([np.arange(120), np.full(30, 1000)])
    folds = deal_inner_folds(labels, groups, 0)
    assert (folds[labels == 2] == ALWAYS_FITTED).all()
    assert np.bincount(folds[labels < 2]).tolist() == [24] * FOLDS


def test_the_seed_decides_and_the_names_of_groups_do_not() -> None:
    labels, groups = grouped(300, 5, 80, 0)
    first, again, other = (deal_inner_folds(labels, groups, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(deal_inner_folds(labels, 7 * groups - 1000, 1), first)


def test_a_hundred_thousand_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 1000, 100_000)
    folds = deal_inner_folds(labels, np.arange(100_000) // 2, 0)
    assert np.bincount(folds, minlength=FOLDS) == pytest.approx(np.full(FOLDS, 20_000), abs=200)
