"""All that decides how a tier runs, whoever runs it: what is tried first, what is known, what is admitted."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from spine_ray.ladder.rungs import Rungs
from spine_ray.sampling.queue import Outcome, SearchDomain, Suggester, SuggestFn, TrialQueue
from spine_ray.sampling.sampler import suggest
from spine_ray.sampling.stopping import StoppingRule
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import TrialStarted
from spine_ray.study.trials import Trial


@dataclass(frozen=True, kw_only=True, slots=True)
class TierPlan:
    """All that decides how a tier runs."""

    domain: SearchDomain
    starts: tuple[TrialConfig, ...]
    """Start recipes, cheapest first, or probes in the order in which they run."""
    first: tuple[TrialConfig, ...]
    """What is tried after them, before anything is suggested."""
    known: tuple[Trial, ...]
    """This tier's trials in the ledger."""
    most_trials: int
    folds: int
    reduction: int
    control: TrialConfig | None
    """The configuration to run with shuffled labels, or None."""
    deadline: float | None
    """Seconds since 1970 after which nothing trains; None for no limit."""
    admit: Callable[[TrialConfig, float], str | None]
    """Returns why a configuration cannot be tried at a time (seconds since 1970), or None."""
    effort: Callable[[TrialConfig], float]
    """Returns a configuration's training arithmetic, above 0; only ratios count."""
    hang_timeout: Callable[[TrialConfig], float]
    """Returns how long an epoch of a configuration may take before its worker is taken to hang, s."""
    describe: Callable[[TrialConfig, bool], TrialStarted]
    """Returns the ledger's record of a trial that starts; the flag says whether it is a start recipe."""
    suggest: SuggestFn = suggest
    """Suggests what is tried when nothing is waiting any more."""

    def queue(self, now: Callable[[], float]) -> TrialQueue:
        """Return what hands out the trials: interrupted ones, start recipes, those to try first, then suggestions.

        Args:
            now: Seconds since 1970, on the clock that the tier runs by.
        """
        outcomes: dict[str, Outcome] = {}
        interrupted = []
        for trial in self.known:
            if trial.status is None:
                interrupted.append(trial.config)
            else:
                step = trial.epochs[-1].step if trial.epochs else 0
                outcomes[trial.trial_id] = Outcome(trial.config, trial.status, step, trial.log_loss)
        known = set(outcomes) | {config.trial_id for config in interrupted}
        room = max(0, self.most_trials - len({*known, *(config.trial_id for config in self.starts)}))
        first = [config for config in self.first if config not in self.starts and config.trial_id not in known]
        waiting = interrupted + [config for config in self.starts if config.trial_id not in known] + first[:room]
        admit = self.admit
        suggester = Suggester(
            self.domain,
            waiting,
            outcomes,
            0 if self.is_of_probes else self.most_trials,
            lambda config: admit(config, now()),
            self.effort,
            self.suggest,
        )
        return TrialQueue(suggester, self.control)

    @property
    def is_of_probes(self) -> bool:
        """Whether probes are run: all of them are listed, so nothing is suggested in the place of a refused one."""
        return bool(self.starts) and all(config.is_probe for config in self.starts)

    @property
    def interrupted(self) -> dict[str, Trial]:
        """The trials that were begun and not ended, by id."""
        return {trial.trial_id: trial for trial in self.known if trial.status is None}

    def stopping_rule(self, now: Callable[[], float]) -> StoppingRule:
        """Return what stops trials at the rungs and at the deadline.

        Args:
            now: Seconds since 1970, on the clock that the tier runs by.
        """
        return StoppingRule(self.rungs(), self.deadline, now)

    def rungs(self) -> Rungs:
        """Return the rungs with what trials reached, interrupted ones too: those tell their last epoch once more."""
        epochs = next((config.training.epochs for config in self.starts if not config.is_probe), 1)
        rungs = Rungs(epochs, self.reduction)
        for trial in self.known:
            for epoch in trial.epochs:
                if epoch.step in rungs.milestones and epoch.fold >= 0 and math.isfinite(epoch.log_loss):
                    rungs.recorded.setdefault(epoch.step, {})[trial.trial_id] = (trial.started.family, epoch.log_loss)
        return rungs
