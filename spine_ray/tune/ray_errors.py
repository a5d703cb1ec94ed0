"""Ray's errors as failures of the work. Imports nothing heavy: thin processes load it."""

import ray

from spine_ray.workers.failures import WorkFailedError, reason_of


def failure_of(error: BaseException | None) -> WorkFailedError:
    """Return what an error of ray says of the work: the innermost error, not ray's wrapping of it."""
    while isinstance(error, ray.exceptions.RayTaskError) and error.cause is not None:
        error = error.cause
    if error is None:
        return WorkFailedError("unknown error", "lost")
    if isinstance(error, WorkFailedError):
        return error
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return WorkFailedError("the node was short of memory and ended the worker", "lost")
    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.WorkerCrashedError):
        return WorkFailedError("the worker's process died", "lost")
    return WorkFailedError(reason_of(error), "lost" if isinstance(error, ray.exceptions.RayError) else "error")
