"""The best answer so far, told after every trial that completes."""

from collections.abc import Iterable

from spine_ray.data.samples import Samples
from spine_ray.ensemble.quick import QuickEnsemble
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import Trial


class AnswerSoFar:
    """Chooses a small ensemble again after each trial that completes; optimistic, because nothing is cross-fitted.

    Args:
        paths: The study.
        samples: Its rows.
    """

    def __init__(self, paths: StudyPaths, samples: Samples) -> None:
        """Know no trial yet."""
        self._paths, self._samples = paths, samples
        self._ensemble = QuickEnsemble(samples.labels[samples.dev], len(samples.classes))
        self._trials: list[Trial] = []

    def after(self, completed: Iterable[Trial]) -> str:
        """Return a line about the best answer from all completed trials; empty as long as there is one trial.

        Args:
            completed: All completed trials of the present rows; those that are known already cost nothing.
        """
        known = {trial.trial_id for trial in self._trials}
        for trial in completed:
            if trial.trial_id not in known:
                self._ensemble.add(read_oof(self._paths, trial.trial_id, self._samples))
                self._trials.append(trial)
        if len(self._trials) < 2:
            return ""
        answer = self._ensemble.answer()
        names = " + ".join(dict.fromkeys(self._trials[index].config.backbone for index in answer.members))
        first = self._trials[0].config.backbone
        score = f"log-loss {answer.score.log_loss:.4f}, accuracy {answer.score.accuracy:.1%}"
        alone = f"{first}, the first trial, alone: {answer.first.log_loss:.4f}"
        return f"best answer so far: {names}: {score} on OOF rows, optimistic ({alone})"
