"""What a selection is made from: candidates on some rows, read one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.greedy import Rules, Traits
from spine_ray.ensemble.pool import FLOOR, floored

SHORT_LIST = 64
"""Most candidates that are calibrated and pooled; where there are more, a screen picks these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Screen:
    """What of many candidates fits in memory: how they do on the true class, uncalibrated."""

    truth: NDArray[np.float32]
    """(members, samples), the floored probability of the label."""
    hits: NDArray[np.bool_]
    """(members, samples), whether the label is the likeliest class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidates:
    """All that a selection is made from, checked by `select`."""

    logits: NDArray[np.float32]
    """(all members, all samples, classes); may be memory-mapped, is never copied whole."""
    kept: tuple[int, ...]
    """Where in `logits` each candidate stands."""
    rows: NDArray[np.int64] | None
    """Which of the samples count here; None for all."""
    labels: NDArray[np.int64]
    """(samples,), of these rows."""
    groups: NDArray[np.int64]
    """(samples,), of these rows; rows of one group are not independent."""
    traits: Traits
    rules: Rules
    screen: Screen | None
    """None where there are few enough to look at each."""

    def block(self, member: int) -> NDArray[np.float32]:
        """Return a candidate's logits, (samples, classes)."""
        block = self.logits[self.kept[member]]
        return np.asarray(block if self.rows is None else block[self.rows])

    def log_probs(self, member: int, temperature: float) -> NDArray[np.float64]:
        """Return a candidate's calibrated, floored log-probabilities, (samples, classes)."""
        return floored(log_probs(self.block(member), temperature))

    def lines(self, member: int, temperature: float) -> NDArray[np.float32]:
        """Return a candidate's calibrated, floored log-probabilities, (classes, samples), to be searched."""
        # Few classes: reductions run along the rows.
        lines = np.ascontiguousarray(self.block(member).T, np.float32) / np.float32(temperature)
        lines -= lines.max(axis=0)
        lines -= np.log(np.exp(lines).sum(axis=0))
        np.maximum(lines, np.float32(np.log(FLOOR)), out=lines)
        lines -= np.log(np.exp(lines).sum(axis=0))
        return lines

    def stacked(self, members: Sequence[int], temperatures: Sequence[float]) -> NDArray[np.float64]:
        """Return some candidates' calibrated, floored log-probabilities, (members, samples, classes)."""
        return np.stack([self.log_probs(*pair) for pair in zip(members, temperatures, strict=True)])

    def temperature(self, member: int, start: float | None = None) -> float:
        """Fit a candidate's temperature; where to start saves time and changes nothing."""
        return fit_temperature(self.block(member), self.labels, start=start)

    @property
    def num_groups(self) -> int:
        """Number of independent groups of rows."""
        return len(np.unique(self.groups))

    def on(self, rows: NDArray[np.int64]) -> "Candidates":
        """Return the same candidates on some of the rows."""
        screen = self.screen
        if screen is not None:
            screen = Screen(truth=screen.truth[:, rows], hits=screen.hits[:, rows])
        return replace(
            self,
            rows=rows if self.rows is None else self.rows[rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
            screen=screen,
        )


def screened(candidates: Candidates) -> Candidates:
    """Return the candidates with their screen, if there are more than the short list holds."""
    members, samples = len(candidates.kept), len(candidates.labels)
    if members <= SHORT_LIST:
        return candidates
    truth = np.empty((members, samples), np.float32)
    hits = np.empty((members, samples), np.bool_)
    every = np.arange(samples)
    for member in range(members):
        columns = np.ascontiguousarray(candidates.block(member).T)  # few classes: reductions run along the rows
        top = columns.max(axis=0)
        of_label = columns[candidates.labels, every]
        hits[member] = of_label == top
        columns -= top
        np.exp(columns, out=columns)
        truth[member] = np.maximum(np.exp(of_label - top) / columns.sum(axis=0), FLOOR)
    return replace(candidates, screen=Screen(truth=truth, hits=hits))
