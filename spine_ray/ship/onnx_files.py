"""ONNX files of single members, each checked against torch: uint8 pictures in, logits out."""

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spine_ray.core.backbone import Normalisation, first_line, normalise
from spine_ray.core.network import Setup
from spine_ray.core.ship import fitted_network
from spine_ray.ship.artefact import Artefact, Member, Tensors
from spine_ray.space.arithmetic import FLOAT32

NEEDED = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-3
"""Largest difference of a logit, in units of the largest logit."""
_PICTURES = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile:
    """What became of one member."""

    trial_id: str
    path: Path | None
    """None where the exporter did not manage it, or it says something else than torch."""
    told: str
    """How far it is from torch, or why there is none."""


class _FromPictures(nn.Module):
    """A member that takes pictures as they are stored, so that whoever runs the file need not know its statistics."""

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.model, self._normalisation = model, normalisation

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.model(normalise(pictures, self._normalisation))
        return logits


def check_onnx() -> None:
    """Refuse to go on where the exporter, or what runs its files, is not installed.

    Raises:
        ValueError: With the packages that are missing.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"--onnx needs packages that are not installed: pip install {' '.join(missing)}")


def write_onnx(artefact: Artefact, tensors: Tensors, folder: Path) -> tuple[OnnxFile, ...]:
    """Write `TRIAL.onnx` for every member that torch's exporter manages: float32, any number of pictures."""
    folder.mkdir()
    return tuple(_write_member(artefact, member, tensors, folder) for member in artefact.members)


def _write_member(artefact: Artefact, member: Member, tensors: Tensors, folder: Path) -> OnnxFile:
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=tensors.initial(member), activation_bytes=0)
    network = fitted_network(member.config, len(artefact.classes), artefact.seed, setup, tensors.fitted(member))
    model = _FromPictures(network.model.to(memory_format=torch.contiguous_format), network.normalisation).eval()
    side, path = member.config.resolution, folder / f"{member.trial_id}.onnx"
    pictures = torch.randint(0, 256, (_PICTURES, 3, side, side), generator=torch.Generator().manual_seed(0))
    pictures = pictures.to(torch.uint8)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            torch.onnx.export(
                model, (pictures,), str(path), input_names=["pictures"], output_names=["logits"], dynamo=True,
                dynamic_shapes={"pictures": {0: torch.export.Dim("rows")}}, external_data=False, verbose=False,
            )  # fmt: skip
            apart = _distance(path, model, pictures)
    except Exception as error:  # the exporter and what it is built on raise whatever they like
        path.unlink(missing_ok=True)
        return OnnxFile(trial_id=member.trial_id, path=None, told=first_line(error))
    if apart > _TOLERANCE:
        path.unlink()
        return OnnxFile(trial_id=member.trial_id, path=None, told=f"it says something else than torch, by {apart:.1e}")
    return OnnxFile(trial_id=member.trial_id, path=path, told=f"as torch says, to {apart:.0e}")


def _distance(path: Path, model: nn.Module, pictures: Tensor) -> float:
    """Return the largest difference from torch's logits, in units of the largest logit; for one picture more, too."""
    import onnxruntime  # only where it is asked for

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    more = torch.cat([pictures, 255 - pictures[:1]])
    expected = model(more).numpy()
    found = session.run(["logits"], {"pictures": more.numpy()})[0]
    return float(np.abs(found - expected).max() / np.abs(expected).max())
