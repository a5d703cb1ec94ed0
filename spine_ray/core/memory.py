"""Memory: how much was needed at most, and whether an error says that there was too little."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from spine_ray.space.arithmetic import Device

_Result = TypeVar("_Result")
_STATUS = Path("/proc/self/status")
_CPU_WORDS = ("can't allocate memory", "could not create a primitive", "could not execute a primitive")
"""What torch's allocator and oneDNN say when a CPU's memory is too small."""
_CLEAR = Path("/proc/self/clear_refs")


def forget_peak(device: torch.device) -> None:
    """Begin to watch for a new peak, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # Linux: sets the high-water mark to what is resident now


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak since `forget_peak` of the device if it is a GPU, else of this process, MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if _STATUS.exists():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines() if ":" in line)
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that memory could not be had."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _CPU_WORDS)
    )


@dataclass(slots=True)
class Portion:
    """How many rows go through the model at once: halved for good when memory runs out."""

    rows: int
    least: int = 1

    def run(self, work: Callable[[int], _Result]) -> _Result:
        """Call `work` with the rows at once, again with half of them as long as memory runs out.

        Raises:
            RuntimeError: What torch raised, if even the least is too much.
        """
        while True:
            try:
                return work(self.rows)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.rows <= self.least:
                    raise
            # Out of the handler, because the error's traceback holds the tensors that did not fit.
            self.rows = max(self.least, (self.rows + 1) // 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def device_here() -> Device:
    """Return where this machine trains."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_memory_mb() -> float:
    """Return the memory of this process's GPU, MB."""
    _, total = torch.cuda.mem_get_info()
    return total / 1e6
