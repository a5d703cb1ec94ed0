"""A backbone ready to train: built, frozen, placed on its device, cut where the frozen part ends."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spine_ray.core.arithmetic import autocast, place_batch, place_model, send
from spine_ray.core.backbone import linear_classifier, make_model, normalisation_of, normalise
from spine_ray.core.freeze import (
    classifier_names,
    freeze_untrained,
    trained_tensors,
    trains_batch_norm,
)
from spine_ray.core.linear_head import LinearHead
from spine_ray.core.memory import Portion
from spine_ray.core.seeds import derive_seed
from spine_ray.core.split import CannotSplitError, Split, check_split, split_model
from spine_ray.core.weights import on_this_machine
from spine_ray.space.arithmetic import Arithmetic
from spine_ray.space.config import TrialConfig

_log = logging.getLogger(__name__)

CHUNK = 32
"""Rows that go through a prefix at once, always: so a picture's activations do not depend on who else is there."""
_PROBE = 2
"""Pictures on which the parts are compared with the whole."""
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """What a trial is computed with; of these only the weights and the arithmetic touch its numbers."""

    device: torch.device
    arithmetic: Arithmetic
    weights: Path | None
    """A safetensors file; None = random initialisation."""
    activation_bytes: int
    """Room on disk for the activations of one frozen prefix; 0 = none are kept."""


@dataclass(frozen=True, slots=True)
class Learner:
    """What a fit trains."""

    model: nn.Module
    """All modules, trained and frozen."""
    part: nn.Module
    """What takes the inputs: the model, or the part of it behind the cut."""
    head: frozenset[str]
    """Names of the classifier's parameters in the model."""
    at_once: Portion
    """Of a batch, what goes through the model at once."""
    setup: Setup


