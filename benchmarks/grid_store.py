"""The stored grid on disk, and its reader: every configuration's curve, OOF logits and logits on fresh rows.

FOLDER/SET/data.parquet            the set as `--data` takes it: dev rows in folds, fresh rows as test split
FOLDER/SET/samples.parquet         the same rows in the order that a study gives them
FOLDER/SET/grid.json               the space, arithmetic by backbone, facts, versions, the least log-loss there is
FOLDER/SET/trials/TRIAL.npz        `oof`, float32 (dev rows, classes); `fresh`, float16 (folds, fresh rows, classes)
FOLDER/SET/trials/TRIAL.json       configuration, time of each step; written last: a trial with it is whole
FOLDER/SET/plain/BACKBONE-PX-F.json   what one epoch of one fold costs where no activations are kept
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.selector import Seconds
from spine_ray.core.epoch_record import EpochRecord
from spine_ray.data.samples import Samples
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import log_loss
from spine_ray.space.config import TrialConfig
from spine_ray.study.paths import read_json, replace_json, temporary_name
from spine_ray.study.tables import read_samples

Key = tuple[str, int, float]
"""(backbone, resolution, freeze): what shares a frozen prefix and so its activations."""
NONE = Seconds(0.0, 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One epoch of one fold, or a whole probe."""

    record: EpochRecord
    """Its `seconds` are wall, training and scoring the held-out rows."""
    cpu: float
    """Seconds of the process's CPU in all of it."""
    prefix: Seconds
    """Of these, spent in the frozen prefix (of a probe: the backbone): what a warm cache saves, but for the writing."""
    prefix_images: int
    """Pictures that went through it; 0 where a fine-tune found all activations in the cache."""

    @property
    def train_s(self) -> float:
        """Wall seconds of training, not of a probe's."""
        return self.record.train_images / self.record.train_images_s

    @property
    def score_s(self) -> float:
        """Wall seconds of scoring the held-out rows, and what little is neither."""
        return self.record.seconds - self.train_s

    def warm(self) -> Seconds:
        """Return what it would have taken with all activations in the cache."""
        return Seconds(self.record.seconds - self.prefix.wall, self.cpu - self.prefix.cpu)


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """How a configuration's trial went."""

    steps: tuple[Step, ...]
    network: Seconds
    """Of building the network; 0 where the trial before it left one that serves."""
    start: Seconds
    """Of preparing the run before its first epoch."""

    @property
    def was_warm(self) -> bool:
        """Whether every activation was in the cache before; also true where nothing is frozen."""
        return not any(step.prefix_images for step in self.steps)

    @property
    def total(self) -> Seconds:
        """All of it as it happened, a cold cache filled on the way."""
        spent = [Seconds(step.record.seconds, step.cpu) for step in self.steps]
        return sum(spent, start=self.network + self.start)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plain:
    """One epoch, or the head, of fold 0 as a user without a cache has it: whole pictures through the whole model."""

    train: Seconds
    score: Seconds
    """Of scoring the held-out rows once."""
    train_images: int
    score_images: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One configuration as it is stored."""

    config: TrialConfig
    tier: str
    curve: Curve
    oof: npt.NDArray[np.float32]
    """(dev rows, classes)."""
    fresh: npt.NDArray[np.float16]
    """(folds, fresh rows, classes): what each fold's model says."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """A whole stored grid; configurations in the order of the space, tier by tier."""

    name: str
    configs: tuple[TrialConfig, ...]
    tiers: tuple[str, ...]
    families: tuple[str, ...]
    macs: tuple[int, ...]
    """Of one image through the whole model."""
    curves: tuple[Curve, ...]
    oof: npt.NDArray[np.float32]
    """(configurations, dev rows, classes)."""
    fresh: npt.NDArray[np.float16]
    """(configurations, folds, fresh rows, classes)."""
    samples: Samples
    """All rows; the arrays of logits follow `samples.dev` and `samples.test`."""
    plain: Mapping[Key, Plain]
    arithmetic: Mapping[str, str]
    least_loss: float
    """Nats; what labels that are wrong by chance leave to nobody."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(dev rows,)."""
        return np.asarray(self.samples.labels[self.samples.dev])

    @property
    def folds(self) -> npt.NDArray[np.int8]:
        """(dev rows,)."""
        return np.asarray(self.samples.folds[self.samples.dev])

    @property
    def fresh_labels(self) -> npt.NDArray[np.int64]:
        """(fresh rows,)."""
        return np.asarray(self.samples.labels[self.samples.test])

    @property
    def fresh_groups(self) -> npt.NDArray[np.int64]:
        """(fresh rows,): rows of one group were drawn from one scan, so intervals must resample groups."""
        return np.asarray(self.samples.groups[self.samples.test])

    @cached_property
    def temperatures(self) -> npt.NDArray[np.float64]:
        """(configurations,) fitted on the OOF logits."""
        return np.array([fit_temperature(logits, self.labels) for logits in self.oof])

    @cached_property
    def oof_losses(self) -> npt.NDArray[np.float64]:
        """(configurations,) temperature-scaled log-loss of the OOF logits."""
        pairs = zip(self.oof, self.temperatures, strict=True)
        return np.array([log_loss(log_probs(logits, heat), self.labels) for logits, heat in pairs])

    @cached_property
    def fresh_losses(self) -> npt.NDArray[np.float64]:
        """(configurations, folds) log-loss of each fold's model on the fresh rows, at the OOF temperature."""
        return np.array([
            [log_loss(log_probs(logits.astype(np.float32), heat), self.fresh_labels) for logits in of_folds]
            for of_folds, heat in zip(self.fresh, self.temperatures, strict=True)
        ])  # fmt: skip

    def plain_seconds(self, place: int) -> Seconds:
        """Return what a configuration takes without a cache: every epoch of every fold, held-out rows scored once."""
        config, cost = self.configs[place], self.plain[key_of(self.configs[place])]
        folds = self.samples.num_folds
        epochs = folds * (1 if config.is_probe else config.training.epochs)
        wall = epochs * cost.train.wall + folds * cost.score.wall
        return Seconds(wall, epochs * cost.train.cpu + folds * cost.score.cpu)


