"""How an arithmetic is carried out: autocast and memory format, and which there are on a device."""

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn

from spine_ray.space.arithmetic import Arithmetic

_CPU_FACTS = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
"""Of x86 and ARM processors."""
_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def candidates(device: torch.device) -> tuple[Arithmetic, ...]:
    """Return what is worth measuring on a device, the safest first."""
    if device.type == "cuda":
        return (Arithmetic("bfloat16", "channels_last"), Arithmetic("bfloat16", "contiguous"))
    whole = (Arithmetic("float32", "channels_last"), Arithmetic("float32", "contiguous"))
    half = (Arithmetic("bfloat16", "channels_last"), Arithmetic("bfloat16", "contiguous"))
    return (*whole, *half) if may_have_bfloat16(_CPU_FACTS) else whole


def may_have_bfloat16(cpu_facts: Path) -> bool:
    """Say whether a processor may compute in bfloat16; without hardware for it, trying takes up to 15 times as long.

    Args:
        cpu_facts: Where Linux lists what the processor can do; where there is no such file, it may.
    """
    if not cpu_facts.exists():
        return True
    words = set(cpu_facts.read_text().split())
    return not words.isdisjoint(_BFLOAT16_FLAGS) or words.isdisjoint(("flags", "Features"))


def autocast(arithmetic: Arithmetic, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Return the context in which a model is called."""
    if arithmetic.precision == "bfloat16":
        return torch.autocast(device.type, torch.bfloat16)
    return contextlib.nullcontext()


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
