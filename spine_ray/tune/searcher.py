"""What ray asks for the next trial: it passes on what the queue hands out, and how each trial ended."""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from ray.tune.search import Searcher

from spine_ray.space.config import TrialConfig
from spine_ray.tune.suggester import Outcome, Queue


class TierSearcher(Searcher):
    """Hands the suggester's configurations to Ray Tune and tells it what became of them.

    Args:
        queue: Chooses.
        describe: Returns what the worker must know beside the configuration.
        workers: How many there are to give trials to.
    """

    def __init__(
        self,
        queue: Queue,
        describe: Callable[[TrialConfig], dict[str, Any]],
        *,
        workers: int = 1,
    ) -> None:
        """Start with nothing handed out."""
        super().__init__(metric="log_loss", mode="min")
        self._queue, self._describe = queue, describe
        self._handed: dict[str, TrialConfig] = {}
        self._busy: dict[str, int] = {}
        self._workers = workers

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of ray's snapshots: they are never read."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial's configuration, or that there is none."""
        handed = self._queue.next_trial()
        if handed is None:
            return cast("dict[str, Any]", Searcher.FINISHED)
        if not handed.is_control:
            self._handed[trial_id] = handed.config
        return self._assigned(trial_id, {**self._describe(handed.config), "is_control": handed.is_control})

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the suggester the truth: completed, stopped early or failed."""
        self._busy.pop(trial_id, None)
        config = self._handed.get(trial_id)
        if config is None:
            return
        if error or not result or "failure" in result:
            self._queue.suggester.tell(Outcome(config, "failed"))
        else:
            state = "completed" if result["is_last"] else "stopped"
            self._queue.suggester.tell(Outcome(config, state, result["step"], result["log_loss"]))

    def _assigned(self, trial_id: str, given: dict[str, Any]) -> dict[str, Any]:
        """Add which worker trains the trial: the one with the fewest, which has none while ray keeps to its number."""
        taken = Counter(self._busy.values())
        self._busy[trial_id] = min(range(self._workers), key=taken.__getitem__)
        return {**given, "worker": self._busy[trial_id]}

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is what a search is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is what a search is resumed from."""
