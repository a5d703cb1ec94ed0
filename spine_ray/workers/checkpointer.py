"""Checkpoints of a running trial: what they hold, how often they are written, and whether one found fits."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from spine_ray.core.epoch_record import EpochRecord
from spine_ray.core.probe import ProbeRun
from spine_ray.core.trial import TrialRun
from spine_ray.data.samples import Samples
from spine_ray.study.checkpoint import CONTROL, Checkpoint, read_checkpoint, write_checkpoint
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import TrialRequest
from spine_ray.workers.worker_data import depot_of

SHARE = 0.02
"""Of a trial's time, what keeping it may take: where epochs are short, not every one is kept."""
_FORMAT = "1"


class Checkpointer:
    """Writes and reads one trial's checkpoint.

    Args:
        spec: The same for all trials.
        request: The trial.
        samples: The study's rows.
    """

    def __init__(self, spec: WorkerSpec, request: TrialRequest, samples: Samples) -> None:
        """Note what a checkpoint must be of."""
        self._depot = depot_of(spec)
        self._name = CONTROL if request.is_control else request.trial_id
        config = request.started.config
        self._of: dict[str, Any] = {
            "format": _FORMAT,
            "configuration": config.to_dict(),
            "seed": spec.seed,
            "data version": samples.version,
            "shuffled labels": request.is_control,
            "frozen part": spec.frozen_hash(config.backbone),
            "arithmetic": str(spec.arithmetic_of(config)),
        }
        self._next = 0.0

    def resume(self, run: TrialRun | ProbeRun) -> list[EpochRecord]:
        """Bring a new run to where its checkpoint stood and return the epochs so far; none without a checkpoint.

        Raises:
            ValueError: If the checkpoint is damaged or of something else; the run is then of no use any more.
        """
        self._depot.fetch(self._depot.paths.checkpoint(self._name))
        found = read_checkpoint(self._depot.paths, self._name)
        if found is None:
            return []
        about = dict(found.about)
        stored = about.pop("records", None)
        odd = [name for name in self._of if about.get(name) != self._of[name]]
        if odd or not isinstance(stored, list):
            raise ValueError(f"it is of another {', '.join(odd) or 'format'}")
        try:
            records = [EpochRecord(**record) for record in stored]
        except TypeError as error:
            raise ValueError(f"its epochs cannot be read: {error}") from error
        run.resume(len(records), dict(found.arrays))
        return records

    def write(self, run: TrialRun | ProbeRun, records: Sequence[EpochRecord]) -> None:
        """Write a run after an epoch; always after the last one, before that no more often than its share allows.

        Raises:
            LostHoldError: If another search holds the study by now.
        """
        began = time.perf_counter()
        if began < self._next and not run.is_done:
            return
        about = {**self._of, "records": [asdict(record) for record in records]}
        write_checkpoint(self._depot, self._name, Checkpoint(about, run.state()))
        now = time.perf_counter()
        self._next = now + (now - began) / SHARE

    def drop(self) -> None:
        """Remove the checkpoint."""
        self._depot.remove(self._depot.paths.checkpoint(self._name))
