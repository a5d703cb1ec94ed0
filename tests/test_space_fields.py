import pytest

from spine_ray.space.fields import Around, Choice, Field, LogUniform, Uniform, field_to_plain, read_field

FORMS: list[tuple[object, Field]] = [
    (0.1, 0.1),
    ([0.1, 0.0], Choice((0.1, 0.0))),
    ({"log_uniform": [1e-5, 1e-2], "start": 1e-3}, LogUniform(1e-5, 1e-2, 1e-3)),
    ({"uniform": [0.0, 0.3], "start": 0.1}, Uniform(0.0, 0.3, 0.1)),
    ({"around_start": 3.0}, Around(3.0)),
]


@pytest.mark.parametrize(("raw", "field"), FORMS)
def test_read_field_reads_every_form(raw: object, field: Field) -> None:
    assert read_field("lr", raw) == field


@pytest.mark.parametrize(("raw", "field"), FORMS)
def test_field_to_plain_is_the_inverse_of_read_field(raw: object, field: Field) -> None:
    assert field_to_plain(field) == raw


def test_read_field_makes_floats_where_the_recipe_holds_floats() -> None:
    assert isinstance(read_field("lr", 1), float)
    assert isinstance(read_field("epochs", 1), int)
    assert read_field("trivial_augment", True) is True
    choice = read_field("drop_path", [0, 0.1])
    assert isinstance(choice, Choice)
    assert isinstance(choice.values[0], float)


def test_a_choice_starts_at_its_first_value() -> None:
    assert Choice(("balanced", "none")).start == "balanced"


def test_around_samples_a_multiplier_that_starts_at_one() -> None:
    around = Around(4.0)
    assert (around.low, around.start, around.high) == (0.25, 1.0, 4.0)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "an empty list"),
        ([0.1, 0.1], "0.1 is there twice"),
        (None, "must be a value, a list"),
        ([None], "must be a value, a list"),
        ({"log_uniform": [1e-5, 1e-2], "start": 1.0}, "the start 1 lies outside 1e-05 to 0.01"),
        ({"uniform": [0.0, 0.3], "start": -0.1}, "the start -0.1 lies outside 0 to 0.3"),
        ({"uniform": [0.0, 0.3]}, "uniform needs its starting point"),
        ({"uniform": [0.3, 0.0], "start": 0.1}, "from a lower to a higher number, not from 0.3 to 0"),
        ({"uniform": [0.0, float("inf")], "start": 0.1}, "from a lower to a higher number"),
        ({"uniform": [0.1], "start": 0.1}, r"uniform must be \[low, high\]"),
        ({"uniform": ["a", 1], "start": 0.1}, "uniform must be a number, not 'a'"),
        ({"log_uniform": [0, 1], "start": 0.1}, "log_uniform must begin above 0"),
        ({"around_start": 1}, "must be a factor above 1, not 1"),
        ({"around_start": 3, "start": 1}, "around_start has no key 'start'"),
        ({"around": 3}, r"no key 'around' \(did you mean around_start\?\)"),
        ({"log_uniform": [1, 2], "start": 1, "step": 1}, "log_uniform has no key 'step'; allowed: log_uniform, start"),
        ({}, "a distribution is one of log_uniform, uniform, around_start"),
    ],
)
def test_read_field_refuses_what_is_no_distribution(raw: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_field("lr", raw)
