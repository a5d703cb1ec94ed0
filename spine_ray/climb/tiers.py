"""The climb: the probes of every tier first, then its fine-tunes, gates in between, all of it with its evidence."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spine_ray.climb.affordable import LEAST_STEPS, Affordable
from spine_ray.climb.decisions import Question
from spine_ray.climb.known import Known
from spine_ray.climb.probe_pass import ProbePass
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.runner import Runner
from spine_ray.ladder.budget import (
    Admission,
    Budget,
    EndsInTime,
    held_back,
    order_starts,
)
from spine_ray.sampling.queue import TransferHint
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import Space, TierSpace
from spine_ray.study.trials import Trial

Admit = Callable[[TrialConfig, float], str | None]
"""Returns why a configuration cannot begin at a time, seconds since 1970, or None."""


@dataclass(frozen=True, slots=True)
class Climb:
    """One space climbed within a budget.

    Args:
        known: What decides it; grows while it runs.
        runner: What carries it out.
        space: The tiers.
        budget: Its wall time.
    """

    known: Known
    runner: Runner
    space: Space
    budget: Budget

    def probe(self) -> None:
        """Run the probes, tier by tier, as long as they leave time for an answer; ask whether the first are sound.

        Raises:
            StoppedByGate: If the first gate finds that nothing sound was learnt.
        """
        ProbePass(self.known, self.runner, self.space, self.budget).run()

    def fine_tune(self) -> None:
        """Run the fine-tunes, tier by tier, a gate before each but the first; then spend what time is left over.

        Raises:
            StoppedByGate: If the first gate finds that nothing sound was learnt.
        """
        affordable = Affordable(self.known, self.runner, self.space, self.budget, self._has_answer)
        first = self.space.tiers[0]
        if not any(tier.trained_freezes for tier in self.space.tiers):
            return
        if self._has_answer and first.trained_freezes and not affordable.holds(LEAST_STEPS):
            return
        self.runner.check(sorted(self.known.starts(first), key=self.known.macs))
        replace(self, space=affordable.shaped())._climb()

    @property
    def _has_answer(self) -> bool:
        """Whether a probe of the first tier was made: without one even a trial of a single epoch is worth its time."""
        return bool(self.known.probes_of_tier(self.space.tiers[0]))

    def _budget(self) -> Budget:
        """Return the budget with what is to be kept of it by what is known now."""
        return self.budget.keeping(self.known.reserve(self.runner.workers))

    def _climb(self) -> None:
        """Run the fine-tunes of the tiers, a gate before each but the first."""
        tiers, since = self.space.tiers, self.runner.now()
        opened = [tiers[0]]
        self._run(0, tiers[0], since)
        for index in range(1, len(tiers)):
            tier = self._pass_gate(index, since)
            if tier is None:
                break
            self._run(index, tier, since)
            opened.append(tier)
        if self.budget.seconds is not None:
            self._spend_rest(opened)

    def _spend_rest(self, opened: Sequence[TierSpace]) -> None:
        """Give the tiers that were opened the trials that their share of the budget did not hold.

        The tier of the best trial comes first: there, another trial is likeliest to change the answer.
        """
        for tier in sorted(opened, key=self._best_log_loss):
            index = opened.index(tier)
            if len(self.known.fine_tunes_of_tier(tier)) < tier.trials and self._fits(tier):
                self.runner.say(f"time is left over: tier {tier.name} may try more")
                self._train(index, tier, self._ends_in_time)

    def _best_log_loss(self, tier: TierSpace) -> float:
        completed = (trial.log_loss for trial in self.known.of_tier(tier) if trial.is_completed)
        return min((loss for loss in completed if loss is not None), default=math.inf)

    def _pass_gate(self, index: int, since: float) -> TierSpace | None:
        """Decide what follows a tier: the next, perhaps frozen first, after one more round of this one, or None."""
        tier = self.space.tiers[index]
        if index == 1 and self.known.probes_of_tier(self.space.tiers[0]):  # `sound` was asked of the probes
            return None if tier.gate == "never" else tier
        decision = self.runner.decide(self._question(index, may_repeat=True))
        if decision.verdict == "again":
            below = self.space.tiers[index - 1]
            self._run(index - 1, replace(below, trials=2 * below.trials), since)
            decision = self.runner.decide(self._question(index, may_repeat=False))
        if decision.verdict == "stop":
            if decision.gate == "sound" and tier.gate != "never":
                raise StoppedByGate(decision.reason)
            return None
        frozen = tuple(freeze for freeze in tier.trained_freezes if freeze > 0)
        if decision.verdict == "climb_frozen_only" and frozen:
            return replace(tier, freezes=frozen)
        if decision.verdict == "climb_frozen_first":
            return replace(tier, freezes=tuple(sorted(tier.trained_freezes, reverse=True)))
        return tier

    def _question(self, index: int, *, may_repeat: bool) -> Question:
        return Question(
            space=self.space,
            place=index,
            may_repeat=may_repeat,
            fits_budget=self._fits(self.space.tiers[index]),
            has_budget=self.budget.seconds is not None,
        )

    def _run(self, index: int, tier: TierSpace, since: float) -> None:
        """Run the fine-tunes of one tier within its share of the budget."""
        starts = self._ordered_starts(tier)
        if not starts:
            return

        def admit(config: TrialConfig, now: float) -> str | None:
            admission = Admission(
                budget=self._budget(),
                since=since,
                tier=index,
                tiers=len(self.space.tiers),
                reserve=kept,
                starts=frozenset(config.trial_id for config in starts),
                first=starts[0].trial_id,
            )
            return self._refusal(admission, config, now)

        kept = self._reserve(index)
        self._train(index, tier, admit)

    def _train(self, index: int, tier: TierSpace, admit: Admit) -> None:
        """Run the fine-tunes of one tier to their end."""
        known, starts = self.known, self._ordered_starts(tier)
        if not starts:
            return
        has_control = self.runner.has_control or bool(known.probes_of_tier(tier))
        plan = TierPlan(
            domain=known.domain(tier, self.favoured(starts), self._hints(index)),
            starts=starts,
            first=tuple(trial.config for trial in known.earlier_of_tier(tier)),
            known=known.fine_tunes_of_tier(tier),
            most_trials=max(tier.trials, len(starts)),
            folds=known.samples.num_folds,
            reduction=self.space.reduction,
            control=starts[0] if index == 0 and len(self.space.tiers) > 1 and not has_control else None,
            deadline=self._budget().training_ends,
            admit=admit,
            hang_timeout=known.hang_timeout,
            effort=known.effort,
            describe=known.describe(tier.name),
        )
        self.runner.run(plan, tier.question)

    def favoured(self, starts: Sequence[TrialConfig]) -> tuple[str, ...]:
        """Return the backbones of start recipes by the log-loss of their best probe, best first; unprobed ones not."""
        best: dict[str, float] = {}
        for trial in self.known.present.values():
            if trial.config.is_probe and trial.is_completed and trial.log_loss is not None:
                backbone = trial.config.backbone
                best[backbone] = min(trial.log_loss, best.get(backbone, trial.log_loss))
        names = {start.backbone for start in starts}
        return tuple(sorted(names & best.keys(), key=lambda backbone: (best[backbone], backbone)))

    def _ends_in_time(self, config: TrialConfig, now: float) -> str | None:
        return self._refusal(EndsInTime(self._budget()), config, now)

    def _refusal(self, admission: Admission | EndsInTime, config: TrialConfig, now: float) -> str | None:
        known, seconds = self.known, self.known.seconds_left(config)
        is_known = known.is_measured(config.backbone) or config.backbone in known.unmeasurable
        if self.budget.seconds is not None and not is_known:
            return f"needs about {seconds or 0.0:.0f} s by its arithmetic, too long to be worth measuring"
        return admission.refusal(config, None if seconds is None else self.known.refit_factor * seconds, now)

    def _measure(self, tier: TierSpace) -> None:
        """Measure a tier's start recipes, in a budget those that it could hold."""
        ends = self._budget().training_ends
        left = None if ends is None else ends - self.runner.now()
        self.runner.measure(self.known.worth_measuring(self.known.starts(tier), left))

    def _hints(self, index: int) -> tuple[TransferHint, ...]:
        """Return what every completed fine-tune of the earlier tiers gained over its backbone's start recipe."""
        hints = []
        for tier in self.space.tiers[:index]:
            completed: list[Trial] = [
                trial
                for trial in self.known.fine_tunes_of_tier(tier)
                if trial.is_completed and trial.log_loss is not None
            ]
            starts = {trial.config.backbone: trial.log_loss or 0.0 for trial in completed if trial.started.is_start}
            for trial in completed:
                if trial.config.backbone in starts:
                    change = (trial.log_loss or 0.0) - starts[trial.config.backbone]
                    hints.append(TransferHint(trial.config, change))
        return tuple(hints)

    def _ordered_starts(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        unordered = self.known.starts(tier)
        self._measure(tier)
        forecast = self.known.forecast()
        seconds = {config.trial_id: predicted for config in unordered if (predicted := forecast.seconds(config))}
        macs = {config.trial_id: self.known.macs(config) for config in unordered}
        return order_starts(unordered, self.known.prepared.families, seconds, macs)

    def _cheapest(self, tier: TierSpace) -> float:
        """Return the predicted seconds of a tier's cheapest start recipe; 0 where nothing was measured."""
        forecast = self.known.forecast()
        predicted = (forecast.seconds(config) for config in self.known.starts(tier))
        return min((seconds for seconds in predicted if seconds is not None), default=0.0)

    def _reserve(self, index: int) -> float:
        ends = self._budget().training_ends
        if ends is None:
            return 0.0
        first, *later = (self._cheapest(tier) for tier in self.space.tiers[index:])
        return held_back(later, ends - self.runner.now() - first)

    def _fits(self, tier: TierSpace) -> bool:
        """Say whether a tier's cheapest start recipe ends in time."""
        ends = self._budget().training_ends
        return ends is None or self.runner.now() + self._cheapest(tier) <= ends
