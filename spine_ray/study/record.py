"""`study.json`: what was decided once for a study and holds for all of its trials."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spine_ray.data.samples import Samples
from spine_ray.study.checked import check_fields
from spine_ray.study.paths import DamagedError, StudyPaths, copy_of, read_either, read_json, replace_json, write_twice

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightsRecord:
    """Where the initial weights come from: a study never mixes sources."""

    kind: str
    """`pretrained` or `random`."""
    source: str
    """`hub`, `random`, `stand-ins` (those that come along), or the folder the user named."""
    hashes: dict[str, str]
    """sha256 of each backbone's file; empty for random."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TestOpening:
    """One look at the test split."""

    time: str
    """UTC, ISO 8601."""
    ensemble_hash: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DataChange:
    """The rows were not what they were: from here on the study is about others."""

    time: str
    """UTC, ISO 8601."""
    version: str
    """`Samples.version` of the rows that were left behind."""
    rows: int
    """How many those were."""
    added: int
    relabelled: int
    removed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What was measured once and then steers."""

    activation_bytes: int
    """Room on disk for the activations of one frozen prefix: where it is short, there are fewer views than epochs."""
    arithmetic: dict[str, str]
    """What each backbone is computed in: it changes the last digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRecord:
    """The study's identity."""

    seed: int
    data: str
    """What `--data` named, as an absolute path if it is one; for people and reports, not for identity."""
    data_fingerprint: str
    fold_fingerprint: str
    classes: tuple[str, ...]
    versions: dict[str, str]
    device: str
    weights: WeightsRecord
    choices: Choices
    data_root: str | None = None
    """What `--data-root` named."""
    test_openings: tuple[TestOpening, ...] = ()
    data_changes: tuple[DataChange, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def with_opening(self, opening: TestOpening) -> "StudyRecord":
        """Return the record with one more look at the test split."""
        return replace(self, test_openings=(*self.test_openings, opening))

    def with_rows(self, samples: Samples, change: DataChange) -> "StudyRecord":
        """Return the record of a study whose rows have changed."""
        return replace(
            self,
            data_fingerprint=samples.data_fingerprint,
            fold_fingerprint=samples.fold_fingerprint,
            classes=samples.classes,
            data_changes=(*self.data_changes, change),
        )

    def with_weights(self, hashes: dict[str, str]) -> "StudyRecord":
        """Return the record with the weights of more backbones."""
        return replace(self, weights=replace(self.weights, hashes={**self.weights.hashes, **hashes}))

    def with_arithmetic(self, chosen: dict[str, str]) -> "StudyRecord":
        """Return the record with what more backbones are computed in."""
        return replace(self, choices=replace(self.choices, arithmetic={**self.choices.arithmetic, **chosen}))


def write_record(paths: StudyPaths, record: StudyRecord) -> None:
    """Write `study.json` and its copy."""
    write_twice(paths.record, lambda place: replace_json(place, asdict(record)))


def read_record(root: Path) -> StudyRecord:
    """Read a study's `study.json`, or its copy where that is damaged.

    Raises:
        ValueError: If there is no study, or one of another schema, or a damaged one; with what to do.
    """
    path = StudyPaths(root).record
    if not path.exists() and not copy_of(path).exists():
        raise ValueError(f"there is no study at {root} (no {path.name} in it)")
    try:
        return read_either(path, _read)
    except DamagedError as error:
        raise DamagedError(
            f"{error}, and so is its copy: put back a {path.name} from before, or name another study (the trials are "
            "all still there)"
        ) from error


def _read(path: Path) -> StudyRecord:
    values = read_json(path)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(version, int):
        raise DamagedError(f"{path} is damaged: it has no schema version")
    if version != SCHEMA_VERSION:
        remedy = "upgrade spine_ray" if version > SCHEMA_VERSION else "use the release that wrote it"
        raise ValueError(
            f"{path} has schema version {version}, and this release reads version {SCHEMA_VERSION}: {remedy}, or begin "
            "another study"
        )
    try:
        openings = tuple(TestOpening(**opening) for opening in values.pop("test_openings"))
        changes = tuple(DataChange(**change) for change in values.pop("data_changes"))
        weights = WeightsRecord(**values.pop("weights"))
        choices = Choices(**values.pop("choices"))
        classes = tuple(values.pop("classes"))
        known: dict[str, Any] = {"test_openings": openings, "data_changes": changes}
        record = StudyRecord(**values, classes=classes, weights=weights, choices=choices, **known)
        for part in (record, weights, choices, *openings, *changes):
            check_fields(part)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    return record
