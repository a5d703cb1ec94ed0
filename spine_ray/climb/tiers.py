"""The climb: tier after tier, a gate between two, all of it with its evidence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from spine_ray.climb.decisions import Question
from spine_ray.climb.known import Known
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.runner import Runner
from spine_ray.ladder.budget import Admission, Budget, Leftover, epochs_within, held_back, order_starts
from spine_ray.sampling.queue import SearchDomain, TransferHint
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import shortened
from spine_ray.space.schema import Space, TierSpace


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
        self.runner.check(sorted(self.known.starts(self.space.tiers[0]), key=self.known.macs))
        replace(self, space=self._affordable())._climb()

    def _affordable(self) -> Space:
        """Return the space; with fewer epochs for all, where the budget does not hold one trial of it."""
        ends, first = self.budget.training_ends, self.space.tiers[0]
        if ends is None:
            return self.space
        self._measure(first)
        forecast = self.known.forecast()
        predicted = {config: forecast.seconds(config) for config in self.known.starts(first)}
        seconds = {config: each for config, each in predicted.items() if each is not None}
        if not seconds:  # none of them could be measured
            return self.space
        cheapest, left = min(seconds, key=seconds.__getitem__), ends - self.runner.now()
        epochs = epochs_within(cheapest, seconds[cheapest], left)
        if epochs in (0, cheapest.recipe.epochs):
            return self.space
        self.runner.say(
            f"WARNING: the cheapest start recipe needs about {seconds[cheapest]:.0f} s, and the budget has "
            f"{left:.0f} s left for training: everything trains for {epochs} instead of {cheapest.recipe.epochs} epochs"
        )
        return replace(self.space, tiers=tuple(shortened(tier, epochs) for tier in self.space.tiers))

    def _climb(self) -> None:
        """Run the tiers, a gate before each but the first."""
        tiers = self.space.tiers
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
                hints=self._hints(place),
            ),
            starts=starts,
            first=tuple(trial.config for trial in known.earlier_of_tier(tier)),
            known=known.of_tier(tier),
            most_trials=max(tier.trials, len(starts)),
            folds=known.samples.num_folds,
            reduction=self.space.reduction,
            control=starts[0] if needs_control else None,
            deadline=self.budget.training_ends,
            admit=lambda config, now: self._refusal(admission, config, now),
            hang_timeout=known.hang_timeout,
            effort=known.effort,
            describe=known.describe(tier.name),
        )
        self.runner.run(plan, tier.question)

    def _refusal(self, admission: Admission | Leftover, config: TrialConfig, now: float) -> str | None:
        known, seconds = self.known, self.known.seconds_left(config)
        is_known = known.is_measured(config.backbone) or config.backbone in known.unmeasurable
        if self.budget.seconds is not None and not is_known:
            return f"needs about {seconds or 0.0:.0f} s by its arithmetic, too long to be worth measuring"
        return admission.refusal(config, seconds, now)

    def _measure(self, tier: TierSpace) -> None:
        """Measure a tier's start recipes, in a budget those that it could hold."""
        ends = self.budget.training_ends
        left = None if ends is None else ends - self.runner.now()
        self.runner.measure(self.known.worth_measuring(self.known.starts(tier), left))

    def _hints(self, place: int) -> tuple[TransferHint, ...]:
        """Return what every completed trial of the earlier tiers gained over its backbone's start recipe."""
        hints = []
        for tier in self.space.tiers[:place]:
            completed = [
                trial for trial in self.known.of_tier(tier) if trial.is_completed and trial.log_loss is not None
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

    def _reserve(self, place: int) -> float:
        ends = self.budget.training_ends
        if ends is None:
            return 0.0
        first, *later = (self._cheapest(tier) for tier in self.space.tiers[place:])
        return held_back(later, ends - self.runner.now() - first)

    def _fits(self, tier: TierSpace) -> bool:
        ends = self.budget.training_ends
        return ends is None or self.runner.now() + self._cheapest(tier) <= ends