def key_of(config: TrialConfig) -> Key:
    """Return what a configuration shares with those that differ in its recipe alone."""
    return config.backbone, config.resolution, config.freeze


def plain_file(folder: Path, key: Key) -> Path:
    """Return where the plain cost of a key is kept."""
    backbone, resolution, freeze = key
    return folder / "plain" / f"{backbone}-{resolution}-f{round(100 * freeze):03d}.json"


def trial_file(folder: Path, config: TrialConfig) -> Path:
    """Return the file with which a trial is whole."""
    return folder / "trials" / f"{config.trial_id}.json"


def is_stored(folder: Path, config: TrialConfig) -> bool:
    """Whether a trial was trained to its end and stored."""
    return trial_file(folder, config).exists()


def write_tried(folder: Path, tried: Tried) -> None:
    """Write a trial: its logits first, so that the other file says that all is there."""
    path = trial_file(folder, tried.config)
    path.parent.mkdir(parents=True, exist_ok=True)
    logits, part = path.with_suffix(".npz"), temporary_name(path.with_suffix(".npz"))
    with part.open("wb") as file:
        np.savez(file, oof=tried.oof, fresh=tried.fresh)
    part.replace(logits)
    curve = tried.curve
    replace_json(
        path,
        {
            "config": tried.config.to_dict(),
            "tier": tried.tier,
            "network": asdict(curve.network),
            "start": asdict(curve.start),
            "was_warm": curve.was_warm,
            "total": asdict(curve.total),
            "steps": [asdict(step) for step in curve.steps],
        },
    )


def read_tried(folder: Path, config: TrialConfig) -> Tried:
    """Read what `write_tried` wrote.

    Raises:
        ValueError: If the file is of another configuration.
    """
    path = trial_file(folder, config)
    values = read_json(path)
    if TrialConfig.from_dict(values["config"]) != config:
        raise ValueError(f"{path} holds another configuration")
    with np.load(path.with_suffix(".npz")) as arrays:
        oof, fresh = arrays["oof"], arrays["fresh"]
    curve = Curve(
        steps=tuple(map(_step, values["steps"])),
        network=Seconds(**values["network"]),
        start=Seconds(**values["start"]),
    )
    return Tried(config=config, tier=values["tier"], curve=curve, oof=oof, fresh=fresh)


def write_plain(folder: Path, key: Key, plain: Plain) -> None:
    """Write what a key costs without a cache."""
    replace_json(plain_file(folder, key), asdict(plain))


def read_plain(folder: Path, key: Key) -> Plain:
    """Read what `write_plain` wrote."""
    values = read_json(plain_file(folder, key))
    return Plain(**{**values, "train": Seconds(**values["train"]), "score": Seconds(**values["score"])})


def read_grid(folder: Path) -> Grid:
    """Read a whole grid.

    Args:
        folder: `FOLDER/SET`.

    Raises:
        ValueError: If a trial is missing (the command that trains them goes on) or has the logits of other rows.
    """
    head = read_json(folder / "grid.json")
    configs = [TrialConfig.from_dict(values) for values in head["configs"]]
    missing = sum(not is_stored(folder, config) for config in configs)
    if missing:
        raise ValueError(f"{folder} lacks {missing} of {len(configs)} trials: train them first")
    samples = read_samples(folder / "samples.parquet")
    tried = [read_tried(folder, config) for config in configs]
    _check_shapes(tried, samples)
    facts: dict[str, Any] = head["backbones"]
    return Grid(
        name=head["name"],
        configs=tuple(configs),
        tiers=tuple(each.tier for each in tried),
        families=tuple(facts[config.backbone]["family"] for config in configs),
        macs=tuple(facts[config.backbone]["macs"][str(config.resolution)] for config in configs),
        curves=tuple(each.curve for each in tried),
        oof=np.stack([each.oof for each in tried]),
        fresh=np.stack([each.fresh for each in tried]),
        samples=samples,
        plain={key: read_plain(folder, key) for key in dict.fromkeys(map(key_of, configs))},
        arithmetic={backbone: each["arithmetic"] for backbone, each in facts.items()},
        least_loss=head["least_loss"],
    )


def _check_shapes(tried: list[Tried], samples: Samples) -> None:
    classes = len(samples.classes)
    wanted = ((len(samples.dev), classes), (samples.num_folds, len(samples.test), classes))
    for each in tried:
        found = (each.oof.shape, each.fresh.shape)
        if found != wanted:
            raise ValueError(f"{each.config.trial_id} holds logits of {found}, not {wanted}")


def _step(values: Mapping[str, Any]) -> Step:
    record, prefix = EpochRecord(**values["record"]), Seconds(**values["prefix"])
    return Step(record=record, cpu=values["cpu"], prefix=prefix, prefix_images=values["prefix_images"])
