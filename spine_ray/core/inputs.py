"""What the trained part is fed with: pictures, or the activations of a frozen prefix."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from spine_ray.core.arithmetic import place_batch
from spine_ray.core.network import CHUNK, Network, as_half
from spine_ray.core.task import Rows, Task
from spine_ray.core.views import Augmentation, render, scoring_boxes, training_view
from spine_ray.space.config import Recipe

_ROOM_FOR_OTHERS = 16384.0
"""A quarter of float16's range: a first chunk that stays below it says that the other pictures fit too."""


class Inputs(Protocol):
    """Batches for the trained part, on its device; the same whichever way they come about."""

    @property
    def views(self) -> int:
        """How many training views there are; epoch e uses view e mod views."""

    @property
    def note(self) -> str:
        """What was not as fast as it could be, or empty."""

    def training(self, rows: Rows, epoch: int) -> Tensor:
        """Return a batch of the epoch's training view."""

    def scoring(self, rows: Rows) -> Tensor:
        """Return a batch of the scoring view."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pictures:
    """Normalised pictures, for a model that runs whole."""

    network: Network
    task: Task
    augmentation: Augmentation
    views: int
    note: str = ""

    def training(self, rows: Rows, epoch: int) -> Tensor:
        """Return a batch of the epoch's training view, (rows, 3, height, width)."""
        return self.network.images(self.training_view(rows, epoch % self.views))

    def scoring(self, rows: Rows) -> Tensor:
        """Return a batch of the scoring view, (rows, 3, height, width)."""
        return self.network.images(self.scoring_view(rows))

    def training_view(self, rows: Rows, view: int) -> Tensor:
        """Return uint8 (rows, 3, height, width) of one training view."""
        task, resolution = self.task, self.network.resolution
        return training_view(task.pixels, rows, task.keys[rows], view, self.augmentation, resolution)

    def scoring_view(self, rows: Rows) -> Tensor:
        """Return uint8 (rows, 3, height, width) of the scoring view."""
        return render(self.task.pixels, rows, scoring_boxes(len(rows)), self.network.resolution)


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """A frozen prefix's activations, computed when they are asked for, rounded as if they had been stored."""

    pictures: Pictures
    is_half: bool
    """Whether float16 holds them."""
    note: str

    @property
    def views(self) -> int:
        """How many training views there are."""
        return self.pictures.views

    def training(self, rows: Rows, epoch: int) -> Tensor:
        """Return the activations of the epoch's training view, (rows, ...)."""
        return self._of(self.pictures.training_view(rows, epoch % self.views))

    def scoring(self, rows: Rows) -> Tensor:
        """Return the activations of the scoring view, (rows, ...)."""
        return self._of(self.pictures.scoring_view(rows))

    def _of(self, pictures: Tensor) -> Tensor:
        network = self.pictures.network
        activations = network.activations(pictures)
        return place_batch(as_half(activations).float() if self.is_half else activations, network.setup.arithmetic)


def pictures_for(recipe: Recipe, network: Network, task: Task) -> Pictures:
    """Return the pictures as a recipe augments them, with a view for every epoch."""
    return Pictures(
        network=network,
        task=task,
        augmentation=Augmentation.of(recipe),
        views=recipe.epochs,
        note=network.whole_because,
    )


def scoring_pictures(network: Network, task: Task) -> Pictures:
    """Return pictures for a model that is only scored."""
    plain = Augmentation(crop_area_min=1.0)
    return Pictures(network=network, task=task, augmentation=plain, views=1, note=network.whole_because)


def probe_activations(pictures: Pictures, rows: Rows) -> tuple[tuple[int, ...], bool]:
    """Return the shape of one picture's activations, and whether float16 holds them."""
    first = pictures.network.activations(pictures.scoring_view(rows[:CHUNK]))
    return tuple(first.shape[1:]), float(first.abs().max()) <= _ROOM_FOR_OTHERS
