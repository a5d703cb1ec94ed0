"""The trained tensors of members and the solved heads of probes on disk, as safetensors."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spine_ray.study.paths import DamagedError, StudyPaths, replace_bytes

_PARTS = ("weight", "bias")


def write_refit(
    paths: StudyPaths,
    trial_id: str,
    arrays: Mapping[str, npt.NDArray[np.generic]],
    *,
    frozen_hash: str,
    data_version: str,
) -> None:
    """Keep a refitted member's trained tensors.

    Args:
        paths: The study.
        trial_id: The member.
        arrays: By tensor name.
        frozen_hash: sha256 of the file that holds the frozen part, or `random`.
        data_version: Of the rows that it was fitted on.
    """
    about = {"trial_id": trial_id, "frozen": frozen_hash, "data_version": data_version}
    _write(paths.refit(trial_id), arrays, about)


def is_fitted(paths: StudyPaths, trial_id: str, data_version: str) -> bool:
    """Say whether there are whole tensors of a member that were fitted on these rows."""
    path = paths.refit(trial_id)
    try:
        about, _ = _read(path)
    except DamagedError:
        return False
    return about.get("data_version") == data_version


def read_refit(paths: StudyPaths, trial_id: str) -> dict[str, npt.NDArray[np.generic]]:
    """Return a refitted member's trained tensors by name.

    Raises:
        DamagedError: If the file is missing or damaged.
    """
    return _read(paths.refit(trial_id))[1]


def check_refit(path: Path) -> None:
    """Check the tensors of a file against its checksum.

    Raises:
        DamagedError: If the file is missing or damaged.
    """
    _read(path)


def write_heads(
    paths: StudyPaths,
    trial_id: str,
    heads: Mapping[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]],
    *,
    frozen_hash: str,
    data_version: str,
) -> None:
    """Keep the solved heads of a probe.

    Args:
        paths: The study.
        trial_id: The probe.
        heads: (weight, bias) by fold; (classes, features) and (classes,).
        frozen_hash: sha256 of the file that holds the backbone, or `random`.
        data_version: Of the rows whose folds they are of.
    """
    arrays = {f"{fold}.{name}": array for fold, head in heads.items() for name, array in zip(_PARTS, head, strict=True)}
    about = {"trial_id": trial_id, "frozen": frozen_hash, "data_version": data_version, "folds": str(len(heads))}
    _write(paths.probe_heads(trial_id), arrays, about)


def read_heads(
    paths: StudyPaths, trial_id: str, *, frozen_hash: str, data_version: str
) -> dict[int, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]:
    """Return the solved heads of a probe by fold; none where there are none of these rows and this backbone.

    A damaged file counts as none: heads are solved again where they are missing.
    """
    try:
        about, arrays = _read(paths.probe_heads(trial_id))
    except DamagedError:
        return {}
    if (about.get("frozen"), about.get("data_version")) != (frozen_hash, data_version):
        return {}
    folds = range(int(about["folds"]))
    return {
        fold: (arrays[f"{fold}.{_PARTS[0]}"].astype(np.float32), arrays[f"{fold}.{_PARTS[1]}"].astype(np.float32))
        for fold in folds
    }


def _write(path: Path, arrays: Mapping[str, npt.NDArray[np.generic]], about: Mapping[str, str]) -> None:
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # safetensors scrambles the rest
    replace_bytes(path, save(ordered, metadata={**about, "checksum": _checksum(ordered)}))


def _read(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[np.generic]]]:
    """Return what a file says of itself, and its tensors."""
    try:
        with safe_open(path, framework="np") as file:
            about: dict[str, str] = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"the weights in {path} cannot be read: {error}") from error
    if about.get("checksum") != _checksum(arrays):
        raise DamagedError(f"the weights in {path} cannot be read: they are not what their checksum says")
    return about, arrays


def _checksum(arrays: Mapping[str, npt.NDArray[np.generic]]) -> str:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(arrays[name].tobytes(), zlib.crc32(name.encode(), total))
    return f"{total:08x}"
