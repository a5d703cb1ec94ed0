import pytest
import torch
from torch import nn

from spine_ray.core.arithmetic import autocast, candidates, gpu_candidates, may_have_bfloat16, place_batch, place_model
from spine_ray.space.arithmetic import ALL, FLOAT32, Arithmetic

CPU = torch.device("cpu")
PRECISIONS = {
    "float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16
}  # fmt: skip
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def lies_in(tensor, memory_format):
    """Whether a tensor's strides are those of a memory format."""
    return tensor.stride() == torch.empty(tensor.shape).contiguous(memory_format=FORMATS[memory_format]).stride()


@pytest.mark.parametrize(
    ("flag", "precisions"), [("avx512_bf16", ["float32"] * 2 + ["bfloat16"] * 2), ("avx512f", ["float32"] * 2)]
)
def test_on_a_cpu_everything_it_has_hardware_for_is_measured_and_what_is_taken_unmeasured_comes_first(
    flag, precisions, tmp_path, monkeypatch
):
    facts = tmp_path / "cpuinfo"
    facts.write_text(f"processor : 0\nflags : fpu sse {flag}\n")
    monkeypatch.setattr("spine_ray.core.arithmetic._CPU_FACTS", facts)
    assert candidates(CPU)[0] == FLOAT32
    assert [each.precision for each in candidates(CPU)] == precisions
    assert len(set(candidates(CPU))) == len(precisions)


@pytest.mark.parametrize(
    ("told", "expected"),
    [("Features : fp asimd bf16", True), ("flags : amx_bf16", True), ("flags : avx2", False), ("uptime : 3", True)],
)
def test_a_processor_that_does_not_say_may_have_bfloat16(told, expected, tmp_path):
    (tmp_path / "facts").write_text(told)
    assert may_have_bfloat16(tmp_path / "facts") is expected
    assert may_have_bfloat16(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("capability", "precisions"),
    [
        ((6, 1), ["float32"]),
        ((7, 0), ["float32", "float16"]),
        ((7, 5), ["float32", "float16"]),
        ((8, 0), ["float32", "tf32", "bfloat16"]),
        ((9, 0), ["float32", "tf32", "bfloat16"]),
    ],
)
def test_on_a_gpu_everything_it_has_hardware_for_is_measured_the_safest_first(capability, precisions):
    found = gpu_candidates(capability)
    assert [each.precision for each in found] == [each for each in precisions for _ in range(2)]
    assert len(set(found)) == len(found)
    assert found[0] == FLOAT32


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_products_have_the_precision_and_parameters_and_gradients_stay_float32(arithmetic):
    layer = nn.Linear(4, 3)
    with autocast(arithmetic, CPU):
        product = layer(noise(2, 4))
    assert product.dtype == PRECISIONS[arithmetic.precision]
    torch.autograd.backward(product.float().sum())
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_nothing_is_left_of_the_context():
    with autocast(Arithmetic("bfloat16", "contiguous"), CPU):
        pass
    assert nn.Linear(4, 3)(noise(2, 4)).dtype == torch.float32


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_a_placed_model_has_its_kernels_in_the_format_and_its_numbers_unchanged(arithmetic):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    placed = place_model(model, arithmetic, CPU)
    assert placed is model
    assert lies_in(model[0].weight, arithmetic.memory_format)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_a_placed_batch_of_maps_has_the_format_and_its_numbers_unchanged(arithmetic):
    batch = noise(2, 5, 4, 3)
    for given in (batch, batch.contiguous(memory_format=torch.channels_last), batch.flip(0).transpose(2, 3)):
        placed = place_batch(given, arithmetic)
        assert torch.equal(placed, given)
        assert lies_in(placed, arithmetic.memory_format)


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4)])
def test_a_batch_of_anything_else_is_contiguous(shape, arithmetic):
    given = noise(*shape).transpose(0, -1)
    placed = place_batch(given, arithmetic)
    assert torch.equal(placed, given)
    assert placed.is_contiguous()
