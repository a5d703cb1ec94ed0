"""Names on disk: the only module that knows where a study keeps what, and how a file is replaced whole."""

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


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
    def screening(self) -> Path:
        """What each backbone's frozen features promise."""
        return self.root / "screening.json"

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
    def spool(self) -> Path:
        """Tracking records that no MLflow took yet."""
        return self.root / "mlflow.spool.jsonl"

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
    def spaces(self) -> Path:
        """The spaces as resolved and run."""
        return self.root / "spaces"

    def space(self, name: str) -> Path:
        """A space as resolved and run."""
        return self.spaces / f"{name}.yaml"

    def oof(self, trial_id: str) -> Path:
        """The OOF logits of a completed trial."""
        return self.root / "oof" / f"{trial_id}.parquet"

    def refit(self, trial_id: str) -> Path:
        """The trained parameters of a member, fitted on all dev rows."""
        return self.root / "weights" / trial_id / "refit.safetensors"


def replace_text(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it, so that nobody sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a file of bytes under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.write_bytes(content)
    temporary.replace(path)


def replace_json(path: Path, values: Any) -> None:
    """Write JSON under a temporary name and rename it. NaN and infinities are refused: JSON has none."""
    replace_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def replace_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    pq.write_table(table, temporary)
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        ValueError: If the file is not JSON, with its name.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_table(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read some columns of a Parquet file.

    Raises:
        ValueError: If the file is missing or damaged or lacks a column, with its name.
    """
    try:
        return pq.read_table(path).select(list(columns))
    except (OSError, pa.ArrowException, KeyError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read: {told}") from error


def temporary_name(path: Path) -> Path:
    """Return a name beside `path` that no other writer uses."""
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:6]}.part")
