"""How an arithmetic is carried out: autocast and memory format, and which there are on a device."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from spine_ray.space.arithmetic import Arithmetic, Precision

_CPU_FACTS = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of x86 and ARM processors."""
_HALVES: dict[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def candidates(device: torch.device) -> tuple[Arithmetic, ...]:
    """Return what is worth measuring on a device, the safest first."""
    if device.type == "cuda":
        return gpu_candidates(torch.cuda.get_device_capability(device))
    whole = (Arithmetic("float32", "channels_last"), Arithmetic("float32", "contiguous"))
    half = (Arithmetic("bfloat16", "channels_last"), Arithmetic("bfloat16", "contiguous"))
    return (*whole, *half) if may_have_bfloat16(_CPU_FACTS) else whole


def gpu_candidates(capability: tuple[int, int]) -> tuple[Arithmetic, ...]:
    """Return what is worth measuring on a GPU, the safest first.

    Tensor cores multiply float16 from Volta (7.0) on, TF32 and bfloat16 from Ampere (8.0) on; where there is bfloat16,
    float16 is no faster, and its range wants a scaler.

    Args:
        capability: The GPU's compute capability.
    """
    precisions: tuple[Precision, ...] = ("float32",)
    if capability >= (8, 0):
        precisions = ("float32", "tf32", "bfloat16")
    elif capability >= (7, 0):
        precisions = ("float32", "float16")
    return tuple(Arithmetic(precision, order) for precision in precisions for order in ("channels_last", "contiguous"))


def may_have_bfloat16(cpu_facts: Path) -> bool:
    """Say whether a processor may compute in bfloat16; without hardware for it, trying takes up to 15 times as long.

    Args:
        cpu_facts: Where Linux lists what the processor can do; where there is no such file, it may.
    """
    if not cpu_facts.exists():
        return True
    words = set(cpu_facts.read_text().split())
    return not words.isdisjoint(_BFLOAT16_FLAGS) or words.isdisjoint(("flags", "Features"))


@contextlib.contextmanager
def autocast(arithmetic: Arithmetic, device: torch.device) -> Iterator[None]:
    """Compute the block's forward passes in an arithmetic."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(float32_products(arithmetic, device))
        if arithmetic.precision in _HALVES:
            stack.enter_context(torch.autocast(device.type, _HALVES[arithmetic.precision]))
        yield


@contextlib.contextmanager
def float32_products(arithmetic: Arithmetic, device: torch.device) -> Iterator[None]:
    """Multiply what is float32 in the block, backward passes too, in TF32 or, where not that was chosen, exactly.

    By themselves GPUs convolve in TF32.
    """
    if device.type != "cuda":
        yield
        return
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "tf32" if arithmetic.precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def make_scaler(arithmetic: Arithmetic, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps small gradients within float16's range; it does nothing in any other precision."""
    return torch.amp.GradScaler(device.type, enabled=arithmetic.precision == "float16")


def send(batch: Tensor, device: torch.device) -> Tensor:
    """Copy a batch to the device; to a GPU without waiting for what it is doing."""
    return batch.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else batch


def place_model(model: nn.Module, arithmetic: Arithmetic, device: torch.device) -> nn.Module:
    """Move a model to the device, its kernels in the memory format."""
    return model.to(device).to(memory_format=_FORMATS[arithmetic.memory_format])


def place_batch(batch: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Return a batch of pictures or of feature maps in the memory format; anything else as it is."""
    if batch.ndim != 4:
        return batch.contiguous()
    return batch.contiguous(memory_format=_FORMATS[arithmetic.memory_format])
