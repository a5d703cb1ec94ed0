"""The members of an artefact, built and ready: logits of blocks of pictures, shared frozen prefixes computed once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spine_ray.core.arithmetic import autocast, place_batch, send
from spine_ray.core.backbone import Normalisation, normalise
from spine_ray.core.memory import Portion
from spine_ray.core.network import Setup
from spine_ray.core.ship import fitted_network
from spine_ray.ensemble.cascade import Cascade
from spine_ray.ensemble.mix import Said
from spine_ray.ship.artefact import Artefact, Member, Tensors

Logits = npt.NDArray[np.float32]
"""(rows, classes)."""


@dataclass(frozen=True, slots=True)
class _Seat:
    """One member, cut where what it shares with others ends."""

    resolution: int
    normalisation: Normalisation
    setup: Setup
    prefix_name: str
    """Equal for members with the same frozen prefix; empty where there is none."""
    part: nn.Module
    """What comes behind the prefix, or the whole model."""
    at_once: Portion
    """How many rows the device's memory allows."""


class Committee:
    """All members of an artefact on one device.

    Args:
        artefact: Which members.
        tensors: Where their tensors come from.
        device: Where to compute.
        rows: Rows of a block at most.
    """

    def __init__(self, artefact: Artefact, tensors: Tensors, device: torch.device, rows: int) -> None:
        """Build every member; of a prefix that several share, one copy stays.

        Raises:
            ValueError: If a member's tensors are missing or not its own.
        """
        self._artefact = artefact
        self._prefixes: dict[str, nn.Module] = {}
        self._seats = tuple(self._seat(member, tensors, device, rows) for member in artefact.members)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The sides of the views that the members need, px."""
        return tuple(sorted({seat.resolution for seat in self._seats}))

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self._artefact.classes)

    @property
    def num_prefixes(self) -> int:
        """How many different frozen prefixes there are."""
        return len(self._prefixes)

    def say(self, views: Mapping[int, Tensor]) -> tuple[Said, npt.NDArray[np.int64]]:
        """Let every member see every picture.

        Args:
            views: By resolution, uint8 (rows, 3, resolution, resolution).

        Returns:
            What the pool says, and how many members saw each row.
        """
        block = _Block(views, self._prefixes)
        said = self._artefact.mix.say([block.logits(seat, None) for seat in self._seats])
        return said, np.full(len(said.log_probs), len(self._seats), np.int64)

    def say_cheap_first(self, views: Mapping[int, Tensor], cascade: Cascade) -> tuple[Said, npt.NDArray[np.int64]]:
        """Let the members see the pictures one after the other, as long as those before them were not sure.

        Args:
            views: As in `say`.
            cascade: In which order, and what is sure.
        """
        block, mix = _Block(views, self._prefixes), self._artefact.mix
        rows = np.arange(len(next(iter(views.values()))))
        answer = np.zeros((len(rows), len(self._artefact.classes)))
        apart, seen = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        known: list[Logits] = []
        for stage, member in enumerate(cascade.order):
            known.append(block.logits(self._seats[member], rows))
            said = cascade.stage(mix, stage).say(known)
            done = cascade.is_answered(said, stage)
            answered = rows[done]
            answer[answered], apart[answered], seen[answered] = said.log_probs[done], said.disagreement[done], stage + 1
            rows, known = rows[~done], [logits[~done] for logits in known]
            if not len(rows):
                break
        return Said(log_probs=answer, disagreement=apart), seen

    def _seat(self, member: Member, tensors: Tensors, device: torch.device, rows: int) -> _Seat:
        setup = Setup(device=device, arithmetic=member.arithmetic, weights=tensors.initial(member), activation_bytes=0)
        artefact = self._artefact
        network = fitted_network(member.config, len(artefact.classes), artefact.seed, setup, tensors.fitted(member))
        name = network.prefix_hash()
        if network.split is not None:
            self._prefixes.setdefault(name, network.split.prefix)
        return _Seat(
            resolution=member.config.resolution,
            normalisation=network.normalisation,
            setup=setup,
            prefix_name=name,
            part=network.trained_part,
            at_once=Portion(rows),
        )


@dataclass(slots=True)
class _Block:
    """Some pictures on their way through the members; a prefix's activations stay until all are through."""

    views: Mapping[int, Tensor]
    prefixes: Mapping[str, nn.Module]
    _activations: dict[str, tuple[npt.NDArray[np.int64], Tensor]] = field(default_factory=dict)
    """By prefix: of which rows, ascending, and what they are."""

    def logits(self, seat: _Seat, rows: npt.NDArray[np.int64] | None) -> Logits:
        """Return a member's logits of some rows, ascending; None: of all. A later call asks for no other rows."""
        given = self._shared(seat, rows) if seat.prefix_name else self._images(seat, rows)

        def run(at_once: int) -> Tensor:
            with torch.inference_mode(), autocast(seat.setup.arithmetic, seat.setup.device):
                return torch.cat([seat.part(each).float().cpu() for each in torch.split(given, at_once)])

        return np.asarray(seat.at_once.run(run).numpy(), np.float32)

    def _shared(self, seat: _Seat, rows: npt.NDArray[np.int64] | None) -> Tensor:
        if seat.prefix_name not in self._activations:
            images = self._images(seat, rows)
            every = np.arange(len(images)) if rows is None else rows
            prefix = self.prefixes[seat.prefix_name]

            def run(at_once: int) -> Tensor:
                with torch.inference_mode(), autocast(seat.setup.arithmetic, seat.setup.device):
                    return torch.cat([prefix(each) for each in torch.split(images, at_once)])

            self._activations[seat.prefix_name] = (every, seat.at_once.run(run))
        known, activations = self._activations[seat.prefix_name]
        if rows is None or len(rows) == len(known):
            return activations
        picked = activations[torch.from_numpy(np.searchsorted(known, rows)).to(activations.device)]
        return place_batch(picked, seat.setup.arithmetic)

    def _images(self, seat: _Seat, rows: npt.NDArray[np.int64] | None) -> Tensor:
        views = self.views[seat.resolution]
        chosen = views if rows is None or len(rows) == len(views) else views[torch.from_numpy(rows)]
        return place_batch(normalise(send(chosen, seat.setup.device), seat.normalisation), seat.setup.arithmetic)
