"""The rungs as a scheduler of Ray Tune."""

import math
import time
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from spine_ray.ladder.rungs import Contender, Rungs


class ExactAsha(FIFOScheduler):
    """Stops losers at the rungs, and everything at the first epoch's end after the deadline.

    Args:
        rungs: Where losses are kept and judged.
        deadline: Seconds since 1970; None for no limit.
    """

    def __init__(self, rungs: Rungs, deadline: float | None) -> None:
        """Start with the losses that the rungs already hold."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.reasons: dict[str, str] = {}
        """Why a trial was stopped, by trial id."""
        self._rungs, self._deadline = rungs, deadline

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Let the trial go on or stop it."""
        if result.get("done"):
            return str(TrialScheduler.CONTINUE)
        is_over = self._deadline is not None and time.time() > self._deadline
        if trial.config["is_control"]:
            return str(TrialScheduler.STOP if is_over else TrialScheduler.CONTINUE)
        trial_id = trial.config["trial_id"]
        reason = self._why_stop(trial, result)
        if reason is None and is_over:
            reason = "the budget is spent"
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self.reasons[trial_id] = reason
        return str(TrialScheduler.STOP)

    def _why_stop(self, trial: RayTrial, result: dict[str, Any]) -> str | None:
        if result["fold"] < 0:  # all folds at once: no epochs to compare, and hardly any time to save
            return None if math.isfinite(result["log_loss"]) else f"the loss is {result['log_loss']}"
        contender = Contender(trial.config["trial_id"], trial.config["family"], trial.config["is_start"])
        return self._rungs.judge(contender, result["step"], result["log_loss"])
