"""A trial as Ray Tune runs it: a thin process that passes every step on to a warm worker."""

from typing import Any

import ray
from ray import tune

from spine_ray.tune.ray_errors import failure_of
from spine_ray.workers.failures import WorkFailedError
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import Beginning, EpochReport, TrialRequest, TrialSteps

_PAUSE_S = 2.0
"""Wait before a worker that was lost is asked again, times the failures so far."""
_RETURN_S = 1800.0
"""How long a worker whose machine is gone has to come back, on that machine or another, s."""


class TrialTrainable(tune.Trainable):
    """Asks the worker that the trial was given for one epoch a step. Loads nothing heavy, so a tier starts at once.

    A worker that dies or hangs is asked again when it is back: the trial goes on from its checkpoint.
    """

    def setup(self, config: dict[str, Any], spec: WorkerSpec, actors: tuple[Any, ...]) -> None:  # type: ignore[override]
        """Store what is asked."""
        self._spec, self._actors = spec, actors
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial; nothing here may fail, because ray does not try again."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch of one fold and return its report."""
        report = self._steps.next()
        return {"log_loss": report.log_loss, "done": report.is_last, "report": report}

    def _take(self, config: dict[str, Any]) -> None:
        worker = _RayWorker(self._actors[config["worker"]], self._spec)
        self._steps = TrialSteps(config["request"], worker, _PAUSE_S)


class _RayWorker:
    """A warm worker in another process, as `TrialSteps` calls it."""

    def __init__(self, actor: Any, spec: WorkerSpec) -> None:
        self._actor, self._spec = actor, spec

    def begin(self, request: TrialRequest) -> Beginning:
        """Wait until the worker is there, and begin a trial on it."""
        self._await_actor()
        # Once more, because a worker that raised before leaves when it is asked again.
        begun: Beginning = self._call("begin", request, retries=1)
        return begun

    def next_epoch(self, request: TrialRequest) -> EpochReport:
        """Train one epoch. A worker that dies takes the trial's state along, so it is not simply asked again."""
        done: EpochReport = self._call("next_epoch", request, retries=0)
        return done

    def _await_actor(self) -> None:
        """Wait until the worker is there: one whose machine is gone comes back where there is room for it.

        Raises:
            WorkFailedError: If it does not.
        """
        try:
            ready = self._actor.__ray_ready__.options(max_task_retries=-1)
            ray.get(ready.remote(), timeout=_RETURN_S)
        except ray.exceptions.GetTimeoutError:
            reason = f"no machine had room for its worker for {_RETURN_S / 60:.0f} min"
            raise WorkFailedError(reason, "hopeless") from None
        except ray.exceptions.RayError as error:
            raise failure_of(error) from error

    def _call(self, task: str, request: TrialRequest, retries: int) -> Any:
        """Call a method of the worker.

        Raises:
            WorkFailedError: If it could not, or took far longer than such work does.
        """
        timeout = request.hang_timeout
        running = self._actor.do.options(max_task_retries=retries).remote(task, self._spec, request)
        try:
            return ray.get(running, timeout=timeout)
        except ray.exceptions.GetTimeoutError:
            ray.kill(self._actor, no_restart=False)
            raise WorkFailedError(f"no epoch within {timeout:.0f} s: the worker hung and was ended", "lost") from None
        except ray.exceptions.RayError as error:
            raise failure_of(error) from error
