"""Initial weights: a folder the user names, the cache, the hub, this package or random; decided once for a study."""

import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from timm.models import get_pretrained_cfg

from spine_ray.core.hub import (
    WEIGHTS_FILE,
    HubAwayError,
    HubFile,
    HubFileError,
    Tell,
    cached,
    content_hash,
    describe,
    fetch,
    fetch_to_cache,
    is_damaged,
)
from spine_ray.space.recipes import WeightsKind
from spine_ray.space.stand_ins import STAND_INS_SOURCE, stand_ins_folder

SUMS_FILE = "SHA256SUMS"
"""In a folder of weights: what its files hash to, in the form that `sha256sum --check` reads."""
_PICKLES = (".pth", ".pth.tar", ".pt", ".bin", ".ckpt", ".pkl")
_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"
"""How a pickle begins, and how PyTorch's archive of pickles does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The initial weights of a study's backbones."""

    kind: WeightsKind
    source: str
    """`random`, `hub`, `stand-ins`, or the folder."""
    files: dict[str, Path]
    """By backbone; empty for random."""

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of each file."""
        return {backbone: content_hash(path) for backbone, path in self.files.items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """One file of a folder of weights."""

    backbone: str
    path: Path
    size: int
    """Bytes."""
    sha256: str
    origin: str
    """`there already`, `from the cache` or `from the hub`."""


RANDOM = Weights(kind="random", source="random", files={})


class WeightsOutOfReachError(ValueError):
    """Pretrained weights were asked for and are neither in the cache nor to be had from the hub."""


def weights_from_folder(folder: Path, backbones: Sequence[str]) -> Weights:
    """Find every backbone's safetensors file in a folder; no network is needed.

    Accepted names: `NAME.safetensors` and `NAME/model.safetensors`, NAME being the backbone with or without its tag.
    Where the folder holds a `SHA256SUMS`, the files it lists must be whole.

    Raises:
        ValueError: If the folder or a needed file is missing, is a pickle, or is not what the folder's sums say.
    """
    if not folder.is_dir():
        raise ValueError(f"--weights {folder} is not a folder (allowed: auto, pretrained, random, or a folder)")
    sums = _read_sums(folder)
    files: dict[str, Path] = {}
    missing = []
    for backbone in backbones:
        found = next((folder / name for name in _names(backbone) if (folder / name).is_file()), None)
        if found is None:
            _refuse_pickle(folder, backbone)
            missing.append(f"{backbone}.safetensors")
            continue
        _check_content(found)
        told = sums.get(found.relative_to(folder).as_posix())
        if told is not None and content_hash(found) != told:
            raise ValueError(f"{found} is damaged: it does not hash to what {folder / SUMS_FILE} says; copy it again")
        files[backbone] = found
    if missing:
        raise ValueError(f"the weights folder {folder} lacks {', '.join(missing)}")
    return Weights(kind="pretrained", source=str(folder), files=files)


def weights_from_cache(backbones: Sequence[str]) -> Weights | None:
    """Take every backbone's weights from the local cache, None unless all are there; nobody else is asked.

    A file that is damaged counts as missing, and so does what has no pretrained weights at all.
    """
    files: dict[str, Path] = {}
    for backbone in backbones:
        repository = _hub_id(backbone)
        found = None if repository is None else cached(repository)
        if found is None:
            return None
        files[backbone] = found
    # Asked last, because it reads whole files.
    return None if any(map(is_damaged, files.values())) else Weights(kind="pretrained", source="hub", files=files)


def weights_of_stand_ins(backbones: Sequence[str]) -> Weights:
    """Take the weights of stand-ins from the package itself.

    Raises:
        ValueError: If a backbone is none of them.
    """
    return replace(weights_from_folder(stand_ins_folder(), backbones), source=STAND_INS_SOURCE)


def weights_again(source: str, backbones: Sequence[str], tell: Tell) -> Weights:
    """Find weights again where a study took them from.

    Args:
        source: `Weights.source` of weights that are not random.
        backbones: Whose weights.
        tell: Told what is fetched.

    Raises:
        ValueError: If some are not to be had from there.
    """
    if source == "hub":
        return weights_from_hub(backbones, tell)
    return (
        weights_of_stand_ins(backbones) if source == STAND_INS_SOURCE else weights_from_folder(Path(source), backbones)
    )


def weights_from_hub(backbones: Sequence[str], tell: Tell) -> Weights:
    """Take every backbone's weights from the local cache or else from the hub.

    A file in the cache that is damaged is fetched anew; a fetch that was cut off goes on where it ended.

    Args:
        backbones: Whose weights.
        tell: Told what is fetched.

    Raises:
        WeightsOutOfReachError: If some are in neither, naming the file.
        ValueError: If a backbone has no pretrained weights at all.
    """
    files = {backbone: cached(_repository(backbone)) for backbone in backbones}
    for backbone, path in files.items():
        if path is not None and not is_damaged(path):
            continue
        try:
            files[backbone] = fetch_to_cache(describe(_repository(backbone)), tell)
        except (HubAwayError, HubFileError) as error:
            damaged = f"; {path} in the cache is damaged" if path is not None else ""
            raise WeightsOutOfReachError(f"the weights of {backbone} cannot be fetched: {error}{damaged}") from error
    return Weights(
        kind="pretrained", source="hub", files={backbone: path for backbone, path in files.items() if path is not None}
    )


def gather_weights(backbones: Sequence[str], folder: Path, tell: Tell) -> Iterator[Gathered]:
    """Gather every backbone's file in a folder that `weights_from_folder` accepts; yields each as it is there.

    What is there already and whole is kept, what the local cache holds is copied, the rest is fetched. The folder's
    `SHA256SUMS` grows with the files, so that a copy of the folder can be checked anywhere.

    Args:
        backbones: Whose weights.
        folder: Made if it is missing.
        tell: Told what is fetched.

    Raises:
        WeightsOutOfReachError: If a file cannot be had, with its name; those before it stay.
        ValueError: If a backbone has no pretrained weights at all, or the folder is a file.
    """
    repositories = {backbone: _repository(backbone) for backbone in backbones}
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--fetch {folder} is not a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for backbone, repository in repositories.items():
        path = folder / f"{backbone}.safetensors"
        try:
            origin = _gather_one(repository, path, tell)
            sha256 = content_hash(path)
            _add_sum(folder, path.name, sha256)
        except (HubAwayError, HubFileError, OSError) as error:
            raise WeightsOutOfReachError(f"the weights of {backbone} cannot be brought to {path}: {error}") from error
        yield Gathered(backbone=backbone, path=path, size=path.stat().st_size, sha256=sha256, origin=origin)


def on_this_machine(file: Path, tell: Tell) -> Path:
    """Return a weights file that another machine has found, fetched to this one's cache where it is missing.

    Raises:
        ValueError: If it is not here and cannot be had with the same content.
    """
    if file.is_file():
        return file
    repository = file.parents[1].name.removeprefix("models--").replace("--", "/") if file.parent.name == "blobs" else ""
    if not repository:
        raise ValueError(f"this machine has no {file}: name a folder of weights that all machines share")
    described: HubFile = describe(repository)
    if described.etag != file.name:
        raise ValueError(f"the hub has another version of {repository}/{WEIGHTS_FILE} by now than {file.name[:16]}...")
    return fetch_to_cache(described, tell)


def _gather_one(repository: str, path: Path, tell: Tell) -> str:
    if path.is_file() and _read_sums(path.parent).get(path.name) == content_hash(path):
        return "there already"
    found = cached(repository)
    if found is not None and not is_damaged(found):
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:6]}.part")
        shutil.copyfile(found, temporary)
        temporary.replace(path)
        return "from the cache"
    fetch(describe(repository), path, path.parent / f".{path.name}.lock", tell)
    return "from the hub"


def _repository(backbone: str) -> str:
    found = _hub_id(backbone)
    if found is None:
        raise ValueError(f"{backbone} has no pretrained weights on the hub; use --weights random or a folder")
    return found


def _hub_id(backbone: str) -> str | None:
    config = get_pretrained_cfg(backbone)
    return str(config.hf_hub_id) if config is not None and config.hf_hub_id else None


def _names(backbone: str) -> Iterator[str]:
    names = (backbone, backbone.partition(".")[0])
    yield from (f"{name}.safetensors" for name in names)
    yield from (f"{name}/{WEIGHTS_FILE}" for name in names)


def _refuse_pickle(folder: Path, backbone: str) -> None:
    """Refuse a checkpoint that lies where the safetensors file should."""
    names = (backbone, backbone.partition(".")[0])
    places = [folder / f"{name}{suffix}" for name in names for suffix in _PICKLES]
    places += [folder / name / f"pytorch_model{suffix}" for name in names for suffix in _PICKLES]
    found = next(filter(Path.is_file, places), None)
    if found is not None:
        raise _pickle_error(found)


def _check_content(path: Path) -> None:
    """Refuse a pickle under a safetensors name."""
    with path.open("rb") as file:
        head = file.read(9)
    # A safetensors file begins with the length of its JSON header, whose lowest byte can be any.
    if head[8:] != b"{" and head.startswith((_PICKLE, _ZIP)):
        raise _pickle_error(path)


def _pickle_error(path: Path) -> ValueError:
    return ValueError(
        f"{path} is a pickle, and loading one can run any code: only safetensors are read; convert it with "
        "safetensors.torch.save_file"
    )


def _read_sums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that the folder's sums list, by name."""
    path = folder / SUMS_FILE
    if not path.is_file():
        return {}
    pairs = (line.split(maxsplit=1) for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return {pair[1].lstrip("*"): pair[0] for pair in pairs if len(pair) == 2}


def _add_sum(folder: Path, name: str, sha256: str) -> None:
    sums = {**_read_sums(folder), name: sha256}
    temporary = folder / f".{SUMS_FILE}.{uuid.uuid4().hex[:6]}.part"
    temporary.write_text("".join(f"{sums[each]}  {each}\n" for each in sorted(sums)), encoding="utf-8")
    temporary.replace(folder / SUMS_FILE)
