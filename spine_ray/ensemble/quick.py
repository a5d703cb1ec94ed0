"""The best answer so far, while a search runs: a small ensemble of the trials that are completed, chosen in no time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.greedy import Rules, Traits, pose, walk
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.mix import Mix
from spine_ray.ensemble.objective import OBJECTIVES
from spine_ray.ensemble.pool import floored
from spine_ray.ensemble.price import as_cost

RULES = Rules(max_members=5, max_steps=10, tie_band=0.0)
"""Of the greedy choice; no weight is below a tenth. What more members and steps bring is for the choice at the end."""
MOST_ROWS = 4_000
"""Rows that choose and judge; of more, so many are drawn. A mean loss over 4,000 rows is good to about 0.01 nats."""
OPTIMISTIC = "optimistic: the rows that judge the answer are those that chose it"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickScore:
    """How an answer does on the rows that it was chosen on."""

    log_loss: float
    """Nats; lower is better."""
    accuracy: float
    """Higher is better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuickAnswer:
    """The best answer so far: which of the trials, how to pool them, and how good it seems."""

    members: tuple[int, ...]
    """Trials by the order in which they were added, from 0; in the order of their first pick."""
    mix: Mix
    """Weights and temperatures, one a member, and the final temperature."""
    score: QuickScore
    first: QuickScore
    """The first trial alone, calibrated."""
    rows: int
    """Rows on which both were judged."""
    note: str = OPTIMISTIC
    """What a reader of the scores must know."""

    def to_dict(self) -> dict[str, Any]:
        """Return the answer as plain values for JSON."""
        return asdict(self)


class QuickEnsemble:
    """Chooses the best answer so far, again after each trial; nothing of it is cross-fitted.

    Each trial is calibrated once, when it is added. An answer is a greedy choice with replacement from a log pool
    (`greedy`), or the answer before where that was better on these rows: so it never gets worse.

    Args:
        labels: (samples,), class indices.
        classes: How many classes there are.

    Raises:
        ValueError: If the labels are no class indices.
    """

    def __init__(self, labels: ArrayLike, classes: int) -> None:
        """Draw the rows, where there are many; the same ones whenever it is done."""
        truth = np.asarray(labels)
        if truth.ndim != 1 or not len(truth) or not np.issubdtype(truth.dtype, np.integer):
            raise ValueError(f"labels must be one whole number a row, not {truth.shape} {truth.dtype}")
        if truth.min() < 0 or truth.max() >= classes:
            raise ValueError(f"labels must be 0 to {classes - 1}, not {truth.min()} to {truth.max()}")
        self._shape = (len(truth), classes)
        self._rows = _drawn(len(truth))
        self._labels: NDArray[np.int64] = truth[self._rows].astype(np.int64)
        self._encodings: list[NDArray[np.float32]] = []
        self._temperatures: list[float] = []
        self._first: QuickScore | None = None
        self._best: QuickAnswer | None = None

    @property
    def trials(self) -> int:
        """How many trials there are."""
        return len(self._encodings)

    def add(self, logits: ArrayLike) -> None:
        """Add a trial.

        Args:
            logits: (samples, classes), its OOF logits.

        Raises:
            ValueError: If they are not finite, or not those of the labels' rows.
        """
        whole = np.asarray(logits)
        if whole.shape != self._shape:
            raise ValueError(f"the logits of trial {self.trials} must be {self._shape}, not {whole.shape}")
        block = whole[self._rows]
        if not np.isfinite(block).all():
            raise ValueError(f"the logits of trial {self.trials} are not all finite")
        temperature = fit_temperature(block, self._labels)
        values = log_probs(block, temperature)
        self._first = self._first or self._score(values)
        self._encodings.append(OBJECTIVES["log"].encode(floored(values), self._labels))
        self._temperatures.append(temperature)

    def answer(self) -> QuickAnswer:
        """Return the best answer so far.

        Raises:
            ValueError: If there is no trial.
        """
        if not self.trials:
            raise ValueError("there is no trial to answer with")
        found = self._answer(self._greedy_picks())
        if self._best is None or found.score.log_loss < self._best.score.log_loss:
            self._best = found
        return self._best

    def _greedy_picks(self) -> tuple[int, ...]:
        """Return the trials that a greedy choice picks, as often as it picks them; costs and families are nothing."""
        free = Traits(families=("",) * self.trials, resolutions=(0,) * self.trials, costs=(as_cost(0.0),) * self.trials)
        problem = pose(np.stack(self._encodings), OBJECTIVES["log"], free, RULES, groups=len(self._labels))
        return walk(problem).best

    def _answer(self, picks: Sequence[int]) -> QuickAnswer:
        assert self._first is not None
        counts = Counter(picks)
        weights = [count / len(picks) for count in counts.values()]
        pool = log_probs(self._pooled(tuple(counts), weights))
        final = fit_temperature(pool, self._labels) if len(counts) > 1 else 1.0
        return QuickAnswer(
            members=tuple(counts),
            mix=Mix(
                weights=tuple(weights),
                temperatures=tuple(self._temperatures[member] for member in counts),
                pool="log",
                final_temperature=final,
            ),
            score=self._score(log_probs(pool, final)),
            first=self._first,
            rows=len(self._labels),
        )

    def _pooled(self, members: Sequence[int], weights: Sequence[float]) -> NDArray[np.float64]:
        """Return the members' weighted mean log-probabilities, (samples, classes), not normalised."""
        total = np.zeros(self._encodings[0][:-1].shape)  # the last line of an encoding is the label's once more
        for member, weight in zip(members, weights, strict=True):
            total += weight * self._encodings[member][:-1]
        return total.T

    def _score(self, values: NDArray[np.float64]) -> QuickScore:
        return QuickScore(log_loss=log_loss(values, self._labels), accuracy=accuracy(values, self._labels))


def _drawn(rows: int) -> NDArray[np.int64]:
    """Return the indices of all rows, or of `MOST_ROWS` of them, in order; the same ones for a number of rows."""
    if rows <= MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))
