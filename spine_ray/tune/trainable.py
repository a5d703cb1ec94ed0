"""A trial as Ray Tune runs it: a thin process that passes every step on to a warm worker."""

from typing import Any

import ray
from ray import tune

from spine_ray.tune.order import WorkOrder


class TrialTrainable(tune.Trainable):
    """Asks the worker that the trial was given for one epoch a step. Loads nothing heavy, so a tier starts at once."""

    def setup(self, config: dict[str, Any], order: WorkOrder, crew: tuple[Any, ...]) -> None:  # type: ignore[override]
        """Store what is asked."""
        self._given, self._order, self._crew, self._has_begun = config, order, crew, False

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing here may fail, because ray does not try again."""
        self._given, self._has_begun = new_config, False
        return True

    def step(self) -> dict[str, Any]:
        """Have one epoch of one fold trained."""
        given = {name: self._given[name] for name in ("trial", "trial_id", "is_control")}
        worker = self._crew[self._given["worker"]]
        if not self._has_begun:
            ray.get(worker.do.remote("begin", self._order, given))
            self._has_begun = True
        # A worker that dies takes the trial's state along, so an epoch is not simply asked for again.
        asked = worker.do.options(max_task_retries=0).remote("next_epoch", self._order, given)
        record: dict[str, Any] = ray.get(asked)
        return {**record, "done": record["is_last"]}
