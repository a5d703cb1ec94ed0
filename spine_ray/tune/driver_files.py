"""Access of other nodes to the driver's files. Imports nothing heavy: it travels through thin processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spine_ray.core.pixels import PixelFile


@dataclass(frozen=True, kw_only=True, slots=True)
class DriverFiles:
    """The node from which the others get what they lack: a `NodeFiles`."""

    driver: str
    """Ray's name of the driver's node."""
    pictures: Any
    """Reference to the `DecodeRequest` that every node carries out."""

    def pixels(self, folder: Path) -> "PixelFile":
        """Open the decoded pictures on this node, decoding them if need be."""
        from spine_ray.tune.node import pixels_on_this_node  # torch: only where work is done

        return pixels_on_this_node(folder, self.pictures)

    def weights(self, file: Path, digest: str) -> Path:
        """Return where a file of weights lies on this node, fetching it if need be."""
        from spine_ray.tune.node import weights_on_this_node

        return weights_on_this_node(file, digest, self.driver)
