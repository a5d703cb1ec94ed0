"""What completed trials say, side by side on the same rows: the matter of gates, board and ensemble."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spine_ray.data.samples import Samples
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import row_losses
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import Trial


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """OOF logits of completed trials on a study's dev rows."""

    trials: tuple[Trial, ...]
    logits: npt.NDArray[np.float32]
    """(trials, dev rows, classes)."""
    labels: npt.NDArray[np.int64]
    folds: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    @cached_property
    def losses(self) -> npt.NDArray[np.float64]:
        """Log-loss of each row after the trial's own temperature, (trials, dev rows), nats."""
        losses = np.zeros(self.logits.shape[:2])
        for place in range(len(self.trials)):
            losses[place] = row_losses(self.calibrated(place), self.labels)
        return losses

    def places(self, trials: Iterable[Trial]) -> npt.NDArray[np.int64]:
        """Return where some trials stand here; those without OOF logits stand nowhere."""
        wanted = {trial.trial_id for trial in trials}
        return np.array([place for place, trial in enumerate(self.trials) if trial.trial_id in wanted], np.int64)

    def best(self, places: Sequence[int] | npt.NDArray[np.int64]) -> int:
        """Return the place with the lowest OOF log-loss."""
        return int(min(places, key=lambda place: (float(self.losses[place].mean()), int(place))))

    def calibrated(self, place: int) -> npt.NDArray[np.float64]:
        """Return a trial's calibrated log-probabilities, (dev rows, classes)."""
        logits = self.logits[place]
        return log_probs(logits, fit_temperature(logits, self.labels))


def gather(paths: StudyPaths, samples: Samples, trials: Mapping[str, Trial]) -> Evidence:
    """Read the OOF logits of every completed trial."""
    completed = tuple(trial for trial in trials.values() if trial.is_completed)
    labels = samples.labels[samples.dev]
    shape = (len(completed), len(labels), len(samples.classes))
    logits = np.zeros(shape, np.float32)
    for place, trial in enumerate(completed):
        logits[place] = read_oof(paths, trial.trial_id, samples)
    return Evidence(
        trials=completed,
        logits=logits,
        labels=labels,
        folds=samples.folds[samples.dev].astype(np.int64),
        groups=samples.groups[samples.dev],
    )
