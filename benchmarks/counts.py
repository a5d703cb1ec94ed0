"""How much arithmetic is left of a set of trials when everything repeated is removed."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fold_table import FoldTable
from spine_ray.space.config import TrialConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What all trials of one backbone and freeze depth have to compute."""

    example: TrialConfig
    """One of the trials; they differ in the recipe alone."""
    classes: int
    prefix_images: int
    """Pictures through the frozen prefix: every view of every row once, whatever trial or fold asks for it."""
    steps: int
    """Optimizer steps of the suffix."""
    scored_images: int
    """Held-out pictures through the suffix, counting repeats."""


def work_of(trials: Sequence[TrialConfig], table: FoldTable) -> tuple[Work, ...]:
    """Return the work of each backbone and freeze depth, in the order of the trials."""
    groups: dict[tuple[str, int, float], list[TrialConfig]] = {}
    for trial in trials:
        groups.setdefault((trial.backbone, trial.resolution, trial.freeze), []).append(trial)
    return tuple(_work(group, table) for group in groups.values())


def steps_of(trial: TrialConfig, table: FoldTable) -> int:
    """Return a trial's optimizer steps over all folds and epochs; the last partial batch is left out."""
    sizes = [len(table.training(fold)) for fold in range(table.num_folds)]
    return sum(trial.training.epochs * (size // min(trial.training.batch_size, size)) for size in sizes)


def _work(group: list[TrialConfig], table: FoldTable) -> Work:
    rows = len(table.paths)
    # Views of an epoch are the same in every trial and fold; the scoring view is one more.
    views = max(trial.training.epochs for trial in group) + 1
    return Work(
        example=group[0],
        classes=len(table.classes),
        prefix_images=rows * views if group[0].freeze > 0.0 else 0,
        steps=sum(steps_of(trial, table) for trial in group),
        scored_images=sum(trial.training.epochs * rows for trial in group),
    )
