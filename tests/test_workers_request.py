import pytest

from spine_ray.workers.request import WorkerRequest


@pytest.mark.parametrize(
    ("words", "shape"),
    [
        ("8xGPU", WorkerRequest(8, "cuda")),
        ("16xCPU", WorkerRequest(16, "cpu")),
        ("4", WorkerRequest(4)),
        ("1xGPU", WorkerRequest(1, "cuda")),
    ],
)
def test_a_number_with_a_kind_or_without(words: str, shape: WorkerRequest) -> None:
    assert WorkerRequest.parse(words, "--on") == shape
    assert str(shape) == words


@pytest.mark.parametrize("words", ["8GPU", "0xGPU", "0", "GPU", "8xTPU", "-1xCPU", "2.5", "", "1x", "4xgpu"])
def test_anything_else_is_refused_and_told_what_is_allowed(words: str) -> None:
    with pytest.raises(ValueError, match=r"--workers takes .*such as 4, 8xGPU or 16xCPU"):
        WorkerRequest.parse(words, "--workers")
