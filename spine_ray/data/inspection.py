"""The one pass over the bytes: names every picture by its content, decodes it and keeps what the audit asks."""

import hashlib
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngImageFile

from spine_ray.data.colours import is_deep, is_see_through
from spine_ray.data.likeness import MIN_SIDE, Print, print_of
from spine_ray.data.pictures import open_picture, room_to_decode
from spine_ray.data.places import FileTooLargeError
from spine_ray.data.problems import NO_BYTES, NOT_OPENED, TOO_MANY_BYTES, problem_of
from spine_ray.data.rows import Source

BATCH_ROWS = 4096
MAX_THREADS = 16
_TASK_ROWS = 16
_ORIENTATION = 0x0112
"""The EXIF tag."""
_LYING = (5, 6, 7, 8)
"""Orientations that swap width and height."""
_DRAFT_SIDE = 64
"""No side of a JPEG is decoded smaller than this, px, unless it is smaller."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What one look at a row's bytes told."""

    digest: str
    """First 16 hex digits of the SHA-256 of the bytes."""
    size: tuple[int, int] = (0, 0)
    """(width, height) after the EXIF rotation, px; zeros if it cannot be decoded."""
    problem: str | None = None
    """Why it cannot be decoded; None if it can."""
    num_bytes: int = 0
    format: str = ""
    """Pillow's name for the kind of file that the content is, such as JPEG."""
    mode: str = ""
    """Pillow's name for the kind of pixels, such as RGB, L or CMYK."""
    has_more_frames: bool = False
    """An animation or a file of several pages; the first is used."""
    orientation: int = 1
    """As EXIF says, 1 (upright) to 8."""
    is_deep: bool = False
    """More than 8 bits a channel."""
    is_see_through: bool = False
    """Some pixels are transparent."""
    quantization: int = 0
    """Sum of a JPEG's first quantization table, which tells its quality; 0 for other kinds."""
    likeness: Print | None = None
    """What near copies are found by; None where the picture is too small or too flat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """A source whose every row was read and decoded once; the looks are in the order of its rows."""

    source: Source
    looks: tuple[Look, ...]

    def __post_init__(self) -> None:
        """Refuse looks that do not belong to the source."""
        if len(self.looks) != len(self.source.rows):
            raise ValueError(f"an inspection of {len(self.source.rows)} rows has {len(self.looks)} looks")

    @property
    def readable(self) -> tuple[int, ...]:
        """Row indices of the pictures that can be decoded, ascending."""
        return tuple(index for index, look in enumerate(self.looks) if look.problem is None)


def inspect_source(source: Source) -> Inspection:
    """Read and decode every row of the source once, several at a time.

    A picture that cannot be decoded, or a single file that cannot be opened, becomes a look with its problem. A storage
    that fails in other ways raises: what a passing fault hides must not shrink the data.

    Raises:
        OSError: If the storage fails.
    """
    with warnings.catch_warnings():
        # Set once around all threads, because the filters belong to the process: what Pillow remarks about a picture
        # that it can decode is not said here.
        warnings.simplefilter("ignore")
        return Inspection(source=source, looks=tuple(_looks(source)))


def _looks(source: Source) -> Iterator[Look]:
    num_threads = min(MAX_THREADS, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(num_threads) as pool:
        # In batches, because the pool would hold a future for all rows at once.
        for start in range(0, len(source.rows), BATCH_ROWS):
            stop = min(start + BATCH_ROWS, len(source.rows))
            # Several rows a task, because handing over a small picture costs as much as a part of its decoding; not
            # so many that a thread ends long before the others.
            count = min(_TASK_ROWS, -(-(stop - start) // (8 * num_threads)))
            tasks = [range(first, min(first + count, stop)) for first in range(start, stop, count)]
            for looks in pool.map(lambda task: [_look(source, index) for index in task], tasks):
                yield from looks


def _look(source: Source, index: int) -> Look:
    try:
        content = source.read(index)
    except (FileNotFoundError, PermissionError):
        return Look(digest=_digest(b""), problem=NOT_OPENED)
    except FileTooLargeError:
        return Look(digest=_digest(b""), problem=TOO_MANY_BYTES)
    digest = _digest(content)
    if not content:
        return Look(digest=digest, problem=NO_BYTES)
    try:
        return _decoded(digest, content)
    except Exception as error:
        return Look(digest=digest, problem=problem_of(error))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _decoded(digest: str, content: bytes) -> Look:
    with open_picture(content) as picture, room_to_decode(picture):
        if isinstance(picture, PngImageFile):
            _check_sums(picture)
        whole, is_packed = picture.size, _is_packed_deep(picture)
        # A JPEG is decoded at a fraction of its size, which takes less time; all of its bytes are read all the same.
        picture.draft(None, (_DRAFT_SIDE, _DRAFT_SIDE))
        picture.load()
        orientation = int(picture.getexif().get(_ORIENTATION) or 1)
        tables = getattr(picture, "quantization", None) or {}
        upright = picture if orientation == 1 else ImageOps.exif_transpose(picture)
        return Look(
            digest=digest,
            size=whole[::-1] if orientation in _LYING else whole,
            num_bytes=len(content),
            format=picture.format or "",
            mode=picture.mode,
            orientation=orientation if orientation in range(1, 9) else 1,
            is_deep=is_deep(picture) or is_packed,
            is_see_through=is_see_through(picture),
            quantization=sum(tables[min(tables)]) if tables else 0,
            likeness=print_of(upright) if min(whole) >= MIN_SIDE else None,
            # Last, because it moves on in the file. How many frames there are would take going through all of them.
            has_more_frames=bool(getattr(picture, "is_animated", False)),
        )


def _check_sums(picture: PngImageFile) -> None:
    """Compare the checksums of a PNG, which decoding does not; unlike `picture.verify()` this leaves it open.

    Raises:
        Exception: What Pillow answers broken bytes with.
    """
    stream, file = picture.png, picture.fp
    if stream is None or file is None:
        raise ValueError("the picture is decoded already")
    file.seek(picture.tile[0].offset - 8)  # the first chunk of pixels, with its length and its name before it
    stream.verify()


def _is_packed_deep(picture: Image.Image) -> bool:
    """Whether the file keeps 16 bits a channel of colours, of which Pillow hands over the upper 8."""
    return any(";16" in str(tile.args) for tile in getattr(picture, "tile", ()))


def short_sides(inspection: Inspection) -> np.ndarray:
    """Return the short side of every readable picture, (readable,) int64, px."""
    return np.array([min(inspection.looks[index].size) for index in inspection.readable], dtype=np.int64)
