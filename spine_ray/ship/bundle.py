"""A bundle: a folder that predicts without the study. JSON and safetensors, every file with its SHA-256, no pickle.

bundle.json           what is predicted how, and what is known of it
weights/TRIAL.safetensors   what training changed of a member
weights/frozen.safetensors  what it did not, by the hash of each tensor: shared by all members that have the same
SHA256SUMS            of these files; `sha256sum -c SHA256SUMS` checks them too

What lies beside them, like `mlflow/` of an export, is no part of it.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from spine_ray.core.network import Setup
from spine_ray.core.ship import fitted_network, trained_arrays, whole_arrays
from spine_ray.ensemble.cascade import Cascade, Predicted
from spine_ray.ensemble.mix import Mix
from spine_ray.ship.artefact import Arrays, Artefact, Member, Tensors
from spine_ray.space.arithmetic import parse_arithmetic
from spine_ray.space.config import TrialConfig

SCHEMA_VERSION = 1
RECORD, SUMS = "bundle.json", "SHA256SUMS"
_FROZEN = "weights/frozen.safetensors"


def is_bundle(root: Path) -> bool:
    """Say whether a folder means to be a bundle."""
    return (root / RECORD).exists() or (root / SUMS).exists()


class BundleTensors:
    """The tensors of a bundle; it holds all of them, so nothing is drawn or fetched.

    Args:
        root: The bundle.
        frozen: By trial, the hash of each frozen tensor by its name in the model.
    """

    def __init__(self, root: Path, frozen: Mapping[str, Mapping[str, str]]) -> None:
        """Read nothing yet."""
        self._root, self._frozen = root, frozen

    def initial(self, member: Member) -> Path | None:
        """Return None: `fitted` has everything."""
        return None

    def fitted(self, member: Member) -> Arrays:
        """Return all of a member's tensors by name.

        Raises:
            ValueError: If a file cannot be read.
        """
        path = self._root / _weights_name(member.trial_id)
        try:
            arrays: dict[str, npt.NDArray[np.generic]] = dict(load_file(path))
            names = self._frozen.get(member.trial_id, {})
            if names:
                path = self._root / _FROZEN
                with safe_open(path, framework="np") as file:
                    arrays |= {name: file.get_tensor(digest) for name, digest in names.items()}
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        return arrays


def open_bundle(root: Path) -> tuple[Artefact, BundleTensors]:
    """Check every file of a bundle and read it.

    Raises:
        ValueError: If a file is missing, damaged or altered, or the bundle is of another schema.
    """
    named = _check_sums(root)
    path = root / RECORD
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["schema_version"]
        if version != SCHEMA_VERSION:
            raise ValueError(f"{path} has schema version {version!r}; this release reads version {SCHEMA_VERSION}")
        frozen = {each["trial_id"]: each["frozen"] for each in values["members"]}
        artefact = _artefact(values)
        used = [_weights_name(member.trial_id) for member in artefact.members]
        if any(frozen.values()):
            used.append(_FROZEN)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    # A file that was never checked would be read all the same, whatever is in it by now.
    unnamed = next((name for name in used if name not in named), None)
    if unnamed is not None:
        raise ValueError(f"{root} is no whole bundle: {SUMS} does not name {unnamed}")
    return artefact, BundleTensors(root, frozen)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill; it has its name only when all is in it, and is gone if that fails.

    Raises:
        ValueError: If there is something at `out`, or the disk is full or refuses.
    """
    check_free(out)
    part = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        if out.exists():
            out.rmdir()
        part.replace(out.absolute())
    except OSError as error:  # that of a full disk names no file
        raise ValueError(f"{out} was not written: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_bundle(artefact: Artefact, tensors: Tensors, folder: Path) -> None:
    """Write a bundle into an empty folder.

    Raises:
        ValueError: If a member's tensors are missing or not its own.
    """
    (folder / "weights").mkdir()
    frozen = _write_weights(artefact, tensors, folder)
    text = json.dumps(_values(artefact, frozen), indent=1, allow_nan=False)
    (folder / RECORD).write_text(f"{text}\n", encoding="utf-8")
    _write_sums(folder)


def check_free(out: Path) -> None:
    """Refuse a place at which there is something.

    Raises:
        ValueError: If it is a file, a link, or a folder that is not empty.
    """
    if out.is_symlink():  # a folder cannot take the place of a link
        raise ValueError(f"{out} is a link: name a new folder")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name a new folder")


def _write_weights(artefact: Artefact, tensors: Tensors, root: Path) -> dict[str, dict[str, str]]:
    """Write the members' tensors and return, by trial, the hash of each frozen tensor by its name in the model."""
    frozen: dict[str, npt.NDArray[np.generic]] = {}
    names: dict[str, dict[str, str]] = {}
    for member in artefact.members:
        setup = Setup(
            device=torch.device("cpu"),
            arithmetic=member.arithmetic,
            weights=tensors.initial(member),
            activation_bytes=0,
        )
        model = fitted_network(member.config, len(artefact.classes), artefact.seed, setup, tensors.fitted(member)).model
        trained = trained_arrays(model)
        names[member.trial_id] = {}
        for name, array in whole_arrays(model).items():
            if name not in trained:
                digest = _tensor_hash(array)
                frozen[digest] = array
                names[member.trial_id][name] = digest
        _save(trained, root / _weights_name(member.trial_id))
    if frozen:
        _save(frozen, root / _FROZEN)
    return names


def _save(arrays: Arrays, path: Path) -> None:
    # Safetensors writes memory as it lies, whatever the order of the axes.
    try:
        save_file({name: np.asarray(array, order="C") for name, array in arrays.items()}, path)
    except SafetensorError as error:  # its word for what any other file would call an OSError
        raise OSError(f"{path.name}: {error}") from error


def _tensor_hash(array: npt.NDArray[np.generic]) -> str:
    digest = hashlib.sha256(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _weights_name(trial_id: str) -> str:
    return f"weights/{trial_id}.safetensors"


def _values(artefact: Artefact, frozen: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    members = [
        {
            "trial_id": member.trial_id,
            "weight": weight,
            "temperature": temperature,
            "config": member.config.to_dict(),
            "arithmetic": str(member.arithmetic),
            "family": member.family,
            "weights_source": member.weights_source,
            "licence": member.licence,
            "frozen": dict(frozen[member.trial_id]),
        }
        for member, weight, temperature in zip(
            artefact.members, artefact.mix.weights, artefact.mix.temperatures, strict=True
        )
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "classes": list(artefact.classes),
        "stored_side": artefact.stored_side,
        "seed": artefact.seed,
        "pool": artefact.mix.pool,
        "final_temperature": artefact.mix.final_temperature,
        "members": members,
        "cascade": None if artefact.cascade is None else asdict(artefact.cascade),
        "about": dict(artefact.about),
    }


def _artefact(values: Mapping[str, Any]) -> Artefact:
    members = tuple(
        Member(
            config=TrialConfig.from_dict(each["config"]),
            arithmetic=parse_arithmetic(each["arithmetic"]),
            family=each["family"],
            weights_source=each["weights_source"],
            licence=each["licence"],
        )
        for each in values["members"]
    )
    return Artefact(
        classes=tuple(values["classes"]),
        seed=values["seed"],
        stored_side=values["stored_side"],
        members=members,
        mix=Mix(
            weights=tuple(each["weight"] for each in values["members"]),
            temperatures=tuple(each["temperature"] for each in values["members"]),
            pool=values["pool"],
            final_temperature=values["final_temperature"],
        ),
        cascade=None if values["cascade"] is None else _cascade(values["cascade"]),
        about=values["about"],
    )


def _cascade(values: Mapping[str, Any]) -> Cascade:
    predicted = values["predicted"]
    lists = {name: tuple(values[name]) for name in ("order", "temperatures", "costs")}
    return Cascade(**{**values, **lists, "predicted": None if predicted is None else Predicted(**predicted)})


def _write_sums(root: Path) -> None:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(root).as_posix()}\n" for path in files]
    (root / SUMS).write_text("".join(lines), encoding="utf-8")


def _check_sums(root: Path) -> set[str]:
    """Check the files that the sums name, and return their names."""
    path = root / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{root} is no whole bundle: {SUMS} cannot be read") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    if RECORD not in sums:
        raise ValueError(f"{root} is no whole bundle: {SUMS} does not name {RECORD}")
    for name, digest in sums.items():
        if Path(name).anchor or ".." in Path(name).parts:
            raise ValueError(f"{root} is damaged or was altered: {SUMS} names {name!r}, not a file inside it")
        file = root / name
        if not file.is_file():
            raise ValueError(f"{root} is no whole bundle: {name} is missing")
        if _sha256(file) != digest:
            raise ValueError(f"{root} is damaged or was altered: {name} is not the file that {SUMS} names")
    return set(sums)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
