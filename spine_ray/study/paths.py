"""Names on disk: the only module that knows where a study keeps what, and how a file is replaced whole."""

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

PART = ".part"
"""How the names of files end that are being written."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What systems say when there is no room."""
_Content = TypeVar("_Content")


@dataclass(frozen=True, slots=True)
class StudyPaths:
    """Where a study keeps each of its files."""

    root: Path

    @property
    def record(self) -> Path:
        """What was decided once: seed, fingerprints, classes, versions, weights, test openings."""
        return self.root / "study.json"

    @property
    def lock(self) -> Path:
        """Held by the one search that may write."""
        return self.root / "study.lock"

    @property
    def holder(self) -> Path:
        """Names the search that holds the study, or held it last."""
        return self.root / "study.holder"

    @property
    def fence(self) -> Path:
        """Held for the moment in which a worker's file takes its place, or the holder changes."""
        return self.root / "study.fence"

    @property
    def samples(self) -> Path:
        """The table of rows with labels, split and folds."""
        return self.root / "samples.parquet"

    @property
    def audit(self) -> Path:
        """What preflight found."""
        return self.root / "audit.json"

    @property
    def ledger(self) -> Path:
        """The one truth: an event a line."""
        return self.root / "ledger.jsonl"

    @property
    def trials(self) -> Path:
        """One row a trial, rebuilt from the ledger."""
        return self.root / "trials.parquet"

    @property
    def costs(self) -> Path:
        """Measured costs of (backbone, resolution, freeze)."""
        return self.root / "costs.parquet"

    @property
    def control(self) -> Path:
        """Held-out logits of the shuffled-label control."""
        return self.root / "control.parquet"

    @property
    def comparison(self) -> Path:
        """The controlled comparison: every pair of start recipes with its interval."""
        return self.root / "comparison.json"

    @property
    def history(self) -> Path:
        """What each finished search changed."""
        return self.root / "history.json"

    @property
    def plan(self) -> Path:
        """What the last search was predicted to cost."""
        return self.root / "plan.json"

    @property
    def checks(self) -> Path:
        """What a model made of the rows before anything trained, by start recipe."""
        return self.root / "checks.json"

    @property
    def contact_sheet(self) -> Path:
        """Views of a few pictures of each class."""
        return self.root / "contact_sheet.png"

    @property
    def gates(self) -> Path:
        """Every gate decision with its numbers."""
        return self.root / "gates.json"

    @property
    def ensemble(self) -> Path:
        """The members, their weights and the honest report."""
        return self.root / "ensemble.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def tracking(self) -> Path:
        """MLflow's database, when no server is named."""
        return self.root / "mlflow.db"

    @property
    def tracking_record(self) -> Path:
        """How MLflow knows the study."""
        return self.root / "tracking.json"

    @property
    def ray(self) -> Path:
        """Ray's own files; nothing is read back from them."""
        return self.root / "ray"

    @property
    def earlier(self) -> Path:
        """Tables of rows as they were before the data changed."""
        return self.root / "earlier"

    def earlier_samples(self, version: str) -> Path:
        """The table of one version of the rows."""
        return self.earlier / f"{version}.parquet"

    @property
    def damaged(self) -> Path:
        """Files that were found damaged, set aside; nothing is read back from them."""
        return self.root / "damaged"

    @property
    def kept_twice(self) -> tuple[Path, ...]:
        """What cannot be made again, and so has a copy."""
        return (self.record, self.samples, self.ledger, self.costs, self.ensemble, self.history)

    def space(self, name: str) -> Path:
        """A space as resolved and run."""
        return self.root / "spaces" / f"{name}.yaml"

    def oof(self, trial_id: str) -> Path:
        """The OOF logits of a completed trial."""
        return self.root / "oof" / f"{trial_id}.parquet"

    @property
    def checkpoints(self) -> Path:
        """Unfinished trials, to go on from; empty when a search is over."""
        return self.root / "checkpoints"

    def checkpoint(self, name: str) -> Path:
        """An unfinished trial after its last epoch."""
        return self.checkpoints / f"{name}.safetensors"

    def probe_heads(self, trial_id: str) -> Path:
        """The solved heads of a probe, one a fold."""
        return self.root / "probes" / f"{trial_id}.safetensors"

    def refit(self, trial_id: str) -> Path:
        """The trained parameters of a member, fitted on all dev rows."""
        return self.root / "weights" / trial_id / "refit.safetensors"

    def spaces(self) -> list[Path]:
        """The spaces that are there."""
        return sorted((self.root / "spaces").glob("*.yaml"))

    def refits(self) -> list[Path]:
        """The trained parameters that are there, of all members."""
        return sorted((self.root / "weights").glob("*/refit.safetensors"))


def copy_of(path: Path) -> Path:
    """Return where the second copy of a study's file lies: what cannot be made again is kept twice."""
    return path.parent / "copies" / path.name


class DamagedError(ValueError):
    """A file is missing, cut short or not what its checksum says."""


class CannotWriteError(ValueError):
    """A file cannot be written: the disk is full, or nothing may be written there."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; what is written there takes the file's place, whole and on the disk.

    Raises:
        CannotWriteError: If it cannot be written; nothing is left of it, and the file is as it was.
    """
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            bring_to_disk(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_text(path: Path, text: str) -> None:
    """Replace a text file whole: nobody sees half of it."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Replace a file of bytes whole."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def replace_json(path: Path, values: Any) -> None:
    """Replace a file of JSON whole. NaN and infinities are refused: JSON has none."""
    replace_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def replace_table(path: Path, table: pa.Table) -> None:
    """Replace a Parquet file whole; its pages carry checksums."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def write_twice(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file that cannot be made again and its copy, the copy first: one of them is whole at any time."""
    write(copy_of(path))
    write(path)


def read_either(path: Path, read: Callable[[Path], _Content]) -> _Content:
    """Read a file that is kept twice: its copy where the file itself is missing or damaged.

    Raises:
        DamagedError: If neither can be read, about the file itself.
    """
    try:
        return read(path)
    except DamagedError:
        with contextlib.suppress(DamagedError):
            return read(copy_of(path))
        raise


def read_bytes(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        DamagedError: If it is missing, or the system does not give it out.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        DamagedError: If the file is missing or not JSON, with its name.
    """
    try:
        return json.loads(read_bytes(path).decode())
    except DamagedError:
        raise
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from error


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a Parquet file.

    Raises:
        DamagedError: If the file is missing or damaged or lacks a column, with its name.
    """
    try:
        return pq.read_table(path, page_checksum_verification=True).select(list(columns))
    except (OSError, pa.ArrowException, KeyError) as error:
        told = " ".join(str(error).split())
        raise DamagedError(f"{path} cannot be read: {told}") from error


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other writer uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}{PART}")


def cannot_write(path: Path, error: OSError) -> CannotWriteError:
    """Return the line that says what is in the way of a file, and what a person can do about it."""
    return CannotWriteError(f"{path} cannot be written: {os.strerror(error.errno or 0)}{_remedy(path, error)}")


def _remedy(path: Path, error: OSError) -> str:
    if error.errno in FULL:
        free = shutil.disk_usage(next(each for each in path.absolute().parents if each.exists())).free
        return (
            f" ({free / 1e6:,.0f} MB free); make room and give the same command again: what is finished is kept and "
            "not trained again"
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return "; the folder must be writable for this (`select STUDY --show` and `compare STUDY` only read)"
    return ""


def bring_to_disk(path: Path) -> None:
    """Bring a file's content to the disk, so that its name never comes to stand for less."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
