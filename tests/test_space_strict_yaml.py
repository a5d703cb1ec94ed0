import pytest

from spine_ray.space.strict_yaml import read_yaml, write_yaml


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 0.001), ("1E3", 1000.0), ("-2e+1", -20.0), ("1.5e3", 1500.0), (".5e1", 5.0), ("1.0e-3", 0.001)],
)
def test_read_yaml_takes_exponents_as_numbers(text: str, number: float) -> None:
    value = read_yaml(text)
    assert isinstance(value, float)
    assert value == number


def test_read_yaml_leaves_quoted_numbers_and_names_alone() -> None:
    assert read_yaml("['1e-3', 1e, e3, resnet50.a1_in1k]") == ["1e-3", "1e", "e3", "resnet50.a1_in1k"]


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x:\n  a: 1\n  b: 2\n  a: 1", "{a: 1, 'a': 2}"])
def test_read_yaml_refuses_a_key_that_is_there_twice(text: str) -> None:
    with pytest.raises(ValueError, match="the key 'a' is there twice"):
        read_yaml(text)


def test_read_yaml_names_the_line_of_a_duplicate_key() -> None:
    with pytest.raises(ValueError, match="line 3: the key 'b'"):
        read_yaml("a: 1\nb: 2\nb: 3")


def test_read_yaml_lets_a_key_override_a_merged_one() -> None:
    assert read_yaml("base: &b {a: 1, c: 2}\nx:\n  <<: *b\n  a: 3")["x"] == {"a": 3, "c": 2}


@pytest.mark.parametrize("text", ["a: [1", "a: b: c", "!!python/object/apply:os.getcwd []", "a: \x07"])
def test_read_yaml_says_in_one_line_what_it_cannot_read(text: str) -> None:
    with pytest.raises(ValueError, match="not readable as YAML") as caught:
        read_yaml(text)
    assert "\n" not in str(caught.value)


def test_write_yaml_is_read_back_unchanged() -> None:
    values = {"b": [1e-5, 0.1, 3], "a": {"name": "ü", "on": True, "none": None}}
    assert read_yaml(write_yaml(values)) == values
    assert list(read_yaml(write_yaml(values))) == ["b", "a"]


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775808", "1" + "0" * 400, "0x" + "f" * 40])
def test_a_whole_number_of_more_than_64_bits_is_refused(text):
    with pytest.raises(ValueError, match=r"line 2: a number of more than 64 bits"):
        read_yaml(f"a: 9223372036854775807\nb: {text}")
