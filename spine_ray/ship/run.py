"""One run of predictions: from pictures to a table, and to scores where there are labels."""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spine_ray.data.albums import Album, open_album
from spine_ray.data.places import Place
from spine_ray.ensemble.cascade import Cascade
from spine_ray.ensemble.scorecard import Refitted, Scorecard, refit_temperature, score_rows
from spine_ray.ship.artefact import Artefact, Tensors
from spine_ray.ship.bundle import check_free, new_folder, write_bundle
from spine_ray.ship.committee import Committee
from spine_ray.ship.labels import Judge, read_labels
from spine_ray.ship.stream import Answer, Pace, Predictions, default_device, predictions
from spine_ray.ship.table import open_table

Done = Callable[[int, int | None], None]
"""Called with pictures done and pictures in all (None where that is not known) after every block."""
_MOST_PROBLEMS = 3
"""Pictures without a prediction that are named in the end; all are in the table."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictRequest:
    """What was asked for."""

    images: str
    out: Path
    labels: Path | None = None
    is_cheap_first: bool = False
    refit_out: Path | None = None
    """Where to write a bundle with another final temperature; needs labels."""

    def __post_init__(self) -> None:
        """Refuse what does not go together."""
        if self.refit_out is not None and self.labels is None:
            raise ValueError("--refit-temperature needs --labels, which it is fitted on")
        if self.refit_out is not None and self.is_cheap_first:
            raise ValueError("--refit-temperature looks at what all members say: leave --cascade away")
        if self.refit_out is not None:
            check_free(self.refit_out)
        local = Place.of(self.images).uri.removeprefix("file://").removeprefix("local://")
        for option, given in (("--images", Path(local)), ("--labels", self.labels)):
            if given is not None and _is_same_file(self.out, given):
                raise ValueError(f"--out {self.out} would replace the file of {option}: name another file")


def _is_same_file(one: Path, other: Path) -> bool:
    # Not `Path.exists`, which raises where a name is too long or a folder is closed to us: others have words for that.
    return os.path.exists(one) and os.path.exists(other) and one.samefile(other)  # noqa: PTH110


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a run came to."""

    pictures: int
    problems: tuple[str, ...]
    """Of the first pictures without a prediction, with their names; then how many more there are."""
    seconds: float
    seen: float
    """How many members saw a picture, in the mean."""
    cost: float | None
    """Mean cost of a picture by the members that saw it, measured when the study was made, ms; None: all saw it."""


class Predictor:
    """An artefact with its members built.

    Args:
        artefact: What predicts.
        tensors: Of its members.
        is_cheap_first: Whether pictures go through its cascade, where that is worth it.
        cores: Of this machine, for it; None: all.
    """

    def __init__(
        self, artefact: Artefact, tensors: Tensors, *, is_cheap_first: bool = False, cores: int | None = None
    ) -> None:
        """Build the members on the GPU, or the CPU where there is none.

        Raises:
            ValueError: If a member's tensors are missing or not its own.
        """
        device = default_device()
        self.artefact, self._pace = artefact, Pace.of(device, cores)
        self._committee = Committee(artefact, tensors, device, self._pace.block)
        self._cascade = cascade_of(artefact, is_cheap_first)

    def predict(self, album: Album) -> Iterator[Predictions]:
        """Go through pictures, block by block, in order."""
        side = self.artefact.stored_side
        return predictions(album.pictures(), side, self._committee, self._answer(), self._pace)

    def _answer(self) -> Answer:
        cascade, committee = self._cascade, self._committee
        if cascade is None:
            return committee.say
        return lambda views: committee.say_cheap_first(views, cascade)


Go = Callable[[Artefact, Tensors, bool, str], Generator[Predictions]]
"""Goes through the pictures at a place with an artefact, cheap members first or not."""


def go_here(artefact: Artefact, tensors: Tensors, is_cheap_first: bool, images: str) -> Generator[Predictions]:
    """Predict in this process."""
    yield from Predictor(artefact, tensors, is_cheap_first=is_cheap_first).predict(open_album(images))


def cascade_of(artefact: Artefact, is_cheap_first: bool) -> Cascade | None:
    """Return the cascade that pictures go through, if any: one that does not pay is left aside."""
    cascade = artefact.cascade if is_cheap_first else None
    return cascade if cascade is not None and cascade.pays else None


