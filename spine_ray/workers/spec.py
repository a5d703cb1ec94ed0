"""The facts that all workers of a search share. Imports nothing heavy: it travels through thin processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from spine_ray.space.arithmetic import FLOAT32, Arithmetic, Device
from spine_ray.space.config import TrialConfig

if TYPE_CHECKING:
    from spine_ray.core.pixels import PixelFile


class NodeFiles(Protocol):
    """Access of a cluster's node to files of the driver's machine."""

    def __hash__(self) -> int:
        """Return a hash: what was opened with it is kept."""

    def pixels(self, folder: Path) -> "PixelFile":
        """Open the decoded pictures that lie in a folder of the driver's machine; decode them here where they are not.

        Raises:
            OSError: If a picture cannot be read from here.
        """

    def weights(self, file: Path, digest: str) -> Path:
        """Return where a file of weights of the driver's machine lies here, fetched if need be.

        Raises:
            ValueError: If what arrived is not that file.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSpec:
    """The same for all trials of a search; small, so that it travels."""

    study: Path
    """The study's folder on the driver's machine."""
    holder: str
    """Names the search's lock on the study: without it nothing is written there."""
    pixels: Path
    """The decoded pictures on the driver's machine."""
    seed: int
    weights: tuple[tuple[str, Path, str], ...]
    """(backbone, safetensors file, its sha256); empty for random initialisation."""
    device: Device
    threads: int
    """CPU threads of one worker."""
    arithmetic: tuple[tuple[str, Arithmetic], ...] = ()
    """(backbone, what its fine-tunes are computed in)."""
    activation_bytes: int = 0
    """Room on disk for the activations of one frozen prefix."""
    uri: str | None = None
    """Where the study lies; None for its folder, which then is on every node."""
    files: NodeFiles | None = None
    """None on one machine, which has all of them."""

    def arithmetic_of(self, config: TrialConfig) -> Arithmetic:
        """Return what a configuration is computed in: a probe in float32, before anything is measured."""
        return FLOAT32 if config.is_probe else dict(self.arithmetic).get(config.backbone, FLOAT32)

    def weights_file(self, backbone: str) -> Path | None:
        """Return the backbone's initial weights, None for random."""
        return next((file for name, file, _ in self.weights if name == backbone), None)

    def frozen_hash(self, backbone: str) -> str:
        """Return the sha256 of the backbone's initial weights, or `random`."""
        return next((digest for name, _, digest in self.weights if name == backbone), "random")
