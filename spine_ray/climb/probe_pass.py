"""The first pass of a climb: the probes of every tier, and whether the first of them are sound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spine_ray.climb.decisions import Question
from spine_ray.climb.known import Known
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.runner import Runner
from spine_ray.ladder.budget import Budget, EndsInTime, order_starts
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.schema import Space, TierSpace

SAMPLE_ROWS = 4000
"""Rows on which the probes of a tier are compared beforehand, where all of them would take long."""
LONG_SHARE = 1 / 3
"""Of the time left for training, what a tier's probes may take in whatever order."""


@dataclass(frozen=True, slots=True)
class ProbePass:
    """The probes of one space within a budget.

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
        """Run the probes, tier by tier, as long as they leave time for an answer; ask whether the first are sound.

        Raises:
            StoppedByGate: If the first gate finds that nothing sound was learnt.
        """
        for index, tier in enumerate(self.space.tiers):
            if index and tier.gate == "never":
                return
            if self.known.probes(tier):
                self._run_probes(index, tier)
            if index == 0 and len(self.space.tiers) > 1 and self.known.probes_of_tier(tier):
                self._ask_sound()

    def _run_probes(self, index: int, tier: TierSpace) -> None:
        probes = self._ordered_probes(tier)
        needs_control = index == 0 and len(self.space.tiers) > 1 and not self.runner.has_control
        known = self.known.probes_of_tier(tier)
        ended = {trial.trial_id for trial in known if trial.ended is not None}
        if not needs_control and all(probe.trial_id in ended for probe in probes):
            return
        plan = TierPlan(
            domain=self.known.domain(tier),
            starts=probes,
            first=(),
            known=known,
            most_trials=len({*(probe.trial_id for probe in probes), *(trial.trial_id for trial in known)}),
            folds=self.known.samples.num_folds,
            reduction=1,
            control=probes[0] if needs_control else None,
            deadline=None,  # a probe is one step: it is not begun where it would not end in time
            admit=self._probe_refusal,
            hang_timeout=self.known.hang_timeout,
            effort=self.known.effort,
            describe=self.known.describe(tier.name),
        )
        self.runner.run(plan, f"{tier.question} (probes)".lstrip())

    def _ordered_probes(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        """Return a tier's probes in the order in which they run.

        Where all of them take long, those come first that do best on a sample of the rows; the others as
        `_listed_probes` has them.
        """
        listed = self._listed_probes(tier)
        sampled = self._worth_sampling(listed)
        if not sampled:
            return listed
        self.runner.say(
            f"the probes of tier {tier.name} take long: {len(sampled)} of {len(listed)} are compared on "
            f"{SAMPLE_ROWS} pictures, and the best run first"
        )
        losses = self.runner.sample_probes(sampled, SAMPLE_ROWS)
        return tuple(sorted(listed, key=lambda probe: losses.get(probe.trial_id, math.inf)))

    def _worth_sampling(self, listed: Sequence[TrialConfig]) -> list[TrialConfig]:
        """Return the probes to compare on a sample, as far as that leaves most of the time; none if all take short."""
        ends, rows = self.budget.training_ends, len(self.known.samples.dev)
        if ends is None or rows <= SAMPLE_ROWS:
            return []
        waiting = [probe for probe in listed if probe.trial_id not in self.known.present]
        seconds = [self.known.predicted_seconds(probe) or 0.0 for probe in waiting]
        room = LONG_SHARE * self.runner.workers * (ends - self.runner.now())
        if sum(seconds) <= room:
            return []
        # Sampled features are the beginning of a probe's own: what is spent here is not spent again if it runs.
        spent = np.cumsum(seconds) * SAMPLE_ROWS / rows
        return [probe for probe, until in zip(waiting, spent, strict=True) if until <= room]

    def _listed_probes(self, tier: TierSpace) -> tuple[TrialConfig, ...]:
        """Return a tier's probes: one of each family at the smallest resolution, the other backbones, then other sizes.

        Within each of these the cheapest by arithmetic comes first.
        """
        known = self.known
        probes = known.probes(tier)
        macs = {probe.trial_id: known.macs(probe) for probe in probes}
        ordered: list[TrialConfig] = []
        for resolution in dict.fromkeys(probe.resolution for probe in probes):
            of_size = [probe for probe in probes if probe.resolution == resolution]
            ordered += order_starts(of_size, known.prepared.families, {}, macs)
        return tuple(ordered)

    def _probe_refusal(self, config: TrialConfig, now: float) -> str | None:
        """Return why a probe cannot begin: it would end too late. The first of all may always try."""
        budget = self.budget.keeping(self.known.reserve(self.runner.workers))
        return EndsInTime(budget).refusal(config, self.known.seconds_left(config), now)

    def _ask_sound(self) -> None:
        question = Question(
            space=self.space, place=1, may_repeat=False, fits_budget=True, has_budget=self.budget.seconds is not None
        )
        decision = self.runner.decide(question)
        if decision.verdict == "stop" and self.space.tiers[1].gate != "never":  # that closes the next tier alone
            raise StoppedByGate(decision.reason)
