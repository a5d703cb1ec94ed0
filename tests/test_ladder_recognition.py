import json

import numpy as np
import pytest

from spine_ray.ladder.recognition import MIN_CLASS_ROWS, MOST_NAMED, Recognition, recognition

NAMES = ("ant", "bee", "cow", "dog")


def recognised(sizes: list[int], hits: list[int], groups: np.ndarray | None = None) -> Recognition:
    """Classes of these sizes, of each of which so many rows are taken for it and the others for the next class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    rank = np.concatenate([np.arange(size) for size in sizes])
    said = np.where(rank < np.array(hits)[labels], labels, (labels + 1) % len(sizes))
    return recognition(np.log(np.eye(len(sizes))[said] + 0.01), labels, NAMES[: len(sizes)], groups)


def test_rows_and_hits_are_counted_by_class() -> None:
    found = recognised([3, 2, 4], [3, 0, 1])
    assert [(each.name, each.rows, each.groups, each.hits) for each in found.recalls] == [
        ("ant", 3, 3, 3), ("bee", 2, 2, 0), ("cow", 4, 4, 1),
    ]  # fmt: skip


def test_a_single_row_that_is_recognised_is_enough() -> None:
    assert recognised([50, 50], [50, 1]).collapsed == ()


def test_the_limit_is_where_no_hit_says_that_the_recall_is_surely_below_about_one_in_four() -> None:
    # With a recall r all of n rows are missed with the probability (1 - r) ** n, at most 5 % where r is the bound.
    for rows, bound in ((MIN_CLASS_ROWS, 0.26), (5, 0.45), (3, 0.63)):
        missed = (1 - bound) ** rows
        assert missed == pytest.approx(0.05, abs=0.003)


def test_a_class_with_fewer_independent_rows_is_unrecognised_and_not_judged() -> None:
    found = recognised([60, MIN_CLASS_ROWS, MIN_CLASS_ROWS - 1], [60, 0, 0])
    assert [each.name for each in found.unrecognised] == ["bee", "cow"]
    assert [each.name for each in found.collapsed] == ["bee"]
    assert [each.name for each in found.judged] == ["ant", "bee"]
    assert found.collapsed_share == 0.5


def test_rows_of_one_group_count_once() -> None:
    groups = np.concatenate([np.arange(60), 100 + np.arange(40) // 5])  # 40 rows of the second class in 8 groups
    assert recognised([60, 40], [60, 0], groups).collapsed == ()
    assert [each.name for each in recognised([60, 40], [60, 0]).collapsed] == ["bee"]


def test_the_weakest_is_the_one_with_most_independent_rows() -> None:
    groups = np.concatenate([np.arange(50), 100 + np.arange(15), 200 + np.arange(30) // 3, 300 + np.arange(12)])
    found = recognised([50, 15, 30, 12], [50, 0, 0, 0], groups)
    assert [(each.name, each.groups) for each in found.unrecognised] == [("bee", 15), ("dog", 12), ("cow", 10)]


def test_classes_without_rows_are_left_out() -> None:
    found = recognition(np.log(np.full((20, 4), 0.25)), np.zeros(20, int), NAMES, None)
    assert [each.name for each in found.recalls] == ["ant"]


def test_where_no_class_can_be_judged_nothing_is_said_to_have_collapsed() -> None:
    found = recognised([5, 5], [0, 0])
    assert found.collapsed_share == 0.0
    assert found.summary == "no class has the 10 independent rows that it takes to say whether it collapsed"
    assert found.collapse == ""
    assert len(found.findings) == 1


def test_where_all_are_recognised_there_is_no_finding() -> None:
    found = recognised([50, 50], [9, 9])
    assert (found.summary, found.findings) == ("no class collapsed", ())


@pytest.mark.parametrize("more", [0, 1, 12])
def test_a_long_list_is_cut_in_the_sentence_and_whole_in_the_numbers(more: int) -> None:
    classes = MOST_NAMED + more
    names = tuple(f"class {index:02d}" for index in range(classes))
    labels = np.repeat(np.arange(classes), 20)
    values = np.log(np.eye(classes)[(labels + 1) % classes] + 0.01)
    found = recognition(values, labels, names, None)
    sentence = found.findings[0]
    assert sentence.count("(20 rows)") == MOST_NAMED
    assert sentence.endswith(f"{names[MOST_NAMED - 1]} (20 rows) and {more} more" if more else "and class 07 (20 rows)")
    assert json.loads(json.dumps(found.to_dict()))["collapsed_classes"] == list(names)


def test_names_and_groups_must_fit() -> None:
    values, labels = np.log(np.full((4, 2), 0.5)), np.zeros(4, int)
    with pytest.raises(ValueError, match="one name a class"):
        recognition(values, labels, ("a",), None)
    with pytest.raises(ValueError, match="one group a row"):
        recognition(values, labels, ("a", "b"), np.zeros(3))
