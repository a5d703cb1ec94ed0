"""Requested workers: the values of `--workers` and `--on`."""

import re
from dataclasses import dataclass

from spine_ray.space.arithmetic import Device

_PATTERN = re.compile(r"([1-9][0-9]{0,5})(?:x(CPU|GPU))?")
_DEVICES: dict[str, Device] = {"CPU": "cpu", "GPU": "cuda"}


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """A number of workers, with one device each."""

    count: int
    """0 for none beside this process: its trials run here, without Ray."""
    device: Device | None = None
    """None for whatever is there."""

    @classmethod
    def parse(cls, text: str, option: str) -> "WorkerRequest":
        """Read a value such as `8xGPU`, `16xCPU` or `4`; of at least one worker.

        Raises:
            ValueError: If it is something else.
        """
        found = _PATTERN.fullmatch(text)
        if found is None:
            raise ValueError(f"{option} takes a number, or one with a kind, such as 4, 8xGPU or 16xCPU, not {text!r}")
        return cls(int(found[1]), None if found[2] is None else _DEVICES[found[2]])

    @property
    def is_in_process(self) -> bool:
        """True where trials run in this process."""
        return self.count == 0

    def __str__(self) -> str:
        """Return the value as it is typed."""
        kinds = {None: "", "cpu": "xCPU", "cuda": "xGPU"}
        return f"{self.count}{kinds[self.device]}"
