"""Whether augmentation leaves the classes where they are: evidence that a linear probe gives before anything trains."""

from dataclasses import asdict, dataclass
from typing import Any

MIN_KEPT = 0.5
"""Share of what a probe knows on clean pictures that it must keep on training views.

Harmless crops and flips cost a probe on frozen features up to a third (docs/log.md); crops that miss the object, or
flips where left and right are the classes, leave next to nothing. Half lies well between.
"""
FULLY_KEPT = 0.9
"""From this share on a symmetry costs the labels nothing that a fine-tune could not win back."""
MOSTLY_KEPT = 0.75
"""Below this share a reader should look at the contact sheet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewCheck:
    """A linear probe on frozen features: on clean pictures, and on training views of the same rows."""

    clean_accuracy: float
    augmented_accuracy: float
    prior_accuracy: float
    """Of always saying the largest class."""
    kept: float | None
    """(augmented - prior) / (clean - prior); None where the clean probe surely knows nothing that could be lost."""
    kept_low: float | None
    kept_high: float | None
    rows: int

    @property
    def is_destroyed(self) -> bool:
        """Whether the classes are surely gone from the training views."""
        return self.kept_high is not None and self.kept_high < MIN_KEPT

    @property
    def sentence(self) -> str:
        """What was found, in one sentence."""
        clean, augmented = f"{self.clean_accuracy:.1%}", f"{self.augmented_accuracy:.1%}"
        if self.kept is None or self.kept_low is None or self.kept_high is None:
            return f"a linear probe on frozen features knows too little ({clean}) to say what augmentation does"
        told = (
            f"a linear probe on frozen features is right for {clean} of clean pictures and {augmented} of training "
            f"views: {self.kept:.0%} of what it knows is kept (95 % interval {self.kept_low:.0%} to "
            f"{self.kept_high:.0%} over rows)"
        )
        return (
            f"augmentation destroys the classes: {told}" if self.is_destroyed else f"augmentation is harmless: {told}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain values for JSON."""
        return asdict(self)
