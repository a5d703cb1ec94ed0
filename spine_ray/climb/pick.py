"""Choosing and editing the ensemble of a stored study: numbers only, no model is run."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spine_ray.climb.choice import (
    Choice,
    Limits,
    Wishes,
    kept_test,
    make_choice,
    stored_choice,
    stored_judge,
    stored_wishes,
    write_choice,
)
from spine_ray.data.samples import Samples
from spine_ray.ladder.evidence import gather
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import DamagedError, StudyPaths, read_either
from spine_ray.study.record import StudyRecord, read_record
from spine_ray.study.shipped import is_fitted
from spine_ray.study.tables import Costs, read_costs, read_samples
from spine_ray.study.trials import Trial, trials_from_events


@dataclass(frozen=True, kw_only=True, slots=True)
class Edits:
    """What a person asks for, in trial ids or parts of them."""

    add: Sequence[str] = ()
    drop: Sequence[str] = ()
    pin: Sequence[str] = ()
    ban: Sequence[str] = ()
    free: Sequence[str] = ()

    @property
    def is_small(self) -> bool:
        """Whether the members stay, but for those named."""
        return bool(self.add or self.drop)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredStudy:
    """What of a study is needed to choose."""

    paths: StudyPaths
    record: StudyRecord
    samples: Samples
    trials: Mapping[str, Trial]
    """All on the present rows."""

    @property
    def costs(self) -> Costs:
        """What was measured."""
        return read_costs(self.paths)

    @property
    def completed(self) -> dict[str, Trial]:
        """Those with OOF logits."""
        return {name: trial for name, trial in self.trials.items() if trial.is_completed}

    @property
    def not_fitted(self) -> list[str]:
        """Members that were not fitted on all dev rows yet."""
        members = [member["trial_id"] for member in stored_choice(self.paths).get("members", [])]
        version = self.samples.version
        return [trial_id for trial_id in members if not is_fitted(self.paths, trial_id, version)]


def open_stored(root: Path) -> StoredStudy:
    """Open a study for choosing.

    Raises:
        ValueError: If there is none, or no trial of it was completed.
    """
    record, paths = read_record(root), StudyPaths(root)
    try:
        samples = read_either(paths.samples, read_samples)
    except DamagedError as error:
        raise ValueError(f"{error}, and so is its copy: the search's own command deals the same rows anew") from error
    known = trials_from_events(read_ledger(paths.ledger))
    trials = {name: trial for name, trial in known.items() if trial.is_of(samples.version)}
    study = StoredStudy(paths=paths, record=record, samples=samples, trials=trials)
    if not study.completed:
        raise ValueError(f"no trial of {root} was completed on its present rows, so there is nothing to choose from")
    return study


def pick(study: StoredStudy, edits: Edits, limits: Limits) -> Choice:
    """Choose anew, or change the members that are there, and keep the answer and the wishes in the held study.

    Raises:
        ValueError: If a trial is not known.
    """
    wishes = _wishes(study, edits)
    choice = _changed(study, edits, wishes) if edits.is_small else _anew(study, wishes, limits)
    openings = len(study.record.test_openings)
    side = stored_choice(study.paths).get("stored_side")
    write_choice(study.paths, choice, kept_test(study.paths, choice), openings, side)
    return choice


def trial_named(words: str, known: Collection[str]) -> str:
    """Return the one trial whose id holds the words.

    Raises:
        ValueError: If none or several do.
    """
    if words in known:
        return words
    found = [trial_id for trial_id in known if words in trial_id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"no completed trial is called {words!r}; they are: {_listed(sorted(known))}")
    raise ValueError(f"{words!r} names {len(found)} trials: {_listed(sorted(found))}")


def _wishes(study: StoredStudy, edits: Edits) -> Wishes:
    """Return the study's wishes with the new ones: what was added stays in, what was dropped stays out."""
    named = {
        kind: [trial_named(words, study.completed) for words in given]
        for kind, given in (("pin", [*edits.pin, *edits.add]), ("ban", [*edits.ban, *edits.drop]), ("free", edits.free))
    }
    both = sorted(set(named["pin"]) & set(named["ban"]))
    if both:
        raise ValueError(f"{both[0]} cannot be both in and out")
    return stored_wishes(study.paths).free(*named["free"]).pin(*named["pin"]).ban(*named["ban"])


def _anew(study: StoredStudy, wishes: Wishes, limits: Limits) -> Choice:
    evidence = gather(study.paths, study.samples, study.completed)
    return make_choice(evidence, study.costs, wishes, limits, stored_judge(study.paths), study.record.seed)


def _changed(study: StoredStudy, edits: Edits, wishes: Wishes) -> Choice:
    """Change the members that are there and weigh them anew; nothing else may come in."""
    stored = stored_choice(study.paths)
    # A member whose OOF logits were lost cannot be weighed until it is trained again.
    before = [member["trial_id"] for member in stored.get("members", []) if member["trial_id"] in study.completed]
    if not before:
        raise ValueError(f"{study.paths.root} has no ensemble to change; choose one first, without --add and --drop")
    dropped = {trial_named(words, study.completed) for words in edits.drop}
    missing = sorted(dropped - set(before))
    if missing:
        raise ValueError(f"{missing[0]} is not a member; the members are: {_listed(before)}")
    added = [trial_named(words, study.completed) for words in edits.add]
    members = list(dict.fromkeys([*(name for name in before if name not in dropped), *added]))
    if not members:
        raise ValueError("an ensemble needs a member: the last one cannot be dropped")
    # The best single model comes along to be compared with; with every place taken it cannot come in.
    beside = [name for name in (stored["best_single"],) if name not in dropped and name in study.completed]
    wanted = {name: study.completed[name] for name in dict.fromkeys([*members, *beside])}
    evidence = gather(study.paths, study.samples, wanted)
    fixed = Wishes(pinned=tuple(members))
    limits = Limits(max_members=len(members))
    choice = make_choice(evidence, study.costs, fixed, limits, stored_judge(study.paths), study.record.seed)
    return replace(choice, wishes=wishes)


def _listed(names: Sequence[str], most: int = 12) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
