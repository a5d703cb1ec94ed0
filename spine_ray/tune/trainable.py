"""A trial as Ray Tune runs it: a thin process that passes every step on to a warm worker."""

from typing import Any

import ray
from ray import tune

from spine_ray.tune.order import WorkOrder


class TrialTrainable(tune.Trainable):
    """Asks the worker that the trial was given for one epoch a step. Loads nothing heavy, so a tier starts at once."""

    def setup(self, config: dict[str, Any], order: WorkOrder, crew: tuple[Any, ...]) -> None:  # type: ignore[override]
        """Store what is asked."""
        self._given, self._order, self._crew = config, order, crew

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing here may fail, because ray does not try again."""
        self._given = new_config
        return True

    def step(self) -> dict[str, Any]:
        """Have one epoch of one fold trained."""
        given = {name: self._given[name] for name in ("trial", "trial_id", "is_control", "attempt")}
        record: dict[str, Any] = ray.get(self._crew[self._given["worker"]].next_epoch.remote(self._order, given))
        return {**record, "done": record["is_last"]}
