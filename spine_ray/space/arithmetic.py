"""The arithmetic a backbone is computed in, as plain words: precision and memory format."""

from dataclasses import dataclass
from typing import Literal, get_args

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
MemoryFormat = Literal["contiguous", "channels_last"]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Measured and chosen once a study and backbone, then fixed: it changes the last digits."""

    precision: Precision
    """Of matrix products and convolutions; parameters and sums stay in float32. TF32 is of GPUs alone."""
    memory_format: MemoryFormat

    def __str__(self) -> str:
        """Return it as `parse_arithmetic` reads it."""
        return f"{self.precision} {self.memory_format}"


ALL = tuple(Arithmetic(precision, order) for precision in get_args(Precision) for order in get_args(MemoryFormat))
FLOAT32 = Arithmetic("float32", "channels_last")
"""What is taken where nothing was measured."""


def parse_arithmetic(text: str) -> Arithmetic:
    """Read what `str` wrote.

    Raises:
        ValueError: If it names no arithmetic.
    """
    for arithmetic in ALL:
        if text == str(arithmetic):
            return arithmetic
    raise ValueError(f"no arithmetic: {text!r} (there are: {', '.join(map(str, ALL))})")
