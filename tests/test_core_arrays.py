import numpy as np
import pytest
import torch

from spine_ray.core.arrays import as_arrays, part_of, put_back


def test_tensors_come_back_in_their_own_layout() -> None:
    tensor = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    other = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    put_back(as_arrays({"a": tensor}), {"a": other})
    assert torch.equal(tensor, other)
    assert other.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("arrays", [{}, {"a": np.zeros(3, np.float32)}, {"a": np.zeros(2), "b": np.zeros(2)}])
def test_other_names_or_shapes_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError):
        put_back(arrays, {"a": torch.zeros(2)})


def test_a_part_is_named_by_the_rest() -> None:
    arrays = {"0.x": np.zeros(1), "1.x": np.ones(1), "logits": np.zeros(2)}
    assert list(part_of(arrays, "1.")) == ["x"]
