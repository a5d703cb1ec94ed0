import pytest

from spine_ray.space.cost_matrix import check_cost_matrix, cost_table
from spine_ray.space.load import load_space


def test_a_mistake_that_is_not_named_costs_one_and_a_right_decision_nothing() -> None:
    assert cost_table({"wolf": {"dog": 10}}, ("cat", "dog", "wolf")) == (
        (0.0, 1.0, 1.0),
        (1.0, 0.0, 1.0),
        (1.0, 10.0, 0.0),
    )
    assert cost_table({}, ("a", "b")) == ((0.0, 1.0), (1.0, 0.0))


def test_numbers_as_class_names_are_those_of_the_folders() -> None:
    assert cost_table({7: {1: 3.0}}, ("1", "7")) == ((0.0, 1.0), (3.0, 0.0))  # type: ignore[dict-item]


def test_a_class_that_the_data_does_not_have_is_named_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'wolve', which is no class of the data \(did you mean wolf\?\)"):
        cost_table({"wolve": {"dog": 10}}, ("dog", "wolf"))
    with pytest.raises(ValueError, match=r"names 'ox', which is no class of the data$"):
        cost_table({"wolf": {"ox": 10}}, ("dog", "wolf"))


@pytest.mark.parametrize("matrix", [3, {"wolf": 10}, [["a"]], {"wolf": [1, 2]}])
def test_what_is_no_table_is_refused_with_an_example(matrix: object) -> None:
    with pytest.raises(ValueError, match=r"such as \{wolf: \{dog: 10\}\}"):
        check_cost_matrix(matrix)


@pytest.mark.parametrize("cost", [-1, float("nan"), float("inf"), "much", True])
def test_costs_are_numbers_of_at_least_nothing(cost: object) -> None:
    with pytest.raises(ValueError, match="wolf decided as dog must cost a number of at least 0"):
        check_cost_matrix({"wolf": {"dog": cost}})


def test_a_space_file_holds_it_and_gives_it_back(tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("backbone: resnet18\nmetric: expected_cost\ncost_matrix: {wolf: {dog: 10}}\n")
    space = load_space(str(file))
    assert (space.metric, space.cost_matrix) == ("expected_cost", {"wolf": {"dog": 10}})
    file.write_text(space.text)
    assert load_space(str(file)).cost_matrix == space.cost_matrix
