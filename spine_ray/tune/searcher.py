"""The queue as a searcher of Ray Tune: passes on its trials, and how each trial ended."""

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from ray.tune.search import Searcher

from spine_ray.sampling.queue import Outcome, QueuedTrial, TrialQueue
from spine_ray.workers.trial_log import outcome_of
from spine_ray.workers.trial_steps import TrialRequest


class TierSearcher(Searcher):
    """Hands the queue's trials to Ray Tune and tells the queue what became of them.

    Args:
        queue: Chooses.
        describe: Returns what a worker is asked for.
        workers: How many there are to give trials to.
    """

    def __init__(self, queue: TrialQueue, describe: Callable[[QueuedTrial], TrialRequest], *, workers: int) -> None:
        """Start with nothing handed out."""
        super().__init__(metric="log_loss", mode="min")
        self._queue, self._describe = queue, describe
        self._requests: dict[str, TrialRequest] = {}
        self._busy: dict[str, int] = {}
        self._workers = workers

    def __getstate__(self) -> dict[str, Any]:
        """Leave everything out of ray's snapshots: they are never read."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial, or that there is none."""
        queued = self._queue.next_trial()
        if queued is None:
            return cast("dict[str, Any]", Searcher.FINISHED)
        self._requests[trial_id] = self._describe(queued)
        return {"request": self._requests[trial_id], "worker": self._assign(trial_id)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the queue the truth: completed, stopped early or failed."""
        self._busy.pop(trial_id, None)
        request = self._requests.get(trial_id)
        if request is None or request.is_control:
            return
        config = request.started.config
        outcome = Outcome(config, "failed") if error or not result else outcome_of(config, result["report"])
        self._queue.suggester.tell(outcome)

    def _assign(self, trial_id: str) -> int:
        """Return which worker trains the trial: the one with the fewest, and so an idle one."""
        taken = Counter(self._busy.values())
        self._busy[trial_id] = min(range(self._workers), key=taken.__getitem__)
        return self._busy[trial_id]

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the ledger is what a search is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the ledger is what a search is resumed from."""
