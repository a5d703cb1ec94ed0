"""What a worker needs to know. Loads nothing heavy, because it travels through processes that never train."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spine_ray.space.arithmetic import FLOAT32, Arithmetic, Device


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """From where other nodes of a cluster get what the driver's machine has."""

    node: str
    """Ray's name of the driver's node."""
    pictures: Any
    """Reference to what a node decodes for itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkOrder:
    """The same for all trials of a search; small, so that it travels."""

    study: Path
    """The study's folder on the driver's machine."""
    holder: str
    """Names the search's hold on the study: without it nothing is written there."""
    pixels: Path
    """The decoded pictures on the driver's machine."""
    seed: int
    weights: tuple[tuple[str, Path, str], ...]
    """(backbone, safetensors file, its sha256); empty for random initialisation."""
    device: Device
    threads: int
    """CPU threads of one worker."""
    arithmetic: tuple[tuple[str, Arithmetic], ...] = ()
    """(backbone, what it is computed in)."""
    activation_bytes: int = 0
    """Room on disk for the activations of one frozen prefix."""
    uri: str | None = None
    """Where the study lies; None for its folder, which then is on every node."""
    base: Base | None = None
    """None on one machine: all there is, is here."""

    def arithmetic_of(self, backbone: str) -> Arithmetic:
        """Return what a backbone is computed in."""
        return dict(self.arithmetic).get(backbone, FLOAT32)

    def weights_file(self, backbone: str) -> Path | None:
        """Return the backbone's initial weights, None for random."""
        return next((file for name, file, _ in self.weights if name == backbone), None)

    def frozen_hash(self, backbone: str) -> str:
        """Return the sha256 of the backbone's initial weights, or `random`."""
        return next((digest for name, _, digest in self.weights if name == backbone), "random")
