"""A study as its files tell it, finished or not: what the board, the comparison and the report are made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from spine_ray.climb.changes import Change, stored_history
from spine_ray.climb.choice import Choice, kept_test, present_choice
from spine_ray.data.samples import Samples
from spine_ray.ladder.gates import GateDecision
from spine_ray.space.load import load_space
from spine_ray.space.schema import Space
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths, read_either, read_json
from spine_ray.study.record import StudyRecord, read_record
from spine_ray.study.tables import Costs, read_costs, read_samples
from spine_ray.study.trials import Trial, trials_from_events


@dataclass(frozen=True, kw_only=True)
class StudyFiles:
    """Everything that is kept of a study, but the OOF logits."""

    paths: StudyPaths
    record: StudyRecord
    samples: Samples
    trials: Mapping[str, Trial]
    """All of them, by id, in the order in which they first started."""
    costs: Costs
    spaces: tuple[Space, ...]
    """As resolved and run, by name."""
    decisions: tuple[GateDecision, ...]
    """Of the last search's gates."""
    choice: Choice | None
    """The ensemble, if one was chosen on the present rows."""
    test: tuple[dict[str, Any], ...]
    """What this very ensemble scored on the test split."""
    history: tuple[Change, ...]
    """What each finished search changed, the oldest first."""
    plan: Mapping[str, Any]
    """What the last search was predicted to take and, once it ended, what it took."""

    @cached_property
    def present(self) -> dict[str, Trial]:
        """The trials on the rows as they are now, by id."""
        version = self.samples.version
        return {name: trial for name, trial in self.trials.items() if trial.is_of(version)}

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that were begun, from the first."""
        return tuple(dict.fromkeys(trial.started.tier for trial in self.trials.values()))

    @property
    def openings(self) -> int:
        """How often the test split was looked at."""
        return len(self.record.test_openings)


def read_files(root: Path) -> StudyFiles:
    """Read a study.

    Raises:
        ValueError: If there is none, or a file of it is damaged; one line.
    """
    record, paths = read_record(root), StudyPaths(root)
    samples = read_either(paths.samples, read_samples)
    trials = trials_from_events(read_ledger(paths.ledger))
    version = samples.version
    choice = present_choice(paths, {name: trial for name, trial in trials.items() if trial.is_of(version)})
    return StudyFiles(
        paths=paths,
        record=record,
        samples=samples,
        trials=trials,
        costs=read_costs(paths),
        spaces=tuple(load_space(str(file)) for file in paths.spaces()),
        decisions=stored_decisions(paths),
        choice=choice,
        test=kept_test(paths, choice) if choice else (),
        history=tuple(stored_history(paths)),
        plan=_stored_plan(paths),
    )


def stored_decisions(paths: StudyPaths) -> tuple[GateDecision, ...]:
    """Return the gates' decisions that the study keeps.

    Raises:
        ValueError: If the file is damaged.
    """
    if not paths.gates.exists():
        return ()
    try:
        return tuple(map(GateDecision.from_dict, read_json(paths.gates)))
    except TypeError as error:
        raise ValueError(f"{paths.gates} is damaged: {error}") from error


def _stored_plan(paths: StudyPaths) -> dict[str, Any]:
    if not paths.plan.exists():
        return {}
    found = read_json(paths.plan)
    if not isinstance(found, dict):
        raise ValueError(f"{paths.plan} is damaged: it holds no table")
    return found
