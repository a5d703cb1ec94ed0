"""Pooled features of pictures, kept on disk in chunks of some seconds of work: whoever dies loses one chunk.

They are computed in a random order, so that the first rows are a sample of them all.
"""

import functools
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from spine_ray.core.cache import (
    NoRoomError,
    Summed,
    build_entry,
    build_file,
    cache_budget,
    cache_folder,
    check_room,
    discard,
    entry_folder,
    evict,
    is_whole,
)
from spine_ray.core.network import CHUNK, Network
from spine_ray.core.task import Rows, Task
from spine_ray.core.views import render, scoring_boxes

CHUNK_SECONDS = 20.0
"""Work that a file of features may hold; the first has one batch, which says how long others take."""
_FORMAT = "2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What a backbone makes of the scoring view of some rows."""

    values: npt.NDArray[np.float32]
    """(rows, features)."""
    images_s: float
    """Images a second through the backbone, without cutting them out; measured on at least one batch."""
    note: str
    """Why nothing was kept, or empty."""


def scoring_features(network: Network, task: Task, rows: Rows) -> Features:
    """Return the features of the scoring view of some rows; what is on disk is read, the rest computed and kept.

    The values are in the order of the rows.

    Args:
        network: The backbone with its initial weights.
        task: The pictures.
        rows: Which of them, in ascending order.

    Raises:
        ValueError: If a feature is not finite.
    """
    order = sample_order(task, rows)
    found = _first_features(network, task, rows[order], len(rows))
    values = np.empty_like(found.values)
    values[order] = found.values
    return replace(found, values=values)


def sample_features(network: Network, task: Task, rows: Rows, count: int) -> Features:
    """Return the features of a random sample of some rows, the first of `sample_order`.

    They are computed and kept as the beginning of `scoring_features` of the same rows, which costs less after it.

    Args:
        network: The backbone with its initial weights.
        task: The pictures.
        rows: Which of them, in ascending order.
        count: Size of the sample, at most the rows.

    Raises:
        ValueError: If a feature is not finite.
    """
    return _first_features(network, task, rows[sample_order(task, rows)], count)


def sample_order(task: Task, rows: Rows) -> Rows:
    """Return the random order, as indices into `rows`, in which features are computed: for one seed always the same."""
    return np.argsort(task.keys[rows], kind="stable")


def _first_features(network: Network, task: Task, rows: Rows, count: int) -> Features:
    """Return the features of the first of some rows, in their order."""
    maker = _Maker(network, task, rows)
    chunks, note = list[npt.NDArray[np.float32]](), ""
    try:
        for chunk in maker.kept_chunks(count):
            chunks.append(chunk)
    except NoRoomError as error:
        note = str(error)
        done = sum(map(len, chunks))
        chunks.append(maker.compute(done, count))
    values = np.concatenate(chunks)[:count]
    if not np.isfinite(values).all():
        raise ValueError(f"the features of {network.backbone} at {network.resolution} px are not finite")
    return Features(values=values, images_s=maker.images_s(), note=note)


class _Maker:
    """Computes features and keeps the pace."""

    def __init__(self, network: Network, task: Task, rows: Rows) -> None:
        self._network, self._task, self._rows = network, task, rows
        self._images, self._seconds, self._whole_seconds = 0, 0.0, 0.0

    def kept_chunks(self, count: int) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the features of at least `count` rows, each chunk from its file, which is written where it is missing.

        Raises:
            NoRoomError: If a file does not fit on the disk.
        """
        held = build_entry(self._entry(), lambda empty: None)
        evict(max(0, cache_budget() - 4 * len(self._rows) * self._width()))
        start = 0
        while start < count:
            path = held.folder / f"from-{start:09d}.npy"
            if path.exists() and not is_whole(path):
                discard(path)
            if not path.exists():
                stop = min(start + self._chunk_rows(), count)
                build_file(path, functools.partial(self._write, start, stop))
            chunk = np.load(path)
            yield chunk
            start += len(chunk)

    def compute(self, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Return the features of the rows from one index up to another, without keeping them."""
        parts = [np.zeros((0, self._width()), np.float32)]
        for first in range(start, min(stop, len(self._rows)), CHUNK):
            began = time.perf_counter()
            batch = self._rows[first : min(first + CHUNK, stop)]
            pictures = render(self._task.pixels, batch, scoring_boxes(len(batch)), self._network.resolution)
            cut = time.perf_counter()
            parts.append(self._network.features(pictures.numpy()))
            now = time.perf_counter()
            self._images += CHUNK  # a batch that is not full takes as long as one that is
            self._seconds += now - cut
            self._whole_seconds += now - began
        return np.concatenate(parts)

    def images_s(self) -> float:
        """Return the images a second through the backbone; where all was on disk, measure one batch."""
        if not self._images:
            self.compute(0, min(CHUNK, len(self._rows)))
        return self._images / self._seconds

    def _chunk_rows(self) -> int:
        if not self._images:
            return CHUNK
        return CHUNK * max(1, int(CHUNK_SECONDS / (self._whole_seconds / self._images * CHUNK)))

    def _write(self, start: int, stop: int, file: BinaryIO) -> None:
        values = self.compute(start, stop)
        check_room(cache_folder(), values.nbytes)
        summed, header = Summed(file), {"descr": values.dtype.str, "fortran_order": False, "shape": values.shape}
        np.lib.format.write_array_header_1_0(summed, header)
        summed.write(np.ascontiguousarray(values).data)
        summed.close()

    def _width(self) -> int:
        return self._network.feature_count

    def _entry(self) -> Path:
        """Return the folder of these features, by everything that they depend on."""
        words = (_FORMAT, self._network.features_hash(), self._task.pixels.folder.name)
        digest = hashlib.blake2b("\n".join(map(str, words)).encode(), digest_size=12)
        digest.update(self._task.keys[self._rows].tobytes())
        return entry_folder("features", digest.hexdigest())
