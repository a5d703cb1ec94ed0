import re

import pytest

from spine_ray.space.arithmetic import ALL, FLOAT32, Arithmetic, parse_arithmetic


def test_there_are_four_precisions_in_two_memory_formats():
    assert sorted(map(str, ALL)) == [
        "bfloat16 channels_last",
        "bfloat16 contiguous",
        "float16 channels_last",
        "float16 contiguous",
        "float32 channels_last",
        "float32 contiguous",
        "tf32 channels_last",
        "tf32 contiguous",
    ]


def test_where_nothing_was_measured_it_is_float32():
    assert Arithmetic("float32", "channels_last") == FLOAT32
    assert FLOAT32 in ALL


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_what_is_written_is_read_back(arithmetic):
    assert parse_arithmetic(str(arithmetic)) == arithmetic


@pytest.mark.parametrize(
    "text",
    [
        "",
        "float32",
        "channels_last",
        "float8 contiguous",
        "float32 planar",
        "contiguous float32",
        "float32  contiguous",
        "FLOAT32 contiguous",
        "float32 contiguous bfloat16",
    ],
)
def test_anything_else_is_refused_with_what_there_is(text):
    with pytest.raises(ValueError, match=f"^no arithmetic: {re.escape(repr(text))} ") as refusal:
        parse_arithmetic(text)
    assert all(str(arithmetic) in str(refusal.value) for arithmetic in ALL)
    assert "\n" not in str(refusal.value)
