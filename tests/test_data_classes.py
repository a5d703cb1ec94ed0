import itertools

import pytest

from benchmarks.textures import drawings
from spine_ray.data.audit_classes import are_typos


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        ("dog", "Dog", (50, 50)),
        ("german shepherd", "german_shepherd", (50, 50)),
        ("t-shirt", "tshirt", (50, 50)),
        ("cat", " cat ", (50, 50)),
        ("cat", "cats", (50, 50)),
        ("red box", "red boxes", (50, 50)),
        ("golden retriever", "golden retreiver", (50, 50)),
        ("horse", "hrose", (50, 2)),
        ("benign", "benigm", (50, 20)),
    ],
)
def test_two_spellings_of_one_name_are_typos(one, other, counts):
    assert are_typos(one, other, counts)
    assert are_typos(other, one, counts[::-1])


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        ("class_1", "class_2", (50, 2)),
        ("glyph 3", "glyph 13", (50, 2)),
        ("class_1", "class_11", (50, 2)),
        ("type a", "type b", (50, 2)),
        ("type i", "type ii", (50, 2)),
        ("cat", "car", (50, 2)),
        ("horse", "house", (50, 50)),
        ("left", "right", (50, 2)),
        ("a", "b", (50, 2)),
        ("male", "female", (50, 2)),
    ],
)
def test_names_that_are_meant_to_differ_are_none(one, other, counts):
    assert not are_typos(one, other, counts)


def test_none_of_the_generated_classes_is_a_typo_of_another():
    pairs = itertools.combinations(drawings(), 2)
    assert [pair for pair in pairs if are_typos(*pair, (50, 50))] == []
