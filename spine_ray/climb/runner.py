"""What carries a climb out: the crew on the study itself, or a rehearsal that trains nothing."""

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from spine_ray.climb.decisions import Proof, Question, decide
from spine_ray.climb.desk import Desk
from spine_ray.climb.seating import seat
from spine_ray.climb.training import check_before_training
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ladder.evidence import gather
from spine_ray.ladder.gates import GateDecision, ShuffledControl, prior_losses
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.control import read_control
from spine_ray.study.paths import replace_json
from spine_ray.workers.tasks import sample_probes


class Runner(Protocol):
    """What a climb asks of the world."""

    def now(self) -> float:
        """Return the time in seconds since 1970."""

    def say(self, line: str) -> None:
        """Tell whoever watches."""

    def check(self, configs: Sequence[TrialConfig]) -> None:
        """See, before anything trains, whether the first backbone that runs can learn from the rows at all."""

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Measure what configurations cost, where that is not known yet."""

    def sample_probes(self, configs: Sequence[TrialConfig], count: int) -> Mapping[str, float]:
        """Return log-losses of probes on so many rows of the data, by trial id; what nothing is known of is missing."""

    @property
    def workers(self) -> int:
        """How many trials run at once."""

    @property
    def has_control(self) -> bool:
        """Whether the shuffled-label control was run."""

    def run(self, plan: TierPlan, question: str) -> None:
        """Run a tier to its end."""

    def decide(self, question: Question) -> GateDecision:
        """Decide at a gate, and keep the decision."""


class StudyRunner:
    """Carries a climb out on the open study.

    Args:
        desk: The open study.
    """

    def __init__(self, desk: Desk) -> None:
        """Know nothing of the views yet."""
        self._desk = desk

    @property
    def workers(self) -> int:
        """How many trials run at once."""
        return self._desk.pool.layout.count

    @property
    def has_control(self) -> bool:
        """Whether the shuffled-label control was run on these rows."""
        return read_control(self._desk.paths) is not None

    def now(self) -> float:
        """Return the time in seconds since 1970."""
        return time.time()

    def say(self, line: str) -> None:
        """Show a line."""
        self._desk.progress.say(line)

    def check(self, configs: Sequence[TrialConfig]) -> None:
        """Look at what augmentation does, and whether one batch can be learnt by heart.

        Raises:
            StoppedByGate: If augmentation destroys the classes, and nobody said `--force`.
        """
        self._desk.views = check_before_training(self._desk, configs)

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Measure on the workers what was not measured before."""
        self._desk.measure(configs)

    def sample_probes(self, configs: Sequence[TrialConfig], count: int) -> Mapping[str, float]:
        """Probe on a random sample of the dev rows; the features that are computed for it are kept."""
        return sample_probes(configs, count, self._desk.spec, self._desk.pool)

    def run(self, plan: TierPlan, question: str) -> None:
        """Train a tier's trials on the pool; show what was not admitted of its start recipes."""
        desk, tier = self._desk, plan.domain.tier.name
        if not plan.is_of_probes:
            seat(desk, plan)
        desk.progress.tier_started(tier, question, plan.most_trials)
        for refusal in desk.run(plan):
            if refusal.config in plan.starts:
                self.say(f"  not tried: {refusal.config.trial_id}: {refusal.reason}")
        desk.progress.tier_ended(tier)
        desk.write_tables()

    def decide(self, question: Question) -> GateDecision:
        """Decide on the OOF logits that are on disk."""
        desk = self._desk
        evidence = gather(desk.paths, desk.samples, desk.present)
        decision = decide(desk, Proof(evidence=evidence, control=self._control(), views=desk.views), question)
        desk.decisions.append(decision)
        replace_json(desk.paths.gates, [each.to_dict() for each in desk.decisions])
        self.say(f"gate {decision.gate} after {decision.after}: {decision.verdict}: {decision.reason}")
        for finding in decision.findings:
            self.say(f"WARNING: {finding}")
        return decision

    def _control(self) -> ShuffledControl | None:
        found = read_control(self._desk.paths)
        if found is None:
            return None
        labels, logits = found
        return ShuffledControl(losses=row_losses(log_probs(logits), labels), prior_losses=prior_losses(labels))
