"""The stopping rule as a scheduler of Ray Tune."""

from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from spine_ray.sampling.stopping import StoppingRule
from spine_ray.workers.trial_steps import StepReport, TrialRequest


class ExactAsha(FIFOScheduler):
    """Stops losers at the rungs, and everything at the first epoch's end after the deadline.

    Args:
        rule: Judges every epoch.
    """

    def __init__(self, rule: StoppingRule) -> None:
        """Stop nothing yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.reasons: dict[str, str] = {}
        """Why a trial was stopped, by trial id."""
        self._rule = rule

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        """Let the trial go on or stop it."""
        report: StepReport = result["report"]
        request: TrialRequest = trial.config["request"]
        if report.is_last or report.done is None:
            return str(TrialScheduler.CONTINUE)
        if request.is_control:
            return str(TrialScheduler.STOP if self._rule.is_over else TrialScheduler.CONTINUE)
        reason = self._rule.why_stop(request.started, report.done.epoch)
        if reason is None:
            return str(TrialScheduler.CONTINUE)
        self.reasons[request.trial_id] = reason
        return str(TrialScheduler.STOP)
