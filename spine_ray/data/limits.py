"""Where the audit draws its lines: every threshold in one place. A space's `audit:` section changes them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

HASH_BITS = 256
"""Length of the perceptual hash."""
_SHARES = ("unreadable", "near_shift", "crowd", "upsampled", "shortcut")
_WHOLE = ("near_duplicate", "rows_per_fold")


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditLimits:
    """The thresholds of the audit."""

    unreadable: float = 0.05
    """Share of pictures that cannot be read above which it is an error, 0 to 1."""
    near_duplicate: int = 60
    """Bits of the perceptual hash, of 256, in which near copies may differ; 0 looks for exact copies only."""
    near_shift: float = 0.022
    """Near copies differ no more than a shift by this share of the side would make them, 0 to 1."""
    crowd: float = 0.05
    """Share of the rows above which a group of near copies is taken for a mere chain of likeness, 0 to 1."""
    rows_per_fold: int = 5
    """A class with fewer dev rows in a fold, on average, is a warning; 0 or more."""
    imbalance: float = 10.0
    """The largest class over the smallest, in rows, from which on it is a warning; at least 1."""
    upsampled: float = 0.5
    """Share of pictures smaller than a resolution above which it is a warning, 0 to 1."""
    shortcut: float = 0.2
    """True less false positive rate by which a file's property must surely tell a class, 0 to 1."""

    def __post_init__(self) -> None:
        """Refuse a threshold outside its range."""
        for name in _SHARES:
            value = _number(name, getattr(self, name))
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"audit.{name} must lie in 0 to 1, not {value:g}")
        for name in _WHOLE:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"audit.{name} must be a whole number of at least 0, not {value!r}")
        if self.near_duplicate >= HASH_BITS // 2:
            raise ValueError(
                f"audit.near_duplicate must be below {HASH_BITS // 2} bits, where unrelated pictures lie, "
                f"not {self.near_duplicate}"
            )
        if not _number("imbalance", self.imbalance) >= 1.0:
            raise ValueError(f"audit.imbalance must be at least 1, not {self.imbalance:g}")

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "AuditLimits":
        """Return the defaults with what a space says on top.

        Raises:
            ValueError: If there is no such threshold, or it is outside its range.
        """
        allowed = tuple(field.name for field in fields(cls))
        strange = next((name for name in given if name not in allowed), None)
        if strange is not None:
            raise ValueError(f"audit has no key {strange!r}; allowed: {', '.join(allowed)}")
        return cls(**given)  # type: ignore[arg-type]  # judged above and by the class itself


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"audit.{name} must be a number, not {value!r}")
    return float(value)
