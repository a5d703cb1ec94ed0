"""A worker as ray knows it: light, because every process that is handed its handle loads this class."""

import os
from typing import Any


class WarmProcess:
    """Passes work on to a `TrainWorker` of its own.

    Work that raises may leave the process spoiled (a GPU's context does not survive most errors), so it leaves before
    its next piece of work; ray starts it anew and hands that work to its successor.
    """

    def __init__(self) -> None:
        """Import what training needs."""
        from spine_ray.tune.worker import TrainWorker  # torch and timm: seconds that only this process may pay

        self._worker = TrainWorker()
        self._is_spoiled = False

    def do(self, work: str, *given: Any) -> Any:
        """Call one of the worker's methods by its name and return what it returns."""
        if self._is_spoiled:
            os._exit(1)
        self._is_spoiled = True
        done = getattr(self._worker, work)(*given)
        self._is_spoiled = False
        return done
