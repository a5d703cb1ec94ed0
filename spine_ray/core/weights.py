"""Initial weights: a folder the user names, the local cache, the hub, or random; decided once for a study."""

import hashlib
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
from timm.models import get_pretrained_cfg

from spine_ray.space.recipes import WeightsKind

HUB_TIMEOUT_S = 5.0
_FILE = "model.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The initial weights of a study's backbones."""

    kind: WeightsKind
    source: str
    """`random`, `hub`, or the folder."""
    files: dict[str, Path]
    """By backbone; empty for random."""

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of each file."""
        return {backbone: _sha256(path) for backbone, path in self.files.items()}


RANDOM = Weights(kind="random", source="random", files={})


class WeightsOutOfReachError(ValueError):
    """Pretrained weights were asked for and are neither in the cache nor to be had from the hub."""


def weights_from_folder(folder: Path, backbones: Sequence[str]) -> Weights:
    """Find every backbone's safetensors file in a folder.

    Accepted names: `NAME.safetensors` and `NAME/model.safetensors`, NAME being the backbone with or without its tag.

    Raises:
        ValueError: If the folder or a needed file is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"--weights {folder} is not a folder (allowed: auto, pretrained, random, or a folder)")
    files: dict[str, Path] = {}
    missing = []
    for backbone in backbones:
        names = (backbone, backbone.partition(".")[0])
        candidates = [folder / f"{name}.safetensors" for name in names] + [folder / name / _FILE for name in names]
        found = [path for path in candidates if path.is_file()]
        if found:
            files[backbone] = found[0]
        else:
            missing.append(f"{backbone}.safetensors")
    if missing:
        raise ValueError(f"the weights folder {folder} lacks {', '.join(missing)}")
    return Weights(kind="pretrained", source=str(folder), files=files)


def weights_from_hub(backbones: Sequence[str]) -> Weights:
    """Take every backbone's weights from the local cache or, asked once, from the hub.

    Raises:
        WeightsOutOfReachError: If some are in neither.
        ValueError: If a backbone has no pretrained weights at all.
    """
    files: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for backbone in backbones:
        config = get_pretrained_cfg(backbone)
        if config is None or not config.hf_hub_id:
            raise ValueError(f"{backbone} has no pretrained weights on the hub; use --weights random or a folder")
        cached = try_to_load_from_cache(config.hf_hub_id, _FILE)
        if isinstance(cached, str):
            files[backbone] = Path(cached)
        else:
            missing[backbone] = config.hf_hub_id
    if missing:
        _ask_hub(next(iter(missing.values())))
    for backbone, repository in missing.items():
        try:
            files[backbone] = Path(hf_hub_download(repository, _FILE, etag_timeout=HUB_TIMEOUT_S))
        except Exception as error:  # the errors of the client and of what it downloads with share no base
            raise WeightsOutOfReachError(
                f"the weights of {backbone} cannot be fetched: {type(error).__name__}"
            ) from error
    return Weights(kind="pretrained", source="hub", files=files)


def _ask_hub(repository: str) -> None:
    """Ask the hub once for one file's description: its own client would try again for half a minute."""
    if constants.HF_HUB_OFFLINE:
        raise WeightsOutOfReachError("the hub is not asked: HF_HUB_OFFLINE is set")
    request = urllib.request.Request(hf_hub_url(repository, _FILE), method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):
            pass
    except HTTPError as answer:
        answer.close()
        # Below 500 the hub is there; whether it has the file, and for which token, its own client finds out.
        if answer.code >= 500:
            raise WeightsOutOfReachError(f"the hub answers with status {answer.code}") from answer
    except (OSError, HTTPException) as error:
        raise WeightsOutOfReachError(f"the hub does not answer within {HUB_TIMEOUT_S:g} s ({error})") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
