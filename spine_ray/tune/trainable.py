"""A trial as Ray Tune runs it: one epoch a step, in a process that stays warm for the next trial."""

from dataclasses import asdict, replace
from typing import Any

import torch
from ray import tune

from spine_ray.core.trial import TrialRun
from spine_ray.space.config import TrialConfig
from spine_ray.study.control import write_control
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.tune.work import WorkOrder, open_work, shuffled_labels


class TrialTrainable(tune.Trainable):
    """Trains the configuration it is given; everything is built at its first step."""

    def setup(self, config: dict[str, Any], order: WorkOrder) -> None:  # type: ignore[override]
        """Store what is asked."""
        self._given, self._order = config, order
        self._run: TrialRun | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Forget the last trial; nothing here may fail, because ray does not try again."""
        self._given, self._run = new_config, None
        return True

    def step(self) -> dict[str, Any]:
        """Train one epoch of one fold and, after the last, write the OOF logits."""
        run = self._run or self._start()
        self._run = run
        record = run.next_epoch()
        if run.is_done:
            self._finish(run)
        return {**asdict(record), "is_last": run.is_done, "done": run.is_done}

    def _start(self) -> TrialRun:
        order = self._order
        samples, task = open_work(order)
        config = TrialConfig.from_dict(self._given["trial"])
        folds_to_run = samples.num_folds
        if self._given["is_control"]:
            task = replace(task, labels=shuffled_labels(samples, order.seed))
            folds_to_run = 1
        file = order.weights_file(config.backbone)
        return TrialRun(config, task, samples.folds, file, torch.device(order.device), folds_to_run)

    def _finish(self, run: TrialRun) -> None:
        order = self._order
        samples, _ = open_work(order)
        paths = StudyPaths(order.study)
        if self._given["is_control"]:
            write_control(paths, samples, shuffled_labels(samples, order.seed), run.oof_logits())
        else:
            write_oof(paths, self._given["trial_id"], samples, run.oof_logits())
