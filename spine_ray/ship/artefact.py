"""An artefact: the members of an ensemble and how they are pooled, wherever their tensors come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from spine_ray.ensemble.cascade import Cascade
from spine_ray.ensemble.mix import Mix
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig

Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One model of the ensemble."""

    config: TrialConfig
    arithmetic: Arithmetic
    """What it was measured in; kept wherever it runs, because it changes the last digits."""
    family: str
    weights_source: str
    """Where its initial weights come from: `hub`, `random`, `stand-ins` (those that come along) or a folder."""
    licence: str
    """Of its pretrained weights, as timm records it."""

    @property
    def trial_id(self) -> str:
        """The trial that it is."""
        return self.config.trial_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Artefact:
    """Everything but tensors that decides what is predicted."""

    classes: tuple[str, ...]
    seed: int
    """The study's: a frozen prefix of random weights is drawn from it."""
    stored_side: int
    """Short side at which pictures are decoded, px: that of the pictures on which the test split was scored."""
    members: tuple[Member, ...]
    mix: Mix
    """One weight and one temperature a member, in their order."""
    cascade: Cascade | None = None
    """Which members first; None where it was not planned."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Plain values for people: rows, numbers and what they describe, versions."""

    def __post_init__(self) -> None:
        """Refuse what cannot predict."""
        if len(self.members) != len(self.mix.weights):
            raise ValueError(f"{len(self.members)} members and {len(self.mix.weights)} weights do not go together")
        if len(self.classes) < 2 or self.stored_side < 1:
            raise ValueError("an artefact needs at least two classes and a stored side of at least 1 px")


class Tensors(Protocol):
    """Where the members' tensors come from."""

    def initial(self, member: Member) -> Path | None:
        """Return the file of a member's initial weights; None where `fitted` has all of its tensors or random ones."""
        ...

    def fitted(self, member: Member) -> Arrays:
        """Return a member's tensors by name: at least all that training changed."""
        ...
