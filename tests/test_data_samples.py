import numpy as np
import pytest

from spine_ray.data.samples import Samples

VALID = {
    "sample_ids": ("p", "q", "r", "s", "t"),
    "paths": ("1", "2", "3", "4", "5"),
    "labels": np.array([0, 0, 1, 1, 1]),
    "classes": ("a", "b"),
    "groups": np.arange(5),
    "splits": ("dev", "dev", "dev", "test", "dev"),
    "folds": np.array([0, 1, 0, -1, 1]),
}


def test_rows_are_told_apart_by_split_and_fold():
    samples = Samples(**VALID)
    assert samples.dev.tolist() == [0, 1, 2, 4]
    assert samples.test.tolist() == [3]
    assert samples.num_folds == 2
    assert samples.held_out(1).tolist() == [1, 4]
    assert samples.training(1).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"paths": ("1",)}, r"samples\.paths must have shape \(5,\)"),
        ({"labels": np.zeros((5, 1))}, r"samples\.labels must have shape \(5,\) like sample_ids, not \(5, 1\)"),
        ({"sample_ids": ("p", "p", "r", "s", "t")}, "must not repeat"),
        ({"labels": np.array([0, 0, 1, 1, 2])}, "must be 0 to 1, not 0 to 2"),
        ({"labels": np.array([-1, 0, 1, 1, 1])}, "must be 0 to 1, not -1 to 1"),
        ({"classes": ("b", "a")}, "must be sorted"),
        ({"splits": ("dev", "dev", "dev", "val", "dev")}, "must be dev or test, not 'val'"),
        ({"folds": np.array([0, 1, 0, 1, 1])}, "-1 in the test split and nowhere else"),
        ({"folds": np.array([0, 1, -1, -1, 1])}, "-1 in the test split and nowhere else"),
        ({"folds": np.array([0, 2, 0, -1, 2])}, "without a gap"),
        ({"folds": np.array([0, 0, 0, -1, 0])}, "at least two"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Samples(**{**VALID, **change})


def test_empty_table_is_refused():
    empty = {name: () for name in VALID}
    with pytest.raises(ValueError, match="at least one row"):
        Samples(**empty)


def test_arrays_are_copied_and_closed():
    labels = VALID["labels"].copy()
    samples = Samples(**{**VALID, "labels": labels})
    labels[0] = 1
    assert samples.labels[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        samples.folds[0] = 1


@pytest.mark.parametrize(
    ("change", "data_changes", "folds_change"),
    [
        ({"paths": ("9", "8", "7", "6", "5")}, False, False),
        ({"labels": np.array([0, 1, 1, 1, 1])}, True, False),
        ({"classes": ("a", "c")}, True, False),
        ({"sample_ids": ("p", "q", "r", "s", "u")}, True, True),
        ({"folds": np.array([1, 0, 0, -1, 1])}, False, True),
    ],
)
def test_fingerprints_change_with_what_they_stand_for(change, data_changes, folds_change):
    before, after = Samples(**VALID), Samples(**{**VALID, **change})
    assert (before.data_fingerprint != after.data_fingerprint) == data_changes
    assert (before.fold_fingerprint != after.fold_fingerprint) == folds_change
