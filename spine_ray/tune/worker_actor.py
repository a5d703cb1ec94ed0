"""A worker as Ray knows it: light, because every process that is handed its handle loads this class."""

import os
from typing import Any


class WorkerActor:
    """Passes tasks on to a `TrainWorker` of its own.

    A task that raises may leave the process spoiled (a GPU's context does not survive most errors), so it leaves before
    its next task; Ray starts it anew and hands that task to its successor.
    """

    def __init__(self) -> None:
        """Import what training needs."""
        # torch and timm: seconds that only this process may pay
        from spine_ray.workers.worker import TrainWorker, run_task

        self._worker, self._run_task = TrainWorker(), run_task
        self._is_spoiled = False

    def do(self, task: str, *args: Any) -> Any:
        """Call one of the worker's methods by its name and return what it returns.

        Raises:
            WorkFailedError: If it raised.
        """
        if self._is_spoiled:
            os._exit(1)
        self._is_spoiled = True
        done = self._run_task(self._worker, task, *args)
        self._is_spoiled = False
        return done
