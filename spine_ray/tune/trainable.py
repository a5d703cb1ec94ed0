"""A trial as Ray Tune runs it: a thin process that passes every step on to a warm worker."""

import math
import time
from typing import Any

import ray
from ray import tune

from spine_ray.tune.failures import Attempts, WorkFailedError, failure_of
from spine_ray.tune.order import WorkOrder

_PAUSE_S = 2.0
"""Wait before a worker that was lost is asked again, times the failures so far."""
_RETURN_S = 1800.0
"""How long a worker whose machine is gone has to come back, on that machine or another, s."""


class TrialTrainable(tune.Trainable):
    """Asks the worker that the trial was given for one epoch a step. Loads nothing heavy, so a tier starts at once.

    A worker that dies or hangs is asked again when it is back: the trial goes on from its checkpoint.
    """

    def setup(self, config: dict[str, Any], order: WorkOrder, crew: tuple[Any, ...]) -> None:  # type: ignore[override]
        """Store what is asked."""
        self._order, self._crew = order, crew
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing here may fail, because ray does not try again."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Have one epoch of one fold trained.

        Returns:
            The epoch's record; or, where the trial is given up, `failure` with the reason.
        """
        while True:
            try:
                return self._next_epoch()
            except WorkFailedError as failure:
                reason = self._attempts.why_give_up(failure)
                if reason is not None:
                    return {"log_loss": math.nan, "is_last": False, "done": True, "failure": reason}
                self._has_begun, self._lost = False, failure.reason
                time.sleep(_PAUSE_S * len(self._attempts.failures))

    def _take(self, given: dict[str, Any]) -> None:
        self._attempts: Attempts = Attempts()
        self._given = given
        # The control has the trial id of a start recipe, of which the ledger may know more.
        self._tell_from = 1 if given["is_control"] else given["tell_from"]
        self._has_begun, self._lost = False, ""
        self._resumed: list[dict[str, Any]] = []

    def _next_epoch(self) -> dict[str, Any]:
        if not self._has_begun:
            self._await_worker()
            # Once more, because a worker that raised before leaves when it is asked again.
            begun = self._ask("begin", tries_again=1)
            self._note(begun["step"], begun["dropped"])
            self._has_begun = True
        # A worker that dies takes the trial's state along, so an epoch is not simply asked for again.
        record = self._ask("next_epoch", tries_again=0)
        self._tell_from = record["step"] + 1
        self._attempts = Attempts()
        resumed, self._resumed = self._resumed, []
        return {**record, "done": record["is_last"], "resumed": resumed}

    def _await_worker(self) -> None:
        """Wait until the worker is there: one whose machine is gone comes back where there is room for it.

        Raises:
            WorkFailedError: If it does not.
        """
        try:
            ready = self._crew[self._given["worker"]].__ray_ready__.options(max_task_retries=-1)
            ray.get(ready.remote(), timeout=_RETURN_S)
        except ray.exceptions.GetTimeoutError:
            reason = f"no machine had room for its worker for {_RETURN_S / 60:.0f} min"
            raise WorkFailedError(reason, "hopeless") from None
        except ray.exceptions.RayError as error:
            raise failure_of(error) from error

    def _note(self, step: int, dropped: str) -> None:
        """Note, for the ledger, that the trial goes on from a checkpoint or was begun anew, and why."""
        told = [self._lost or ("it was interrupted" if step or dropped else "")]
        told += [f"its checkpoint was dropped, {dropped}"] if dropped else []
        if reason := "; ".join(filter(None, told)):
            self._resumed.append({"step": step, "reason": reason, "time": time.time()})
        self._lost = ""

    def _ask(self, work: str, tries_again: int) -> dict[str, Any]:
        """Have the worker do something.

        Raises:
            WorkFailedError: If it could not, or took far longer than such work does.
        """
        worker, patience = self._crew[self._given["worker"]], self._given["patience"]
        given = {name: self._given[name] for name in ("trial", "trial_id", "is_control")}
        asked = worker.do.options(max_task_retries=tries_again).remote(
            work, self._order, {**given, "tell_from": self._tell_from}
        )
        try:
            done: dict[str, Any] = ray.get(asked, timeout=patience)
        except ray.exceptions.GetTimeoutError:
            ray.kill(worker, no_restart=False)
            raise WorkFailedError(f"no epoch within {patience:.0f} s: the worker hung and was ended", "lost") from None
        except ray.exceptions.RayError as error:
            raise failure_of(error) from error
        return done
