"""Checkpoints on disk: an unfinished trial as it stood after an epoch, as safetensors with a checksum. No pickle."""

import json
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spine_ray.study.depot import Depot
from spine_ray.study.paths import StudyPaths, bring_to_disk, cannot_write, temporary_name

CONTROL = "control"
"""Names the checkpoint of the shuffled-label control, whose trial id is that of a start recipe."""
_ABOUT, _CHECKSUM = "about", "checksum"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """An unfinished trial."""

    about: Mapping[str, Any]
    """What it is of and how far it got: plain values for JSON."""
    arrays: Mapping[str, npt.NDArray[np.generic]]


def write_checkpoint(depot: Depot, name: str, checkpoint: Checkpoint) -> None:
    """Replace a trial's checkpoint by a newer one, whole or not at all.

    Args:
        depot: Where to.
        name: The trial.
        checkpoint: What to keep.

    Raises:
        LostHoldError: If another search holds the study by now; nothing was replaced.
        CannotWriteError: If the disk is full, or nothing may be written there; nothing was replaced.
    """
    path = depot.paths.checkpoint(name)
    about = json.dumps(checkpoint.about)
    arrays = {key: np.asarray(array, order="C") for key, array in checkpoint.arrays.items()}
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(save(arrays, metadata={_ABOUT: about, _CHECKSUM: _checksum(about, arrays)}))
        bring_to_disk(temporary)
        with depot.publishing(path):
            temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(paths: StudyPaths, name: str) -> Checkpoint | None:
    """Return a trial's checkpoint, or None if there is none.

    Raises:
        ValueError: If it is damaged.
    """
    path = paths.checkpoint(name)
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            kept = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"it cannot be read: {' '.join(str(error).split())}") from error
    about = kept.get(_ABOUT, "")
    if kept.get(_CHECKSUM) != _checksum(about, arrays):
        raise ValueError("its bytes are not those that were written: the checksum differs")
    return Checkpoint(json.loads(about), arrays)


def sweep_checkpoints(paths: StudyPaths, unfinished: Collection[str]) -> None:
    """Remove what the dead left: half-written checkpoints, and those of trials that are over."""
    for path in _files(paths.checkpoints):
        if path.suffix == ".part" or path.stem not in {*unfinished, CONTROL}:
            path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _checksum(about: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    """Return a CRC-32 of all there is: against damage, not malice, and quick, because epochs wait for it."""
    found = zlib.crc32(about.encode())
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        found = zlib.crc32(f"{key} {array.dtype} {array.shape}".encode(), found)
        found = zlib.crc32(array.reshape(-1).view(np.uint8).data, found)
    return f"{found:08x}"
