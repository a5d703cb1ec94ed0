"""The climb: tier after tier, a gate between two, all of it with its evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spine_ray.climb.decisions import Question
from spine_ray.climb.known import Known
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.runner import Runner
from spine_ray.ladder.budget import Admission, Budget, Leftover, held_back, order_starts
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import Space, TierSpace
from spine_ray.tune.suggester import Lesson, SearchDomain
from spine_ray.tune.tier_plan import TierPlan


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

    def run(self) -> None:
        """Run the space's tiers.

        Raises:
            StoppedByGate: If the first gate finds that nothing sound was learnt.
        """
        tiers = self.space.tiers
        self.runner.check(sorted(self.known.starts(tiers[0]), key=self.known.macs))
        if self.budget.seconds is not None:  # what a tier may spend depends on what the later ones need
            self.runner.measure([each for tier in tiers for each in self.known.starts(tier)])
        opened = [tiers[0]]
        self._run(0, tiers[0])
        for place in range(1, len(tiers)):
            tier = self._pass_gate(place)
            if tier is None:
                break
            self._run(place, tier)
            opened.append(tier)
        if self.budget.seconds is not None:
            self._spend_rest(opened)

    def _spend_rest(self, opened: Sequence[TierSpace]) -> None:
        """Give the tiers that were opened, from the first, the trials that their share of the budget did not hold."""
        for place, tier in enumerate(opened):
            if len(self.known.of_tier(tier)) < tier.trials and self._fits(tier):
                self.runner.say(f"time is left over: tier {tier.name} may try more")
                self._train(place, tier, Leftover(self.budget))

    def _pass_gate(self, place: int) -> TierSpace | None:
        """Decide what follows a tier: the next, perhaps frozen first, after one more helping of this one, or None."""
        tier = self.space.tiers[place]
        decision = self.runner.decide(self._question(place, may_repeat=True))
        if decision.verdict == "again":
            below = self.space.tiers[place - 1]
            self._run(place - 1, replace(below, trials=2 * below.trials))
            decision = self.runner.decide(self._question(place, may_repeat=False))
        if decision.verdict == "stop":
            if decision.gate == "sound":
                raise StoppedByGate(decision.reason)
            return None
        if decision.verdict == "climb_frozen_only":
            return replace(tier, freezes=tuple(freeze for freeze in tier.freezes if freeze > 0))
        if decision.verdict == "climb_frozen_first":
            return replace(tier, freezes=tuple(sorted(tier.freezes, reverse=True)))
        return tier

    def _question(self, place: int, *, may_repeat: bool) -> Question:
        return Question(
            space=self.space,
            place=place,
            may_repeat=may_repeat,
            fits_budget=self._fits(self.space.tiers[place]),
            has_budget=self.budget.seconds is not None,
        )

    def _run(self, place: int, tier: TierSpace) -> None:
        """Run one tier within its share of the budget."""
        starts = self._ordered_starts(tier)
        admission = Admission(
            budget=self.budget,
            tier=place,
            tiers=len(self.space.tiers),
            reserve=self._reserve(place),
            starts=frozenset(config.trial_id for config in starts),
            first=starts[0].trial_id,
        )
        self._train(place, tier, admission)

    def _train(self, place: int, tier: TierSpace, admission: Admission | Leftover) -> None:
        """Run one tier to its end."""
        known, starts = self.known, self._ordered_starts(tier)
        needs_control = place == 0 and len(self.space.tiers) > 1 and not self.runner.has_control
        plan = TierPlan(
            domain=SearchDomain(
                tier=tier,
                weights=known.prepared.weights.kind,
                buildable=frozenset(pair for pair in known.prepared.facts if pair[0] in tier.backbones),
                seed=known.request.seed,
                favoured=self.runner.favoured(starts),
                lessons=self._lessons(place),
            ),
            starts=starts,
            first=tuple(trial.config for trial in known.earlier_of_tier(tier)),
            known=known.of_tier(tier),
            most_trials=max(tier.trials, len(starts)),
            folds=known.samples.num_folds,
            reduction=self.space.reduction,
            control=starts[0] if needs_control else None,
            deadline=self.budget.training_ends,
            admit=lambda config, now: admission.refusal(config, known.seconds_left(config), now),
            patience=known.patience,
            effort=known.effort,
            describe=known.describe(tier.name),
        )
        self.runner.run(plan, tier.question)

    def _lessons(self, place: int) -> tuple[Lesson, ...]:
        """Return what every completed trial of the earlier tiers gained over its backbone's start recipe."""
        lessons = []
        for tier in self.space.tiers[:place]:
            completed = [
                trial for trial in self.known.of_tier(tier) if trial.is_completed and trial.log_loss is not None
            ]
            starts = {trial.config.backbone: trial.log_loss or 0.0 for trial in completed if trial.started.is_start}
            for trial in completed:
                if trial.config.backbone in starts:
                    change = (trial.log_loss or 0.0) - starts[trial.config.backbone]
                    lessons.append(Lesson(trial.config, change))
        return tuple(lessons)

    def _ordered_starts(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        unordered = self.known.starts(tier)
        self.runner.measure(unordered)
        forecast = self.known.forecast()
        seconds = {config.trial_id: predicted for config in unordered if (predicted := forecast.seconds(config))}
        macs = {config.trial_id: self.known.macs(config) for config in unordered}
        return order_starts(unordered, self.known.prepared.families, seconds, macs)

    def _cheapest(self, tier: TierSpace) -> float:
        """Return the predicted seconds of a tier's cheapest start recipe; 0 where nothing was measured."""
        forecast = self.known.forecast()
        predicted = (forecast.seconds(config) for config in self.known.starts(tier))
        return min((seconds for seconds in predicted if seconds is not None), default=0.0)

    def _reserve(self, place: int) -> float:
        ends = self.budget.training_ends
        if ends is None:
            return 0.0
        first, *later = (self._cheapest(tier) for tier in self.space.tiers[place:])
        return held_back(later, ends - self.runner.now() - first)

    def _fits(self, tier: TierSpace) -> bool:
        ends = self.budget.training_ends
        return ends is None or self.runner.now() + self._cheapest(tier) <= ends
