"""Files that a worker needs on its node of a cluster: pictures decoded there, weights fetched there, once a node.

Pictures are read from where the data lies; files that the driver's machine has travel through Ray.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from spine_ray.core.cache import Hold, build_entry, discard, entry_folder
from spine_ray.core.pixels import PixelFile, open_pixels
from spine_ray.tune.driver_files import DriverFiles
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.worker_data import DecodeRequest

_PIECE = 64 * 2**20
"""Bytes of a file that travel at a time."""
_WEIGHTS = "model.safetensors"


def serve_files(spec: WorkerSpec, pictures: DecodeRequest) -> WorkerSpec:
    """Return the spec with this process's node as the one from which the others get what they lack."""
    driver = ray.get_runtime_context().get_node_id()
    return replace(spec, files=DriverFiles(driver=driver, pictures=ray.put(pictures)))


def pixels_on_this_node(folder: Path, pictures: Any) -> PixelFile:
    """Open the decoded pictures here; where this node has none, decode them.

    Args:
        folder: Where they lie on the driver's machine.
        pictures: Reference to the `DecodeRequest`.

    Raises:
        OSError: If a picture cannot be read from here.
    """
    here = entry_folder("pixels", folder.name)
    if here.exists():
        try:
            return open_pixels(here)
        except ValueError:  # made anew below
            discard(here)
    request: DecodeRequest = ray.get(pictures)
    return request.decode()


def weights_on_this_node(file: Path, digest: str, driver: str) -> Path:
    """Return where a file of weights lies here; where it does not, fetch it from the driver's node.

    Raises:
        ValueError: If what arrived is not that file.
    """
    if driver == ray.get_runtime_context().get_node_id():
        return file
    return _fetched(file, digest, driver)[0]


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
