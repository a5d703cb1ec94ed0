"""timm backbones: names, families, what can be built, and how a model is made for a trial."""

import functools
import importlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from timm.layers.drop import DropPath
from timm.models import get_arch_pretrained_cfgs, get_pretrained_cfg, is_model
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

_KIN = {
    "mobilenetv3": "efficientnet",
    "vision_transformer": "vit",
    "vision_transformer_relpos": "vit",
    "vision_transformer_hybrid": "vit",
    "deit": "vit",
    "beit": "vit",
    "eva": "vit",
    "cait": "vit",
    "swin_transformer": "swin",
    "swin_transformer_v2": "swin",
    "swin_transformer_v2_cr": "swin",
    "metaformer": "metaformer",
    "maxxvit": "maxvit",
    "resnetv2": "resnet",
    "senet": "resnet",
}
"""Modules of timm whose models share a lineage; every other module is a family of its own."""
_USUAL_SIDE = 224
"""px, where timm says nothing."""
_UNBUILDABLE = (RuntimeError, AssertionError, TypeError, ValueError, ArithmeticError, OSError, SafetensorError)
"""What timm and its models raise for a size, an option or a file that does not suit them."""


@dataclass(frozen=True, slots=True)
class BackboneFacts:
    """What is known of a backbone at one resolution without any weights."""

    params: int
    """All parameters, those of the classifier of `classes` outputs among them."""
    macs: int
    """Multiply-accumulates of one forward pass of one image."""
    features: int | None
    """Inputs of the classifier; None where that is not one linear layer, so that the backbone cannot be probed."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Per-channel mean and standard deviation a backbone wants, of pixels in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def check_name(backbone: str) -> None:
    """Refuse a name that timm does not know.

    Raises:
        ValueError: With near names, or with the tags that there are.
    """
    arch, _, tag = backbone.partition(".")
    if not is_model(arch):
        from rapidfuzz import process  # here, because predicting needs no more than what runs the models

        near = [match[0] for match in process.extract(arch, timm.list_models(), limit=3)]
        raise ValueError(f"unknown backbone {backbone!r}: timm has no such model (near: {', '.join(near)})")
    tags = [name.partition(".")[2] for name in get_arch_pretrained_cfgs(arch)]
    if tag and tag not in tags:
        raise ValueError(f"unknown weights {tag!r} of {arch} (there are: {', '.join(tags) or 'none'})")


def family_of(backbone: str) -> str:
    """Return the design lineage of a backbone."""
    module = timm.model_entrypoint(backbone.partition(".")[0]).__module__.rpartition(".")[2]
    return _KIN.get(module, module)


def licence_of(backbone: str) -> str:
    """Return the licence of the backbone's pretrained weights as timm records it, or `unknown`."""
    config = get_pretrained_cfg(backbone)
    return (config.license if config else None) or "unknown"


def normalisation_of(backbone: str) -> Normalisation:
    """Return the pixel statistics the backbone was made for."""
    config = get_pretrained_cfg(backbone)
    mean = config.mean if config else (0.485, 0.456, 0.406)
    std = config.std if config else (0.229, 0.224, 0.225)
    return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def native_resolution(backbone: str) -> int:
    """Return the side at which a backbone was pretrained, px, as timm records it."""
    config = get_pretrained_cfg(backbone)
    return int(config.input_size[-1]) if config else _USUAL_SIDE


