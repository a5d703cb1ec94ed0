"""Activations of a frozen prefix kept on disk: computed once, used by every trial, fold and learning rate.

An entry of the cache holds one file a view (`scoring.npy`, `view-000.npy`, ...), each built when it is first needed,
with its checksum at its end.
"""

import hashlib
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spine_ray.core.arithmetic import place_batch, send
from spine_ray.core.cache import (
    Hold,
    NoRoomError,
    Summed,
    build_entry,
    build_file,
    cache_budget,
    check_room,
    discard,
    entry_folder,
    evict,
    is_whole,
    try_build_file,
)
from spine_ray.core.inputs import Activations, Inputs, Pictures, pictures_for, probe_activations
from spine_ray.core.network import CHUNK, Network, as_half
from spine_ray.core.task import Rows, Task
from spine_ray.space.config import Recipe

_log = logging.getLogger(__name__)

FEWEST_VIEWS = 1 / 2
"""Views there must be at least, in units of the epochs.

With fewer, held-out log-loss rises by more than 0.01 nats (`python -m benchmarks.views`, in docs/log.md).
"""
_FORMAT = "2"
_SCORING = "scoring"
_VIEW = "view-"


def open_inputs(recipe: Recipe, network: Network, task: Task, rows: Rows) -> Inputs:
    """Return what feeds the trained part: pictures, or activations, kept on disk where there is room.

    Args:
        recipe: Its augmentation and its number of epochs.
        network: Whose prefix, if it has one.
        task: Pictures and seed.
        rows: All rows that training or scoring will ask for, in ascending order.
    """
    pictures = pictures_for(recipe, network, task)
    if network.split is None:
        return pictures
    shape, is_half = probe_activations(pictures, rows)
    view_bytes = len(rows) * int(np.prod(shape)) * (2 if is_half else 4)
    room = network.setup.activation_bytes
    views = min(recipe.epochs, room // view_bytes - 1)
    if views < fewest_views(recipe.epochs):
        note = f"activations not kept: a view takes {view_bytes / 1e9:.3g} GB of {room / 1e9:.3g} GB" if room else ""
        return Activations(pictures=pictures, is_half=is_half, note=note)
    computed = Activations(pictures=replace(pictures, views=views), is_half=is_half, note="")
    folder = _entry(computed.pictures, rows)
    held = build_entry(folder, lambda empty: None)
    evict(max(0, cache_budget() - (views + 1) * view_bytes))
    return StoredActivations(computed, rows, shape, held)


def fewest_views(epochs: int) -> int:
    """Return with how many training views at least activations are kept; with fewer, training would suffer."""
    return max(1, math.ceil(epochs * FEWEST_VIEWS))


class StoredActivations:
    """Activations read from disk; a view that is missing is computed first, for all rows.

    Args:
        computed: Where missing ones come from.
        rows: The rows of the files.
        shape: Of one picture's activations.
        held: The entry.
    """

    def __init__(self, computed: Activations, rows: Rows, shape: tuple[int, ...], held: Hold) -> None:
        """Open nothing yet."""
        self.note = computed.note
        self._computed, self._rows, self._held = computed, rows, held
        is_map = len(shape) == 3 and computed.pictures.network.setup.arithmetic.memory_format == "channels_last"
        self._axes = (0, 2, 3, 1) if is_map else tuple(range(len(shape) + 1))
        """From the order in which activations are computed to that in which they lie in memory and on disk."""
        self._shape = tuple((len(rows), *shape)[axis] for axis in self._axes)
        self._kind = np.dtype(np.float16 if computed.is_half else np.float32)
        self._place = np.full(len(computed.pictures.task.labels), -1, np.int64)
        self._place[rows] = np.arange(len(rows))
        self._open: dict[str, npt.NDArray[np.generic]] = {}

    @property
    def views(self) -> int:
        """How many training views there are."""
        return self._computed.views

    def training(self, rows: Rows, epoch: int) -> Tensor:
        """Return the activations of the epoch's training view, (rows, ...)."""
        stored = self._stored(_view_name(epoch % self.views))
        return self._computed.training(rows, epoch) if stored is None else self._batch(stored, rows)

    def scoring(self, rows: Rows) -> Tensor:
        """Return the activations of the scoring view, (rows, ...)."""
        stored = self._stored(_SCORING)
        return self._computed.scoring(rows) if stored is None else self._batch(stored, rows)

    def _batch(self, stored: npt.NDArray[np.generic], rows: Rows) -> Tensor:
        setup = self._computed.pictures.network.setup
        picked = send(torch.from_numpy(np.ascontiguousarray(stored[self._place[rows]])), setup.device)
        back = [self._axes.index(axis) for axis in range(len(self._axes))]
        return place_batch(picked.permute(back).float(), setup.arithmetic)

    def _stored(self, name: str) -> npt.NDArray[np.generic] | None:
        """Return a view's file, mapped; None when the disk has become too full for it."""
        if name not in self._open:
            try:
                self._have(name)
            except NoRoomError as error:
                self.note = str(error)
                return None
            self._open[name] = np.load(self._path(name), mmap_mode="r")
        return self._open[name]

    def _have(self, name: str) -> None:
        """Build a view unless it is there and whole, or wait until another process has built it.

        Meanwhile build what will be needed after it.
        """
        path = self._path(name)
        if path.exists() and not self._fits(path):
            _log.warning("%s is damaged; it is computed anew", path)
            discard(path)
        names = (name, _SCORING, *(_view_name(view) for view in range(self.views)))
        for each in names:
            if self._path(name).exists():
                return
            if not self._path(each).exists():
                try_build_file(self._path(each), self._writer(each))
        build_file(self._path(name), self._writer(name))

    def _fits(self, path: Path) -> bool:
        """Say whether a file is what was written, and what is wanted."""
        if not is_whole(path):
            return False
        stored = np.load(path, mmap_mode="r")
        return (stored.shape, stored.dtype) == (self._shape, self._kind)

    def _writer(self, name: str) -> Callable[[BinaryIO], object]:
        pictures, rows = self._computed.pictures, self._rows

        def cut(chunk: Rows) -> Tensor:
            if name == _SCORING:
                return pictures.scoring_view(chunk)
            return pictures.training_view(chunk, int(name.removeprefix(_VIEW)))

        def write(file: BinaryIO) -> None:
            check_room(self._held.folder, int(np.prod(self._shape)) * self._kind.itemsize)
            header = {"descr": self._kind.str, "fortran_order": False, "shape": self._shape}
            summed = Summed(file)
            np.lib.format.write_array_header_1_0(summed, header)
            for start in range(0, len(rows), CHUNK):
                activations = pictures.network.activations(cut(rows[start : start + CHUNK]))
                rounded = as_half(activations) if self._computed.is_half else activations
                summed.write(rounded.permute(self._axes).contiguous().cpu().numpy().data)
            summed.close()

        return write

    def _path(self, name: str) -> Path:
        return self._held.folder / f"{name}.npy"


def _view_name(view: int) -> str:
    return f"{_VIEW}{view:03d}"


def _entry(pictures: Pictures, rows: Rows) -> Path:
    """Return the folder of what these pictures' activations are, by everything that they depend on."""
    task = pictures.task
    words = (_FORMAT, pictures.network.prefix_hash(), task.pixels.folder.name, pictures.augmentation)
    digest = hashlib.blake2b("\n".join(map(str, words)).encode(), digest_size=12)
    digest.update(task.keys[rows].tobytes())  # names the pictures, and the seed of their views
    return entry_folder("activations", digest.hexdigest())
