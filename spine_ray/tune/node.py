"""What a worker needs on its own node: the study's files, pictures decoded there, weights fetched there, once a node.

On one machine all of it is there already. On a cluster pictures are read from where the data lies, and files that the
driver's machine has travel through Ray.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spine_ray.core.cache import Hold, build_entry, cache_folder, discard, entry_folder
from spine_ray.core.pixels import PixelFile, build_pixels, open_pixels
from spine_ray.data.rows import Source
from spine_ray.study.depot import Depot
from spine_ray.study.paths import StudyPaths
from spine_ray.tune.order import Base, WorkOrder

_PIECE = 64 * 2**20
"""Bytes of a file that travel at a time."""
_WEIGHTS = "model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """What a node decodes: the same on every node, named by its content."""

    source: Source
    places: npt.NDArray[np.int64]
    """(images,) rows of the source."""
    content: tuple[str, ...]
    """One name a row that changes when its picture does."""
    side: int
    """Stored short side, px."""

    def decode(self, progress: Callable[[int, int], None] | None = None) -> PixelFile:
        """Decode them on this node, unless that was done.

        Raises:
            OSError: If a picture cannot be read from here.
            NoRoomError: If they do not fit on the disk.
        """
        return build_pixels(
            lambda row: self.source.read(int(self.places[row])), self.content, self.side, progress=progress
        )


def base_here(pictures: Pictures) -> Base:
    """Make this process's node the one from which the others get what they lack."""
    return Base(node=ray.get_runtime_context().get_node_id(), pictures=ray.put(pictures))


def depot_of(order: WorkOrder) -> Depot:
    """Return the way from here to the study's files."""
    if order.uri is None:
        return Depot(StudyPaths(order.study), order.holder, None)
    here = cache_folder() / "outposts" / hashlib.sha256(order.uri.encode()).hexdigest()[:24]
    return Depot(StudyPaths(here), order.holder, order.uri)


def pixels_on_this_node(pixels: Path, base: Base | None) -> PixelFile:
    """Open the decoded pictures here; where this node has none, decode them.

    Raises:
        ValueError: If the file is not whole and nothing says how to make it.
        OSError: If a picture cannot be read from here.
    """
    if base is None:
        return open_pixels(pixels)
    here = entry_folder("pixels", pixels.name)
    if here.exists():
        try:
            return open_pixels(here)
        except ValueError:  # made anew below
            discard(here)
    pictures: Pictures = ray.get(base.pictures)
    return pictures.decode()


def weights_on_this_node(file: Path, digest: str, base: Base | None) -> Path:
    """Return where a file of weights lies here; where it does not, fetch it from the driver's node.

    Raises:
        ValueError: If what arrived is not that file.
    """
    if base is None or base.node == ray.get_runtime_context().get_node_id():
        return file
    return _fetched(file, digest, base.node)[0]


@functools.cache
def _fetched(file: Path, digest: str, driver: str) -> tuple[Path, Hold]:
    """Fetch a file into an entry of the cache, which this process holds from then on."""
    folder = entry_folder("weights", digest)

    def write(building: Path) -> None:
        found = hashlib.sha256()
        with (building / _WEIGHTS).open("wb") as copy:
            for piece in _pieces(file, driver):
                copy.write(piece)
                found.update(piece)
        if found.hexdigest() != digest:
            raise ValueError(f"{file} of the driver's machine did not arrive whole: its sha256 is another")

    held = build_entry(folder, write)
    return folder / _WEIGHTS, held


def sizes_there(files: Sequence[Path], driver: str) -> list[int]:
    """Return the sizes of files on the driver's node, bytes."""
    there: Any = NodeAffinitySchedulingStrategy(driver, soft=False)
    look = ray.remote(_sizes).options(num_cpus=0, scheduling_strategy=there)
    found: list[int] = ray.get(look.remote(list(files)))
    return found


def _sizes(files: Sequence[Path]) -> list[int]:
    return [file.stat().st_size for file in files]


def _pieces(file: Path, driver: str) -> Iterator[bytes]:
    there: Any = NodeAffinitySchedulingStrategy(driver, soft=False)
    read = ray.remote(_read).options(num_cpus=0, scheduling_strategy=there)
    start = 0
    while piece := ray.get(read.remote(file, start)):
        yield piece
        start += len(piece)


def _read(file: Path, start: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(_PIECE)
