"""Every picture decoded once into one memory-mapped file, shared by all trials through the page cache.

A pixel file is an entry of the cache with `pixels.bin` (uint8, height x width x 3, picture after picture) and
`index.npz`, which holds the checksum of each picture.
"""

import hashlib
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from spine_ray.core.cache import Hold, build_entry, cache_budget, check_room, discard, entry_folder, evict
from spine_ray.data.colours import to_rgb
from spine_ray.data.pictures import open_picture, room_to_decode

_log = logging.getLogger(__name__)

CROP_ROOM = 1.3
"""Stored short side in units of the largest resolution: a crop is scaled down, never up from a shrunk picture."""
_FORMAT = "3"
_BATCH = 256
"""Pictures that are in memory at once while they are decoded."""


@dataclass(frozen=True, slots=True)
class PixelFile:
    """The decoded pictures of a study at one stored size."""

    folder: Path
    offsets: npt.NDArray[np.int64]
    """(images,) first byte of each picture."""
    heights: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    """All bytes, memory-mapped."""
    held: Hold | None = None
    """Keeps the file from eviction for as long as this lives."""

    def picture(self, row: int) -> npt.NDArray[np.uint8]:
        """Return one picture as (height, width, 3) without copying."""
        height, width = int(self.heights[row]), int(self.widths[row])
        start = int(self.offsets[row])
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def short_side(resolution: int) -> int:
    """Return the stored short side that serves a largest resolution, px."""
    return math.ceil(resolution * CROP_ROOM)


def open_pixels(folder: Path) -> PixelFile:
    """Open a finished pixel file.

    Raises:
        ValueError: If the file is not whole.
    """
    path = folder / "pixels.bin"
    try:
        held = Hold(folder)
        # Opened here, because numpy leaves a file open that it cannot read.
        with (folder / "index.npz").open("rb") as file, np.load(file) as index:
            offsets, heights, widths = index["offsets"], index["heights"], index["widths"]
        found = path.stat().st_size
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{folder} is no whole pixel file: delete the folder to rebuild it") from error
    size = int((heights * widths * 3).sum())
    if found != size:
        raise ValueError(f"{path} has {found} bytes, not {size}: delete the folder to rebuild it")
    pixels = np.memmap(path, np.uint8, mode="r", shape=(size,))
    return PixelFile(folder, offsets, heights, widths, pixels, held)


def damaged_pictures(file: PixelFile) -> list[int]:
    """Return the rows whose pictures are not what their checksums say; reads the whole file once, on all cores."""
    with (file.folder / "index.npz").open("rb") as opened, np.load(opened) as index:
        checksums: list[int] = index["checksums"].tolist()

    def is_damaged(row: int) -> bool:
        return zlib.crc32(file.picture(row).data) != checksums[row]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [row for row, damaged in enumerate(pool.map(is_damaged, range(len(file.offsets)))) if damaged]


def build_pixels(
    read: Callable[[int], bytes],
    content: Sequence[str],
    side: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> PixelFile:
    """Decode all pictures at a stored short side, unless that file exists and is whole, and open it.

    Args:
        read: Returns the encoded bytes of a row; called from several threads.
        content: One name a row that changes when its picture does: the key of the cache.
        side: Stored short side, px.
        progress: Called with rows done and rows in all, after every row.

    Raises:
        NoRoomError: If the pictures do not fit on the disk of the cache; nothing is left there.
        ValueError: If `$SPINE_RAY_CACHE_GB` is no positive number.
    """
    key = hashlib.sha256("\n".join([_FORMAT, str(side), *content]).encode()).hexdigest()[:24]
    folder = entry_folder("pixels", key)
    if not folder.exists():
        evict(cache_budget())

    def write(building: Path) -> None:
        _write(building, (lambda row: decode(read(row), side)), len(content), progress)

    if folder.exists():
        try:
            found = open_pixels(folder)
            if damaged := damaged_pictures(found):
                raise ValueError(f"{len(damaged)} of {len(content)} pictures in {folder} are not what was written")
            return found
        except ValueError as error:
            _log.warning("%s; they are decoded anew", error)
            discard(folder)
    held = build_entry(folder, write)
    return replace(open_pixels(folder), held=held)


def decode(data: bytes, side: int) -> npt.NDArray[np.uint8]:
    """Decode one picture to RGB with its short side scaled to `side` px, EXIF rotation applied.

    Of an animation it is the first frame. How colours become RGB is said in `spine_ray.data.colours`.

    Returns:
        (height, width, 3).
    """
    with open_picture(data) as opened, room_to_decode(opened):
        opened.draft("RGB", (side, side))
        picture = to_rgb(ImageOps.exif_transpose(opened))
    scale = side / min(picture.size)
    size = (max(side, round(picture.width * scale)), max(side, round(picture.height * scale)))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def _write(
    folder: Path,
    load: Callable[[int], npt.NDArray[np.uint8]],
    rows: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    heights, widths, checksums = np.zeros(rows, np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.uint32)
    with (folder / "pixels.bin").open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, rows, _BATCH):
            stop = min(rows, start + _BATCH)
            batch: Iterable[npt.NDArray[np.uint8]] = pool.map(load, range(start, stop))
            for row, picture in enumerate(batch, start):
                heights[row], widths[row] = picture.shape[:2]
                content = picture.tobytes()
                file.write(content)
                checksums[row] = zlib.crc32(content)
                if progress is not None:
                    progress(row + 1, rows)
            if start == 0 and stop < rows:  # the others are taken to be as large as these
                check_room(folder.parent, file.tell() * (rows - stop) // stop)
    sizes = heights * widths * 3
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    np.savez(folder / "index.npz", offsets=offsets, heights=heights, widths=widths, checksums=checksums)
