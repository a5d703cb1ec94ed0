"""Successive halving at exact epochs: who goes on, who is stopped, and why. Knows no ray."""

import math
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class Contender:
    """A trial as the rungs see it."""

    trial_id: str
    family: str
    is_start: bool
    """Whether it is its backbone's start recipe, which is stopped at the end of fold 0 at the earliest."""


@dataclass(slots=True)
class Rungs:
    """The losses of a tier's trials at each milestone.

    Asynchronous successive halving (Li et al., MLSys 2020) in its stopping form, with three differences: a trial is
    recorded at exactly the milestone it reaches and at no other, what is not finite stops, and the best of each family
    goes on because the ensemble needs it. Who passes fold 0 trains all folds: a trial that is stopped later leaves no
    OOF logits for most of what it cost.
    """

    epochs: int
    """Epochs of one fold."""
    reduction: int
    """One of so many goes on; with 1 all do."""
    recorded: dict[int, dict[str, tuple[str, float]]] = field(default_factory=dict)
    """By milestone, by trial: family and loss."""

    @property
    def milestones(self) -> tuple[int, ...]:
        """The epochs of fold 0 at which trials are compared: a third of it, at least one, and its last."""
        third = max(1, round(self.epochs / 3))
        return tuple(sorted({third, self.epochs}))

    def judge(self, contender: Contender, step: int, loss: float) -> str | None:
        """Record a loss and return why the trial is stopped, or None when it goes on.

        Args:
            contender: Whose loss.
            step: Its epochs over all folds, from 1.
            loss: Temperature-scaled log-loss of the rows scored so far; lower is better.
        """
        if not math.isfinite(loss):
            return f"the loss is {loss} at epoch {step}"
        if step not in self.milestones:
            return None
        rung = self.recorded.setdefault(step, {})
        earlier = [value for trial_id, (_, value) in rung.items() if trial_id != contender.trial_id]
        rung[contender.trial_id] = (contender.family, loss)
        if self.reduction == 1 or (contender.is_start and step < self.epochs):
            return None
        cutoff = float(np.quantile(earlier, 1.0 / self.reduction)) if earlier else math.inf
        if loss <= cutoff or self._is_best_of_family(contender, rung):
            return None
        return f"log-loss {loss:.4f} at epoch {step} is above the cut of {cutoff:.4f}"

    def _is_best_of_family(self, contender: Contender, rung: dict[str, tuple[str, float]]) -> bool:
        losses = [value for family, value in rung.values() if family == contender.family]
        return rung[contender.trial_id][1] <= min(losses)
