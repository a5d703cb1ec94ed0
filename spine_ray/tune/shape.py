"""What a search may run on, in the words of `--workers` and `--on`."""

import re
from dataclasses import dataclass

from spine_ray.space.arithmetic import Device

_SHAPE = re.compile(r"([1-9][0-9]{0,5})(?:x(CPU|GPU))?")
_DEVICES: dict[str, Device] = {"CPU": "cpu", "GPU": "cuda"}


@dataclass(frozen=True, slots=True)
class Shape:
    """So many workers, with one device each."""

    count: int
    device: Device | None = None
    """None for whatever there is."""

    @classmethod
    def parse(cls, text: str, option: str) -> "Shape":
        """Read words such as `8xGPU`, `16xCPU` or `4`.

        Raises:
            ValueError: If they say something else.
        """
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ValueError(f"{option} takes a number, or one with a kind, such as 4, 8xGPU or 16xCPU, not {text!r}")
        return cls(int(found[1]), None if found[2] is None else _DEVICES[found[2]])

    def __str__(self) -> str:
        """Return the words."""
        kinds = {None: "", "cpu": "xCPU", "cuda": "xGPU"}
        return f"{self.count}{kinds[self.device]}"
