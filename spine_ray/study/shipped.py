"""The trained tensors of members on disk, as safetensors."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from spine_ray.study.paths import StudyPaths, bring_to_disk, move_into_place, temporary_name


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
    path = paths.refit(trial_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    ordered = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # safetensors scrambles the rest
    about = {"trial_id": trial_id, "frozen": frozen_hash, "data_version": data_version}
    save_file(ordered, temporary, metadata=about)
    bring_to_disk(temporary)
    move_into_place(temporary, path)


def is_fitted(paths: StudyPaths, trial_id: str, data_version: str) -> bool:
    """Say whether there are tensors of a member that were fitted on these rows.

    Raises:
        ValueError: If the file is damaged.
    """
    path = paths.refit(trial_id)
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="np") as file:
            about: dict[str, str] = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights of {trial_id} cannot be read from {path}: {error}") from error
    return about.get("data_version") == data_version


def read_refit(paths: StudyPaths, trial_id: str) -> dict[str, npt.NDArray[np.generic]]:
    """Return a refitted member's trained tensors by name.

    Raises:
        ValueError: If the file is missing or damaged.
    """
    path = paths.refit(trial_id)
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights of {trial_id} cannot be read from {path}: {error}") from error
