"""A worker as ray knows it: light, because every process that is handed its handle loads this class."""

import os
from typing import Any

from spine_ray.tune.failures import WorkFailedError, reason_of


class WarmProcess:
    """Passes work on to a `TrainWorker` of its own.

    Work that raises may leave the process spoiled (a GPU's context does not survive most errors), so it leaves before
    its next piece of work; ray starts it anew and hands that work to its successor.
    """

    def __init__(self) -> None:
        """Import what training needs."""
        # torch and timm: seconds that only this process may pay
        from spine_ray.core.memory import is_out_of_memory
        from spine_ray.tune.worker import TrainWorker

        self._worker, self._is_out_of_memory = TrainWorker(), is_out_of_memory
        self._is_spoiled = False

    def do(self, work: str, *given: Any) -> Any:
        """Call one of the worker's methods by its name and return what it returns.

        Raises:
            WorkFailedError: If it raised.
        """
        if self._is_spoiled:
            os._exit(1)
        self._is_spoiled = True
        try:
            done = getattr(self._worker, work)(*given)
        except Exception as error:
            # What memory does not hold in the smallest portions it will not hold the next time.
            is_hopeless = isinstance(error, ValueError | MemoryError) or self._is_out_of_memory(error)
            raise WorkFailedError(reason_of(error), "hopeless" if is_hopeless else "error") from error
        self._is_spoiled = False
        return done