def make_model(
    backbone: str,
    resolution: int,
    classes: int,
    *,
    drop_path: float = 0.0,
    weights: Path | None = None,
) -> nn.Module:
    """Build a backbone with a fresh classifier.

    Args:
        backbone: timm model name.
        resolution: Side of the square input, px.
        classes: Outputs of the classifier.
        drop_path: Stochastic depth rate of the deepest block.
        weights: A safetensors file for everything but the classifier; None = random initialisation.

    Raises:
        ValueError: If the model cannot be built at this resolution, or the file does not fit it.
    """
    options: dict[str, Any] = {}
    if _takes_image_size(backbone):
        options["img_size"] = resolution
    if drop_path > 0.0:
        options["drop_path_rate"] = drop_path
    try:
        if weights is not None:
            # Read here, because timm judges a file by its name: without the suffix, as in the hub's cache, it would be
            # unpickled, and for some models be taken for an archive of NumPy's.
            # num_classes 0 says that the file's own classifier, if any, is of another task.
            overlay = {"state_dict": load_file(weights), "num_classes": 0, "source": ""}
            options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
        model: nn.Module = timm.create_model(backbone, num_classes=classes, **options)
        if weights is not None:
            kept: Any = model.pretrained_cfg
            kept.pop("state_dict", None)  # a second copy of the file
        if drop_path == 0.0:  # Swin has a rate unasked
            for module in model.modules():
                if isinstance(module, DropPath):
                    module.drop_prob = 0.0
        if weights is not None:
            _check_fit(model, weights)
    except _UNBUILDABLE as error:
        origin = f" from {weights}" if weights else ""
        raise ValueError(f"{backbone} at {resolution} px cannot be built{origin}: {first_line(error)}") from error
    return model


@functools.lru_cache(maxsize=512)
def facts(backbone: str, resolution: int, classes: int) -> BackboneFacts:
    """Build the model on the meta device, run it there, and count.

    Raises:
        ValueError: If it cannot be built or run at this resolution.
    """
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # timm talks of weights it cannot initialise on meta
        # Without gradients wanted: the counter trips over models that pass a parameter to a module.
        model = make_model(backbone, resolution, classes).eval().requires_grad_(False)
        counter = FlopCounterMode(display=False)
        try:
            with counter, torch.no_grad():
                shape = tuple(model(torch.empty(1, 3, resolution, resolution)).shape)
        except _UNBUILDABLE as error:
            raise ValueError(f"{backbone} does not run at {resolution} px: {first_line(error)}") from error
    if shape != (1, classes):
        raise ValueError(f"{backbone} at {resolution} px gives {shape}, not {(1, classes)}")
    classifier = linear_classifier(model)
    return BackboneFacts(
        params=sum(parameter.numel() for parameter in model.parameters()),
        macs=counter.get_total_flops() // 2,
        features=None if classifier is None else classifier.in_features,
    )


def linear_classifier(model: nn.Module) -> nn.Linear | None:
    """Return the classifier where it is one linear layer with a bias, else None."""
    classifier = model.get_classifier()  # type: ignore[operator]
    return classifier if isinstance(classifier, nn.Linear) and classifier.bias is not None else None


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Turn uint8 (images, 3, height, width) into the floats a backbone wants."""
    mean = torch.tensor(normalisation.mean, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(normalisation.std, device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255.0 - mean) / std


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _check_fit(model: nn.Module, weights: Path) -> None:
    """Refuse a file of another model: what timm does not find in a file, it leaves random.

    A file may have older names here and there, for which timm has filters, so a quarter may differ. Models of one
    family and of different depths share up to two thirds.
    """
    with safe_open(weights, framework="pt") as file:
        stored = set(file.keys())
    known = set(model.state_dict())
    shared = len(stored & known)
    if shared < 0.75 * max(len(stored), len(known)):
        raise ValueError(f"the model has {len(known)} tensors, the file {len(stored)}, and they share {shared}")


def _takes_image_size(backbone: str) -> bool:
    """Whether the model is built for one input size: timm says so in its configuration."""
    config = get_pretrained_cfg(backbone)
    if config is not None and config.fixed_input_size:
        return True
    module = importlib.import_module(timm.model_entrypoint(backbone.partition(".")[0]).__module__)
    return module.__name__.rpartition(".")[2] in {
        "vision_transformer",
        "deit",
        "beit",
        "eva",
        "swin_transformer",
    }