class Run:
    """Pictures, table and labels of one request, checked before any member is built.

    Args:
        request: What was asked for.
        artefact: What predicts.
        tensors: Of its members.
    """

    def __init__(self, request: PredictRequest, artefact: Artefact, tensors: Tensors) -> None:
        """Check everything.

        Raises:
            ValueError: If something asked for cannot be done.
        """
        self.artefact, self._tensors, self._request = artefact, tensors, request
        self._album = open_album(request.images)
        self._table = open_table(request.out, artefact.classes)
        labels = None if request.labels is None else read_labels(request.labels, artefact.classes)
        self._judge = None if labels is None else Judge(labels, keeps_rows=request.refit_out is not None)
        if request.is_cheap_first and artefact.cascade is None:
            raise ValueError("--cascade: this bundle has none (a new temperature drops it): export one from the study")

    def predict(self, done: Done, go: Go = go_here) -> Outcome:
        """Predict all pictures into the table.

        Args:
            done: Told how far it is.
            go: Where it is done.

        Raises:
            ValueError: If the pictures turn out to be none, or their table damaged.
        """
        asked = self._request
        tally, began = _Tally(cascade_of(self.artefact, asked.is_cheap_first)), time.perf_counter()
        done(0, self._album.count)
        with (
            self._table as table,
            contextlib.closing(go(self.artefact, self._tensors, asked.is_cheap_first, asked.images)) as blocks,
        ):
            for block in blocks:
                table.write(block)
                tally.add(block)
                if self._judge is not None:
                    self._judge.look(block)
                done(tally.pictures, self._album.count)
            if not tally.pictures:
                raise ValueError(f"{self._album.name} holds no pictures")
        return tally.outcome(time.perf_counter() - began)

    def scores(self) -> Scorecard | None:
        """Score what `predict` said, None where there are no labels; apart, as the table is whole whatever fits it.

        Raises:
            ValueError: If too few of the pictures have a label and a prediction, or all are of one group.
        """
        return None if self._judge is None else score_rows(self._judge.judged)

    def refit(self) -> Refitted:
        """Write the bundle whose final temperature is fitted on the labels; asked for after `predict`.

        Raises:
            ValueError: If it was not asked for, or there is something at its place by now.
        """
        judge, out = self._judge, self._request.refit_out
        if judge is None or out is None:
            raise ValueError("--refit-temperature needs --labels, which it is fitted on")
        judged = judge.judged
        found = refit_temperature(judge.log_probs, judged.labels, judged.groups)
        told = {"labels": str(self._request.labels), "rows": len(judged.labels)}
        with new_folder(out) as folder:
            write_bundle(_refitted(self.artefact, found, told), self._tensors, folder)
        return found


class _Tally:
    """Counts what came out."""

    def __init__(self, cascade: Cascade | None) -> None:
        self.pictures = self._failed = self._seen = 0
        self._problems: list[str] = []
        self._costs = np.array((0.0, *cascade.costs)) if cascade else None
        self._cost = 0.0

    def add(self, block: Predictions) -> None:
        broken = [f"{name}: {problem}" for name, problem in zip(block.names, block.problems, strict=True) if problem]
        self._problems += broken[: _MOST_PROBLEMS - len(self._problems)]
        self.pictures += len(block.names)
        self._failed += len(broken)
        self._seen += int(block.seen.sum())
        self._cost += 0.0 if self._costs is None else float(self._costs[block.seen].sum())

    def outcome(self, seconds: float) -> Outcome:
        known, more = max(1, self.pictures - self._failed), self._failed - len(self._problems)
        return Outcome(
            pictures=self.pictures,
            problems=(*self._problems, *([f"and {more} more, all in the table"] if more else [])),
            seconds=seconds,
            seen=self._seen / known,
            cost=None if self._costs is None else self._cost / known,
        )


def _refitted(artefact: Artefact, found: Refitted, told: Mapping[str, Any]) -> Artefact:
    """Return the artefact with one more temperature and no cascade, and a record of where it comes from."""
    before = artefact.mix.final_temperature
    final = before * found.temperature
    entry = {
        **told,
        "final_temperature_before": before,
        "log_loss_before": found.before,
        "log_loss_cross_fitted": found.after,
        "note": "the OOF and test numbers describe the artefact with its former final temperature",
    }
    about = {**artefact.about, "temperature_refits": [*artefact.about.get("temperature_refits", ()), entry]}
    # A cascade's stages, thresholds and promises are those of the former temperature.
    return replace(artefact, mix=replace(artefact.mix, final_temperature=final), about=about, cascade=None)
