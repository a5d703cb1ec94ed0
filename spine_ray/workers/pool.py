"""The interface between a search and its workers, be they processes of Ray or this process itself."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from spine_ray.sampling.queue import Refusal
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import Event
from spine_ray.workers.layout import PoolLayout
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.worker_data import DecodeRequest

Task = Literal["measure", "choose_arithmetic", "check_training", "sample_probe", "refit", "score"]
"""Methods of `TrainWorker` that take a configuration."""


class WorkerPool(Protocol):
    """Workers of one layout, kept for a whole search."""

    @property
    def layout(self) -> PoolLayout:
        """The number of workers and the resources of each."""

    def resize(self, layout: PoolLayout) -> None:
        """Replace the workers by those of another layout; only between tiers."""

    def connect(self, spec: WorkerSpec, pictures: DecodeRequest, data: str | None) -> WorkerSpec:
        """Return the spec with the way in which other machines get this one's files, once each of them is ready.

        Args:
            spec: What holds on this machine.
            pictures: What other machines decode for themselves.
            data: The data's place as the user named it; None for the built-in sample.

        Raises:
            ValueError: If a machine lacks something.
        """

    def map(
        self,
        task: Task,
        configs: Sequence[TrialConfig],
        spec: WorkerSpec,
        *args: Any,
        on_done: Callable[[Any], None] = lambda _: None,
    ) -> list[Any]:
        """Run a task for every configuration.

        Args:
            task: Which.
            configs: One call each, taken up by the next idle worker.
            spec: What the workers must know.
            args: Passed on to every call.
            on_done: Called in this process with each result when it is there.

        Returns:
            What the worker returned, or a `WorkFailure`, in the order of `configs`.
        """

    def run_tier(self, plan: TierPlan, spec: WorkerSpec, on_event: Callable[[Event], None]) -> tuple[Refusal, ...]:
        """Run a tier to its end and return what was not admitted.

        Args:
            plan: What to try.
            spec: What the workers must know.
            on_event: Called in this process for every event, in order; returns when the event will outlast the process.
        """

    def gpu_memory_mb(self) -> float:
        """Return the memory of the smallest GPU that a worker has, MB.

        Raises:
            ValueError: If a worker cannot say.
        """
