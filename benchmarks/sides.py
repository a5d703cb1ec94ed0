"""What a side of the throughput benchmark is told and what it says: plain values that travel as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from spine_ray.space.arithmetic import Arithmetic, parse_arithmetic
from spine_ray.space.config import TrialConfig

Side = Literal["plain", "spine", "spine_equal", "bare", "bare_equal"]
SIDES: tuple[Side, ...] = get_args(Side)
WORKERS = 2
"""Trials at once, one thread each."""
EQUAL = Arithmetic("float32", "contiguous")
"""What PyTorch does unasked."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """One run of one side."""

    side: Side
    trials: tuple[TrialConfig, ...]
    folder: Path
    """Holds the pictures and `folds.csv`; absolute."""
    out: Path
    """Empty before the run; absolute."""
    loader_workers: int
    """Processes of each of the plain side's loaders."""
    reuse_actors: bool
    """Whether Ray Tune keeps the plain side's processes from trial to trial."""
    arithmetic: Mapping[str, Arithmetic]
    """How the bare side computes, by backbone."""


@dataclass(frozen=True, slots=True)
class SideResult:
    """What a side that trains says of its run."""

    seconds: Mapping[str, float]
    """By trial id: seconds of a worker, measured inside. What trials share is counted once, in any of them."""
    arithmetic: Mapping[str, Arithmetic]
    """How it computed, by backbone."""
    images_s: Mapping[str, float]
    """By trial id: training images a second, everything of a training epoch included; empty where not counted."""


def logits_file(out: Path, trial: TrialConfig) -> Path:
    """Return where a side writes a trial's OOF logits, float32 (pictures, classes), rows as in `folds.csv`."""
    return out / f"{trial.trial_id}.npy"


def write_order(order: Order, path: Path) -> None:
    """Write what `read_order` reads."""
    values = {
        "side": order.side,
        "trials": [trial.to_dict() for trial in order.trials],
        "folder": str(order.folder),
        "out": str(order.out),
        "loader_workers": order.loader_workers,
        "reuse_actors": order.reuse_actors,
        "arithmetic": _words(order.arithmetic),
    }
    path.write_text(json.dumps(values))


def read_order(path: Path) -> Order:
    """Read what `write_order` wrote."""
    values = json.loads(path.read_text())
    return Order(
        side=values["side"],
        trials=tuple(TrialConfig.from_dict(trial) for trial in values["trials"]),
        folder=Path(values["folder"]),
        out=Path(values["out"]),
        loader_workers=values["loader_workers"],
        reuse_actors=values["reuse_actors"],
        arithmetic=_arithmetic(values["arithmetic"]),
    )


def write_result(result: SideResult, path: Path) -> None:
    """Write what `read_result` reads."""
    values = {
        "seconds": dict(result.seconds),
        "arithmetic": _words(result.arithmetic),
        "images_s": dict(result.images_s),
    }
    path.write_text(json.dumps(values))


def read_result(path: Path) -> SideResult:
    """Read what `write_result` wrote."""
    values = json.loads(path.read_text())
    return SideResult(values["seconds"], _arithmetic(values["arithmetic"]), values["images_s"])


def _words(arithmetic: Mapping[str, Arithmetic]) -> dict[str, str]:
    return {backbone: str(each) for backbone, each in arithmetic.items()}


def _arithmetic(words: Mapping[str, str]) -> dict[str, Arithmetic]:
    return {backbone: parse_arithmetic(text) for backbone, text in words.items()}
