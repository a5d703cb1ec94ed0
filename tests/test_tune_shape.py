import pytest

from spine_ray.tune.shape import Shape


@pytest.mark.parametrize(
    ("words", "shape"),
    [("8xGPU", Shape(8, "cuda")), ("16xCPU", Shape(16, "cpu")), ("4", Shape(4)), ("1xGPU", Shape(1, "cuda"))],
)
def test_a_number_with_a_kind_or_without(words: str, shape: Shape) -> None:
    assert Shape.parse(words, "--on") == shape
    assert str(shape) == words


@pytest.mark.parametrize("words", ["8GPU", "0xGPU", "0", "GPU", "8xTPU", "-1xCPU", "2.5", "", "1x", "4xgpu"])
def test_anything_else_is_refused_and_told_what_is_allowed(words: str) -> None:
    with pytest.raises(ValueError, match=r"--workers takes .*such as 4, 8xGPU or 16xCPU"):
        Shape.parse(words, "--workers")
