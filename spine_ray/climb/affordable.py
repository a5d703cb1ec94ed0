"""Which fine-tunes a budget holds: the start recipes, deeper frozen ones, or shorter ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spine_ray.climb.known import Known
from spine_ray.climb.runner import Runner
from spine_ray.ladder.budget import SAFE, Budget, least_budget, longest_within
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import belongs, frozen_first, with_epochs
from spine_ray.space.schema import Space, TierSpace

LEAST_STEPS = 50
"""Steps of a fold below which a fine-tune is not worth its time beside the probe from which it starts (docs/log.md)."""

_NEARLY = 0.98
"""Of the time that is left, what a shortened trial is made to fill: a little passes before it begins."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the start recipes of all tiers are trained."""

    freeze: float
    """Share of the depth that is frozen."""
    epochs: int
    """Of each fold; 0 where none fits."""
    seconds: float
    """What the cheapest of the first tier would take with all of its epochs and its fit on all rows, s."""
    whole: int
    """All of its epochs."""


@dataclass(frozen=True, slots=True)
class Affordable:
    """Fits the fine-tunes of a space into what is left of a budget.

    Args:
        known: Rows, trials and costs.
        runner: Measures what is not known.
        space: As its file has it.
        budget: The wall time.
        has_answer: Whether a probe was completed: without one even a single epoch is worth its time.
    """

    known: Known
    runner: Runner
    space: Space
    budget: Budget
    has_answer: bool

    def shaped(self) -> Space:
        """Return the space; where its first tier's cheapest start does not fit, with more frozen or fewer epochs.

        Everything is trained alike, so that comparisons stay comparisons of backbones.

        Raises:
            ValueError: If there is no answer yet, and the budget does not hold one epoch of each fold; with the least
                budget that would do.
        """
        ends, first = self._ends(), self.space.tiers[0]
        if ends is None or not first.trained_freezes:
            return self.space
        if begun := self._interrupted():
            return self._with(begun)
        listed = self._measured(first)
        if listed is None or listed.epochs == listed.whole:  # nothing could be measured, or it fits
            return self.space
        best = self._deeper(listed)
        if not best.epochs and not self.has_answer:
            raise self._too_short(best.seconds / best.whole)
        if self.has_answer and best.epochs < self.epochs_of(first, LEAST_STEPS):
            return self.space  # of which nothing is begun then
        changes = [f"for {best.epochs} instead of {best.whole} epochs"] if best.epochs < best.whole else []
        if best.freeze != listed.freeze:
            changes.insert(0, f"with {best.freeze:.0%} of the depth frozen")
        self.runner.say(
            f"WARNING: the cheapest start recipe needs about {listed.seconds:.0f} s, and the budget has "
            f"{ends - self.runner.now():.0f} s left for training: everything trains {' '.join(changes)}"
        )
        return self._with(best)

    def holds(self, steps: int) -> bool:
        """Say whether so many steps of each fold of the first tier's cheapest fine-tune end in time, by what is known.

        Args:
            steps: At most those of the start recipe are asked for.
        """
        ends, first = self._ends(), self.space.tiers[0]
        if ends is None:
            return True
        shapes = [self._shape(frozen_first(first, freeze)) for freeze in first.trained_freezes]
        known = [shape for shape in shapes if shape is not None]
        return not known or any(shape.epochs >= self.epochs_of(first, steps) for shape in known)

    def epochs_of(self, tier: TierSpace, steps: int) -> int:
        """Return the epochs of so many steps of a fold, no more than those of a tier's start recipes."""
        recipe = self.known.starts(tier)[0].training
        rows = len(self.known.samples.dev) * (self.known.samples.num_folds - 1) // self.known.samples.num_folds
        return min(recipe.epochs, math.ceil(steps / max(1, rows // recipe.batch_size)))

    def _ends(self) -> float | None:
        return self.budget.keeping(self.known.reserve(self.runner.workers)).training_ends

    def _deeper(self, listed: Shape) -> Shape:
        """Return the first shape with more of the depth frozen that is worth it, or the listed one."""
        first = self.space.tiers[0]
        for freeze in first.trained_freezes[1:]:
            tier = frozen_first(first, freeze)
            guess = self._shape(tier)
            if guess is not None and self._is_worth_freezing(guess, listed):
                measured = self._measured(tier)
                if measured is not None and self._is_worth_freezing(measured, listed):
                    return measured
        return listed

    def _is_worth_freezing(self, deeper: Shape, listed: Shape) -> bool:
        """Say whether more epochs are worth more than what they leave of the depth to train.

        They are where their number times the share of the depth that is trained is no smaller; measured on real
        pictures, see docs/log.md.
        """
        least = self.epochs_of(self.space.tiers[0], LEAST_STEPS)
        if listed.epochs < least <= deeper.epochs:
            return True
        return deeper.epochs * (1.0 - deeper.freeze) >= listed.epochs * (1.0 - listed.freeze)

    def _measured(self, tier: TierSpace) -> Shape | None:
        """Measure the start recipes that the budget could hold, and return their shape."""
        ends = self._ends()
        left = None if ends is None else ends - self.runner.now()
        self.runner.measure(self.known.worth_measuring(self.known.starts(tier), left))
        return self._shape(tier)

    def _shape(self, tier: TierSpace) -> Shape | None:
        """Return how many epochs of a tier's start recipes fit; None where nothing tells what they take.

        So many that no worker is idle, where that costs the cheapest at most half of its epochs.
        """
        ends = self._ends()
        predicted = {config: self._seconds(config) for config in self.known.starts(tier)}
        seconds = {config: value for config, value in predicted.items() if value is not None}
        if ends is None or not seconds:
            return None
        ordered, left = sorted(seconds, key=seconds.__getitem__), ends - self.runner.now()
        cheapest = ordered[0]
        whole, freeze = cheapest.training.epochs, cheapest.freeze
        if seconds[cheapest] <= left:
            return Shape(freeze, whole, seconds[cheapest], whole)
        room = left * (_NEARLY if self.has_answer else SAFE)
        epochs = self._epochs_within(cheapest, room)
        of_last = self._epochs_within(ordered[min(self.runner.workers, len(ordered)) - 1], room)
        return Shape(freeze, of_last if 2 * of_last >= epochs else epochs, seconds[cheapest], whole)

    def _epochs_within(self, config: TrialConfig, room: float) -> int:
        """Return how many epochs of a fine-tune end within some seconds, all of its own at most."""
        recipe = config.training
        lengths = (replace(config, recipe=replace(recipe, epochs=epochs)) for epochs in range(1, recipe.epochs + 1))
        return longest_within([self._seconds(length) for length in lengths], room)

    def _seconds(self, config: TrialConfig) -> float | None:
        """Return the predicted time of a fine-tune and its fit on all rows, s; None where nothing tells of it."""
        seconds = self.known.forecast().seconds(config)
        return None if seconds is None else seconds * self.known.refit_factor

    def _with(self, shape: Shape) -> Space:
        tiers = (
            frozen_first(tier, shape.freeze) if shape.freeze in tier.trained_freezes else tier
            for tier in self.space.tiers
        )
        return replace(self.space, tiers=tuple(with_epochs(tier, shape.epochs) for tier in tiers))

    def _interrupted(self) -> Shape | None:
        """Return the shape of fine-tunes that were begun and not ended, where these have fewer epochs than their tier.

        Its freeze depth is that of the start recipes that were trained with so many epochs.
        """
        trials = [trial for trial in self.known.present.values() if not trial.config.is_probe]
        for trial in trials:
            epochs = trial.config.training.epochs
            if trial.ended is None and self._is_shorter(trial.config):
                alike = [each.config for each in trials if each.config.training.epochs == epochs]
                starts = [each.config for each in trials if each.started.is_start and each.config in alike]
                return Shape((starts or alike)[0].freeze, epochs, 0.0, epochs)
        return None

    def _is_shorter(self, config: TrialConfig) -> bool:
        """Say whether a fine-tune would be one of the space's if its tier trained for fewer epochs."""
        kind, epochs = self.known.prepared.weights.kind, config.training.epochs
        others: Sequence[TierSpace] = [tier for tier in self.space.tiers if not belongs(tier, kind, config)]
        return any(belongs(with_epochs(tier, epochs), kind, config) for tier in others)

    def _too_short(self, needed: float) -> ValueError:
        """Return the refusal of a budget that does not hold a training time, s, that has to be."""
        spent = self.runner.now() - self.budget.began
        reserve = self.known.reserve(self.runner.workers)
        least = least_budget(spent + needed / SAFE + reserve)
        return ValueError(
            f"--budget {self.budget.seconds:.0f}s is too short for one epoch on each fold with its answer: the least "
            f"that would do is {least:.0f}s"
        )
