"""The tables of a study: samples, trials and costs as Parquet."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pyarrow as pa

from spine_ray.data.samples import Samples
from spine_ray.space.config import RECIPE_FIELDS, Recipe, TrialConfig
from spine_ray.study.checked import checked_table
from spine_ray.study.paths import StudyPaths, copy_of, read_either, read_table, replace_table, write_twice
from spine_ray.study.trials import Trial

_TERA = 1e12
_SAMPLE_COLUMNS = {
    "sample_id": pa.string(),
    "path": pa.string(),
    "label": pa.int64(),
    "class": pa.string(),
    "group": pa.int64(),
    "split": pa.string(),
    "fold": pa.int8(),
}
_ARROW = {
    str: pa.string(),
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
}
_RECIPE_COLUMNS = {name: name if name != "epochs" else "fold_epochs" for name in RECIPE_FIELDS}
"""By recipe field; the column `epochs` is what was trained, over all folds."""
_NULLABLE = {
    **dict.fromkeys(("latency_ms", "log_loss", "accuracy", "views", "micro_batch"), pa.float64()),
    **{_RECIPE_COLUMNS[name]: _ARROW[kind] for name, kind in get_type_hints(Recipe).items()},
}
_NULLABLE_COSTS = ("prefix_images_s", "activation_mb")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Measured once for a (backbone, resolution, freeze) on the study's device, then fixed."""

    backbone: str
    resolution: int
    freeze: float
    device: str
    arithmetic: str
    train_images_s: float
    """Of what comes behind the frozen prefix: forward, backward and optimizer."""
    infer_images_s: float
    """Of the whole model: 1000 over it is the price of a member, ms an image."""
    score_images_s: float
    """Of what comes behind the frozen prefix, on held-out rows."""
    prefix_images_s: float | None
    """Of the frozen prefix; None where there is none."""
    activation_mb: float | None
    """What the prefix's activations of one picture take on disk; None where there is no prefix."""
    peak_mb: float
    macs: int
    """Multiply-accumulates of one forward pass of one image."""
    prefix_macs: int
    """The frozen prefix's part of them."""
    prefix_params: int
    """The frozen prefix's part of the parameters."""

    @property
    def key(self) -> tuple[str, int, float]:
        """What the cost belongs to."""
        return (self.backbone, self.resolution, self.freeze)


_COST_COLUMNS = {name: _ARROW[kind] for name, kind in get_type_hints(Cost).items()}
Costs = Mapping[tuple[str, int, float], Cost]
"""By `cost_key`."""


def write_samples(path: Path, samples: Samples) -> None:
    """Write a table of rows."""
    names = [samples.classes[label] for label in samples.labels]
    columns = {
        "sample_id": pa.array(samples.sample_ids),
        "path": pa.array(samples.paths),
        "label": pa.array(samples.labels.astype(np.int32)),
        "class": pa.array(names),
        "group": pa.array(samples.groups),
        "split": pa.array(samples.splits),
        "fold": pa.array(samples.folds.astype(np.int32)),
    }
    replace_table(path, pa.table(columns))


def read_samples(path: Path) -> Samples:
    """Read a table of rows.

    Raises:
        ValueError: If it is missing or damaged.
    """
    table = read_table(path, tuple(_SAMPLE_COLUMNS))
    columns = checked_table(table, _SAMPLE_COLUMNS, (), path).to_pydict()
    labels = np.array(columns["label"], np.int64)
    names: dict[int, str] = dict(zip(columns["label"], columns["class"], strict=True))
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"{path} is damaged: its labels are not 0 to {len(names) - 1}")
    return Samples(
        sample_ids=tuple(columns["sample_id"]),
        paths=tuple(columns["path"]),
        labels=labels,
        classes=tuple(names[label] for label in range(len(names))),
        groups=np.array(columns["group"], np.int64),
        splits=tuple(columns["split"]),
        folds=np.array(columns["fold"], np.int8),
    )


def write_trials(paths: StudyPaths, trials: Iterable[Trial], costs: Costs) -> None:
    """Write `trials.parquet`: one row a trial, finished or not; nothing where there are none."""
    table = trials_table(trials, costs)
    if table.num_rows:
        replace_table(paths.trials, table)


def trials_table(trials: Iterable[Trial], costs: Costs) -> pa.Table:
    """Return one row a trial, finished or not; without columns where there are none."""
    rows = [_trial_row(trial, costs.get(cost_key(trial.config))) for trial in trials]
    return _table(rows, _NULLABLE) if rows else pa.table({})


def write_costs(paths: StudyPaths, costs: Iterable[Cost]) -> None:
    """Write `costs.parquet` and its copy: what was measured once is what every later decision rests on."""
    rows = [asdict(cost) for cost in costs]
    if rows:
        write_twice(
            paths.costs, lambda place: replace_table(place, _table(rows, dict.fromkeys(_NULLABLE_COSTS, pa.float64())))
        )


def read_costs(paths: StudyPaths) -> dict[tuple[str, int, float], Cost]:
    """Return the measured costs by (backbone, resolution, freeze); empty where none were measured.

    Raises:
        DamagedError: If the file is damaged, and so is its copy.
    """
    if not paths.costs.exists() and not copy_of(paths.costs).exists():
        return {}
    rows = read_either(paths.costs, _read_costs).to_pylist()
    return {cost.key: cost for cost in (Cost(**row) for row in rows)}


def _read_costs(path: Path) -> pa.Table:
    return checked_table(read_table(path, tuple(_COST_COLUMNS)), _COST_COLUMNS, _NULLABLE_COSTS, path)


def budget_units(trial: Trial) -> float:
    """Return the trial's training arithmetic in tera-multiply-accumulates.

    Forward and backward of a trained layer cost three forward passes; the frozen prefix is not discounted, so the
    number says what was asked for and not how cleverly it was computed. A probe passes every image forwards, once.
    """
    images = sum(epoch.train_images for epoch in trial.epochs)
    return (1.0 if trial.config.is_probe else 3.0) * images * trial.started.macs / _TERA


def cost_key(config: TrialConfig) -> tuple[str, int, float]:
    """Return what a configuration's cost is measured for."""
    return (config.backbone, config.resolution, config.freeze)


def _table(rows: list[dict[str, Any]], nullable: Mapping[str, pa.DataType]) -> pa.Table:
    table = pa.Table.from_pylist(rows)
    for name, kind in nullable.items():  # a column of nulls alone would have no type
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table.column(name).cast(kind))
    return table


def _trial_row(trial: Trial, cost: Cost | None) -> dict[str, Any]:
    config, started = trial.config, trial.started
    # Of a probe there is none.
    recipe = {column: config.recipe and getattr(config.recipe, name) for name, column in _RECIPE_COLUMNS.items()}
    return {
        "trial_id": trial.trial_id,
        "tier": started.tier,
        "backbone": config.backbone,
        "family": started.family,
        "resolution": config.resolution,
        "freeze": config.freeze,
        **recipe,
        "is_start": started.is_start,
        "status": trial.status or "interrupted",
        "reason": trial.ended.reason if trial.ended else "",
        "note": trial.note,
        "views": trial.views,
        "micro_batch": trial.micro_batch,
        "epochs": trial.epochs[-1].step if trial.epochs else 0,
        "seconds": trial.seconds,
        "budget_units": budget_units(trial),
        "params": started.params,
        "macs": started.macs,
        "latency_ms": 1000.0 / cost.infer_images_s if cost else None,
        "log_loss": trial.log_loss,
        "accuracy": trial.accuracy,
        "weights_source": started.weights_source,
        "licence": started.licence,
    }
