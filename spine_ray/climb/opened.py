"""A study as Python sees it: its tables, its ensemble, and predictions."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from spine_ray.climb.artefact import study_artefact
from spine_ray.climb.choice import stored_choice
from spine_ray.climb.pick import StoredStudy, open_stored, trial_named
from spine_ray.data.albums import listed_album, open_album
from spine_ray.ensemble.metrics import bootstrap_interval
from spine_ray.ladder.comparison import compare_losses
from spine_ray.ladder.evidence import gather
from spine_ray.ship.run import Predictor
from spine_ray.ship.table import columns_of
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import read_table
from spine_ray.study.tables import cost_key, trials_table
from spine_ray.study.trials import trials_from_events


class OpenStudy:
    """What a study holds, read when it is asked for. Tables are Arrow's; `.to_pandas()` makes them pandas'.

    Args:
        stored: The study.
    """

    def __init__(self, stored: StoredStudy) -> None:
        """Take a study that was opened."""
        self._stored = stored

    def board(self) -> pa.Table:
        """Return every completed trial on the present rows, lowest OOF log-loss (after temperature, nats) first.

        `low` and `high` are the 95 % interval of the log-loss over rows, `behind` is the log-loss minus the best's on
        the same rows, `margin` half the width of its interval, which holds for all pairs at once.
        """
        stored = self._stored
        evidence = gather(stored.paths, stored.samples, stored.completed)
        seed = stored.record.seed
        found = compare_losses(evidence.losses, evidence.groups, seed=seed)
        members = {each["trial_id"] for each in self.ensemble().get("members", ())}
        rows = []
        for place in found.order:
            trial, losses = evidence.trials[place], evidence.losses[place]
            low, high = bootstrap_interval(losses, evidence.groups, seed=seed)
            behind, margin = found.behind(place)
            cost = stored.costs.get(cost_key(trial.config))
            rows.append(
                {
                    "trial_id": trial.trial_id,
                    "tier": trial.started.tier,
                    "backbone": trial.config.backbone,
                    "family": trial.started.family,
                    "resolution": trial.config.resolution,
                    "freeze": trial.config.freeze,
                    "is_start": trial.started.is_start,
                    "is_member": trial.trial_id in members,
                    "log_loss": float(losses.mean()),
                    "low": low,
                    "high": high,
                    "behind": behind,
                    "margin": margin,
                    "accuracy": float((evidence.logits[place].argmax(axis=1) == evidence.labels).mean()),
                    "seconds": trial.seconds,
                    "latency_ms": 1000.0 / cost.infer_images_s if cost else None,
                }
            )
        return pa.Table.from_pylist(rows)

    def trials(self) -> pa.Table:
        """Return one row a trial, whatever became of it: its configuration, status with reason, cost, scores."""
        trials = trials_from_events(read_ledger(self._stored.paths.ledger))
        return trials_table(trials.values(), self._stored.costs)

    def oof(self, trial_id: str) -> pa.Table:
        """Return a completed trial's OOF logits: `sample_id`, `fold`, `label` and `logits` (float32, one a class).

        Args:
            trial_id: The id, or a part of it that only one trial has.

        Raises:
            ValueError: If no completed trial, or several, are called so.
        """
        name = trial_named(trial_id, self._stored.completed)
        return read_table(self._stored.paths.oof(name), ("sample_id", "fold", "label", "logits"))

    def ensemble(self) -> dict[str, Any]:
        """Return `ensemble.json`: members, weights, temperatures, the report; empty where nothing was chosen yet."""
        return stored_choice(self._stored.paths)

    def predict(self, images: str | Path | Sequence[str | Path | bytes]) -> pa.Table:
        """Return what the ensemble says, one row an image, with the columns of `python -m spine_ray.predict`.

        Args:
            images: A folder, a CSV, a Parquet or one picture, also at a URI; or a list of paths, or of the bytes of
                picture files.

        Raises:
            ValueError: If there are no pictures, or the members are not fitted yet.
        """
        album = open_album(str(images)) if isinstance(images, str | Path) else listed_album(images)
        classes = self._predictor.artefact.classes
        blocks = [pa.table(columns_of(block, classes)) for block in self._predictor.predict(album)]
        if not blocks:
            raise ValueError(f"{album.name} hold no pictures")
        return pa.concat_tables(blocks, promote_options="permissive")

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(*study_artefact(self._stored))


def open_study(root: str | Path) -> OpenStudy:
    """Open a study that has at least one completed trial.

    Raises:
        ValueError: If there is none.
    """
    return OpenStudy(open_stored(Path(root)))
