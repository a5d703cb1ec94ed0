"""Early stopping of trials, whoever runs them: at the rungs, at a loss that is no number, at the deadline."""

import math
from collections.abc import Callable

from spine_ray.ladder.rungs import Contender, Rungs
from spine_ray.study.events import EpochDone, TrialStarted


class StoppingRule:
    """Judges every epoch of a tier's trials.

    Args:
        rungs: Where losses are kept and compared.
        deadline: Seconds since 1970; None for no limit.
        now: Returns seconds since 1970.
    """

    def __init__(self, rungs: Rungs, deadline: float | None, now: Callable[[], float]) -> None:
        """Start with the losses that the rungs already hold."""
        self._rungs, self._deadline, self._now = rungs, deadline, now

    @property
    def is_over(self) -> bool:
        """True after the deadline."""
        return self._deadline is not None and self._now() > self._deadline

    def why_stop(self, trial: TrialStarted, epoch: EpochDone) -> str | None:
        """Return why a trial ends after an epoch that is not its last, or None where it goes on.

        Args:
            trial: Whose epoch it is; not the shuffled-label control, whose losses are compared with nothing.
            epoch: The one that has just ended.
        """
        reason = self._why_stop(trial, epoch)
        return "the budget is spent" if reason is None and self.is_over else reason

    def _why_stop(self, trial: TrialStarted, epoch: EpochDone) -> str | None:
        if epoch.fold < 0:  # all folds at once: no epochs to compare, and hardly any time to save
            return None if math.isfinite(epoch.log_loss) else f"the loss is {epoch.log_loss}"
        contender = Contender(trial.trial_id, trial.family, trial.is_start)
        return self._rungs.judge(contender, epoch.step, epoch.log_loss)
