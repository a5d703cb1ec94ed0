"""What a search was asked to do."""

from dataclasses import dataclass
from pathlib import Path

from spine_ray.space.schema import Space
from spine_ray.workers.request import WorkerRequest


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRequest:
    """One call of `search`, its words resolved."""

    spaces: tuple[Space, ...]
    sets: tuple[str, ...]
    """The `--set` words, which say whether frozen random weights were asked for."""
    data: str | None
    """As it was typed; None for the built-in sample."""
    data_root: Path | None = None
    """Where its pictures may lie, if not in its own folder alone."""
    study: Path
    """Its folder on this machine."""
    uri: str | None = None
    """Where it lies, if not in that folder."""
    budget_s: float | None
    weights: str
    """`auto`, `pretrained`, `random` or a folder."""
    seed: int
    workers: WorkerRequest | None
    """Trials at once, or GPUs or cores; 0 for this process; None for what there is."""
    address: str | None
    tracking: str | None
    open_test: bool
    resume: bool
    finish: bool
    """Train no further trial and answer from what is there."""
    force: bool
    """Go on although preflight found an error."""
    update: tuple[str, ...]
    """Trials from before the data changed that are to be trained again, and nothing else."""
    plan: bool
    """Say what it will take, and train nothing."""
    on: WorkerRequest | None
    """The machine that the plan is for; None for this one."""
    began: float
    """When the command was given, seconds since 1970: budgets and predictions count from there."""
    command: str
    """What to type to run it again."""


class StoppedByGate(Exception):  # noqa: N818 - a decision, not an error
    """Preflight or a gate ended the search; everything found so far is kept."""