class Network:
    """A model in its initial state, to which it can return: every fold begins with the same weights.

    Args:
        config: Backbone, resolution, freeze depth and the recipe's drop-path.
        classes: Outputs of the classifier.
        seed: The study's seed.
        setup: Device, arithmetic and initial weights.
    """

    def __init__(self, config: TrialConfig, classes: int, seed: int, setup: Setup) -> None:
        """Build, freeze, place and cut the model."""
        self.backbone, self.resolution, self.setup = config.backbone, config.resolution, setup
        torch.manual_seed(derive_seed(seed, "initialise"))
        model = make_model(
            config.backbone,
            config.resolution,
            classes,
            drop_path=0.0 if config.is_probe else config.training.drop_path,
            weights=setup.weights and on_this_machine(setup.weights, _log.info),
        )
        frozen = freeze_untrained(model, config)
        # From here on what is frozen is in eval mode: `train_mode` leaves it there.
        self.model = place_model(model, setup.arithmetic, setup.device).eval()
        self.normalisation = normalisation_of(config.backbone)
        self.split: Split | None = None
        self.whole_because = ""
        """Why a partly frozen model runs whole."""
        if frozen:
            self._cut()
        self._at_once: dict[int, Portion] = {}
        self._initial = {name: tensor.clone() for name, tensor in trained_tensors(self.model).items()}

    @property
    def trained_part(self) -> nn.Module:
        """What training runs: the suffix, or the whole model where nothing is cut off."""
        return self.split.suffix if self.split else self.model

    @property
    def can_be_probed(self) -> bool:
        """Whether the classifier is one linear layer with a bias."""
        return linear_classifier(self.model) is not None

    @property
    def feature_count(self) -> int:
        """Inputs of the classifier.

        Raises:
            ValueError: If the classifier is not one linear layer with a bias.
        """
        classifier = linear_classifier(self.model)
        if classifier is None:
            raise ValueError(f"{self.backbone} cannot be probed: its classifier is not one linear layer with a bias")
        return classifier.in_features

    def learner(self, batch_size: int) -> Learner:
        """Return the model to train, back in its initial weights.

        What memory once allowed of a batch is remembered for the next time.
        """
        with torch.no_grad():
            for name, tensor in trained_tensors(self.model).items():
                tensor.copy_(self._initial[name])
        # Batch-norm needs two rows at once, and an odd batch in near-equal parts of two leaves one alone.
        least = min(batch_size, 2 + batch_size % 2) if trains_batch_norm(self.model) else 1
        at_once = self._at_once.setdefault(batch_size, Portion(batch_size, least))
        head = frozenset(classifier_names(self.model))
        return Learner(self.model, self.trained_part, head, at_once, self.setup)

    def put_head(self, head: LinearHead) -> None:
        """Replace the classifier's parameters by those of a head that was solved on this backbone's features.

        Raises:
            ValueError: If the classifier is not one linear layer of the head's size.
        """
        classifier = linear_classifier(self.model)
        if classifier is None or tuple(classifier.weight.shape) != head.weight.shape:
            raise ValueError(f"{self.backbone} has no linear classifier of the shape {head.weight.shape}")
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(head.weight))
            classifier.bias.copy_(torch.from_numpy(head.bias))

    def images(self, pictures: Tensor) -> Tensor:
        """Turn uint8 (images, 3, height, width) into what the model takes."""
        return place_batch(normalise(send(pictures, self.setup.device), self.normalisation), self.setup.arithmetic)

    def activations(self, pictures: Tensor) -> Tensor:
        """Return the prefix's float32 activations of uint8 pictures, a chunk at a time, the last one filled up.

        Raises:
            ValueError: If the model has no prefix.
        """
        if self.split is None:
            raise ValueError(f"{self.backbone} has no frozen prefix: {self.whole_because or 'nothing is frozen'}")
        parts = []
        for chunk in torch.split(pictures, CHUNK):
            filled = torch.cat([chunk, chunk[-1:].expand(CHUNK - len(chunk), -1, -1, -1)])
            with torch.no_grad(), autocast(self.setup.arithmetic, self.setup.device):
                parts.append(self.split.prefix(self.images(filled))[: len(chunk)].float())
        return torch.cat(parts)

    def features(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return what the classifier would be given, float32 (images, features), a chunk at a time, the last filled up.

        Args:
            pictures: (images, 3, height, width), uint8.
        """
        parts = []
        for chunk in torch.split(torch.from_numpy(pictures), CHUNK):
            filled = torch.cat([chunk, chunk[-1:].expand(CHUNK - len(chunk), -1, -1, -1)])
            with torch.no_grad(), autocast(self.setup.arithmetic, self.setup.device):
                deep = self.model.forward_features(self.images(filled))  # type: ignore[operator]
                pooled = self.model.forward_head(deep, pre_logits=True)  # type: ignore[operator]
                parts.append(pooled[: len(chunk)].float().cpu())
        found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
        return found

    def prefix_hash(self) -> str:
        """Return a hash of all that the prefix's activations of some pictures depend on, but the machine."""
        return "" if self.split is None else self._hash_of(self.split.cut, self.split.prefix.state_dict())

    def features_hash(self) -> str:
        """Return a hash of all that the features of some pictures depend on, but the machine."""
        head = set(classifier_names(self.model))
        tensors = {name: tensor for name, tensor in self.model.state_dict().items() if name not in head}
        return self._hash_of("features", tensors)

    def _hash_of(self, cut: str, tensors: Mapping[str, Tensor]) -> str:
        digest = hashlib.blake2b(digest_size=16)
        words = (
            self.backbone,
            self.resolution,
            cut,
            self.normalisation,
            self.setup.arithmetic,
            self.setup.device.type,
            torch.get_num_threads(),  # which decides how sums are split up
            torch.__version__,
        )
        digest.update("\n".join(map(str, words)).encode())
        for name, tensor in tensors.items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()

    def _cut(self) -> None:
        side = self.resolution
        noise = torch.randint(0, 256, (_PROBE, 3, side, side), generator=torch.Generator().manual_seed(0))
        try:
            split = split_model(self.model)
            with autocast(self.setup.arithmetic, self.setup.device):
                check_split(self.model, split, self.images(noise.to(torch.uint8)))
        except CannotSplitError as error:
            self.whole_because = str(error)
        else:
            self.split = split


def as_half(activations: Tensor) -> Tensor:
    """Round to float16, what is beyond its range to its ends."""
    return activations.clamp(-_LARGEST_HALF, _LARGEST_HALF).half()
