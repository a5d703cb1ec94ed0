"""The ensemble of a study: what is chosen from, what is wished for, and the file that keeps the answer."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spine_ray.ensemble import Amount, Cost, Ensemble, select
from spine_ray.ladder.evidence import Evidence
from spine_ray.study.paths import StudyPaths, copy_of, read_either, read_json, replace_json, write_twice
from spine_ray.study.tables import Costs, cost_key
from spine_ray.study.trials import Trial

_KINDS = {"members": list, "candidates": list, "best_single": str, "wishes": dict, "judge": dict, "report": dict}
"""What `ensemble.json` has to hold for a choice to be read back."""
_BYTES = 4
"""Of a weight as it ships, float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What a person wants of the ensemble; kept in the study and heeded until it is taken back."""

    pinned: tuple[str, ...] = ()
    """Trials that must be in."""
    banned: tuple[str, ...] = ()
    """Trials that must not."""

    @property
    def lines(self) -> tuple[str, ...]:
        """The wishes as words."""
        told = [f"kept in by you: {name}" for name in self.pinned] + [
            f"kept out by you: {name}" for name in self.banned
        ]
        return tuple(told)

    def pin(self, *trial_ids: str) -> "Wishes":
        """Return the wishes with trials that must be in."""
        freed = self.free(*trial_ids)
        return Wishes(pinned=(*freed.pinned, *trial_ids), banned=freed.banned)

    def ban(self, *trial_ids: str) -> "Wishes":
        """Return the wishes with trials that must not be in."""
        freed = self.free(*trial_ids)
        return Wishes(pinned=freed.pinned, banned=(*freed.banned, *trial_ids))

    def free(self, *trial_ids: str) -> "Wishes":
        """Return the wishes without those about some trials."""
        return Wishes(
            pinned=tuple(each for each in self.pinned if each not in trial_ids),
            banned=tuple(each for each in self.banned if each not in trial_ids),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What an ensemble may be."""

    max_members: int = 8
    max_cost: float | None = None
    """ms an image of the whole set."""
    max_per_family: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """What is reported first."""

    metric: str = "log_loss"
    cost_matrix: tuple[tuple[float, ...], ...] | None = None
    """[truth][decision] in the order of the classes; None: every mistake costs 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """An ensemble with the trials it was chosen from."""

    trials: tuple[Trial, ...]
    """The candidates, in the order in which the ensemble counts them: all of the same rows."""
    ensemble: Ensemble
    wishes: Wishes = field(default_factory=Wishes)
    judge: Judge = field(default_factory=Judge)

    @property
    def members(self) -> tuple[Trial, ...]:
        """The ensemble's trials."""
        return tuple(self.trials[place] for place in self.ensemble.members)

    @property
    def single(self) -> Trial:
        """The best single model by OOF log-loss."""
        return self.trials[int(self.ensemble.report["best_single"])]

    @property
    def digest(self) -> str:
        """A name for the model that the ensemble is, by which test results are kept."""
        identity = {
            "members": [trial.trial_id for trial in self.members],
            "weights": self.ensemble.weights,
            "temperatures": self.ensemble.temperatures,
            "final_temperature": self.ensemble.final_temperature,
            "pool": self.ensemble.pool,
            "data_version": self.trials[0].started.data_version,
        }
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def make_choice(evidence: Evidence, costs: Costs, wishes: Wishes, limits: Limits, judge: Judge, seed: int) -> Choice:
    """Select from the evidence; wishes about trials that are not in it are left for later.

    Raises:
        ValueError: If a cost was never measured, or wishes and limits leave nothing.
    """
    places = {trial.trial_id: place for place, trial in enumerate(evidence.trials)}
    ensemble = select(
        evidence.logits,
        evidence.labels,
        families=[trial.started.family for trial in evidence.trials],
        resolutions=[trial.config.resolution for trial in evidence.trials],
        costs=[price_of(trial, costs) for trial in evidence.trials],
        folds=evidence.folds,
        groups=evidence.groups,
        pinned=[places[name] for name in wishes.pinned if name in places],
        banned=[places[name] for name in wishes.banned if name in places],
        cost_matrix=judge.cost_matrix,
        seed=seed,
        **asdict(limits),
    )
    return Choice(trials=evidence.trials, ensemble=ensemble, wishes=wishes, judge=judge)


def price_of(trial: Trial, costs: Costs) -> Cost:
    """Return what a trial costs as a member: its frozen prefix is shared by all that have the same.

    Raises:
        ValueError: If it was never measured.
    """
    config, cost = trial.config, costs.get(cost_key(trial.config))
    if cost is None:
        raise ValueError(f"the cost of {trial.trial_id} was never measured: the search's own command measures it")
    if cost.prefix_images_s is None:
        whole = _amount(1000.0 / cost.infer_images_s, cost.macs, trial.started.params)
        return Cost(own=whole)
    name = f"{config.backbone} at {config.resolution} px, frozen to {config.freeze:g}"
    prefix = _amount(1000.0 / cost.prefix_images_s, cost.prefix_macs, cost.prefix_params)
    own = _amount(1000.0 / cost.score_images_s, cost.macs - cost.prefix_macs, trial.started.params - cost.prefix_params)
    return Cost(own=own, shared=((name, prefix),))


def stored_choice(paths: StudyPaths) -> dict[str, Any]:
    """Return what `ensemble.json` holds; empty where nothing was chosen yet.

    Raises:
        ValueError: If it does not hold what `write_choice` writes.
    """
    if not paths.ensemble.exists() and not copy_of(paths.ensemble).exists():
        return {}
    found = read_either(paths.ensemble, read_json)
    for name, kind in _KINDS.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            raise ValueError(
                f"{paths.ensemble} is damaged: {name} is missing or not what it should be; delete it to choose anew"
            )
    return dict(found)


def stored_wishes(paths: StudyPaths) -> Wishes:
    """Return the wishes that the study keeps."""
    kept: Mapping[str, Sequence[str]] = stored_choice(paths).get("wishes", {})
    return Wishes(**{name: tuple(trial_ids) for name, trial_ids in kept.items()})


def stored_judge(paths: StudyPaths) -> Judge:
    """Return what the study's last choice reported first."""
    return _judge(stored_choice(paths))


def write_choice(
    paths: StudyPaths, choice: Choice, test: Sequence[Mapping[str, Any]], openings: int, stored_side: int | None
) -> None:
    """Write `ensemble.json` and its copy.

    Args:
        paths: The study.
        choice: The ensemble.
        test: What the very same ensemble scored on the test split.
        openings: How often the test split was looked at.
        stored_side: Short side of the decoded pictures that the members were fitted and scored on, px; predicting
            decodes at it too. None where none was fitted yet.
    """
    ensemble = choice.ensemble
    members = [
        {
            "trial_id": trial.trial_id,
            "backbone": trial.config.backbone,
            "family": trial.started.family,
            "resolution": trial.config.resolution,
            "freeze": trial.config.freeze,
            "weight": weight,
            "temperature": temperature,
        }
        for trial, weight, temperature in zip(choice.members, ensemble.weights, ensemble.temperatures, strict=True)
    ]
    values = {
        "hash": choice.digest,
        "members": members,
        "pool": ensemble.pool,
        "final_temperature": ensemble.final_temperature,
        "best_single": choice.single.trial_id,
        "candidates": [trial.trial_id for trial in choice.trials],
        "wishes": asdict(choice.wishes),
        "judge": asdict(choice.judge),
        "certificate": ensemble.certificate,
        "trajectory": ensemble.trajectory,
        "report": ensemble.report,
        "test": list(test),
        "test_openings": openings,
        "stored_side": stored_side,
    }
    write_twice(paths.ensemble, lambda place: replace_json(place, values))


def read_choice(paths: StudyPaths, trials: Mapping[str, Trial]) -> Choice:
    """Return the choice that the study keeps.

    Args:
        paths: The study.
        trials: All of the present rows, however they ended: a candidate may have to be trained again since.

    Raises:
        ValueError: If nothing was chosen yet, or from trials that are not there.
    """
    stored = stored_choice(paths)
    if not stored:
        raise ValueError(f"{paths.root} has no ensemble yet; choose one first, without --show")
    gone = [name for name in stored["candidates"] if name not in trials]
    if gone:
        raise ValueError(f"{paths.ensemble} was chosen from {gone[0]}, which is not there; choose anew, without --show")
    places = {name: place for place, name in enumerate(stored["candidates"])}
    ensemble = Ensemble(
        members=tuple(places[member["trial_id"]] for member in stored["members"]),
        weights=tuple(member["weight"] for member in stored["members"]),
        temperatures=tuple(member["temperature"] for member in stored["members"]),
        final_temperature=stored["final_temperature"],
        pool=stored["pool"],
        trajectory=tuple(stored["trajectory"]),
        certificate=stored["certificate"],
        report=stored["report"],
    )
    candidates = tuple(trials[name] for name in stored["candidates"])
    return Choice(trials=candidates, ensemble=ensemble, wishes=stored_wishes(paths), judge=_judge(stored))


def present_choice(paths: StudyPaths, present: Mapping[str, Trial]) -> Choice | None:
    """Return the choice that the study keeps; None where there is none, or it is of rows as they were."""
    stored = stored_choice(paths)
    if not stored or any(name not in present for name in stored["candidates"]):
        return None
    return read_choice(paths, present)


def kept_test(paths: StudyPaths, choice: Choice) -> tuple[dict[str, Any], ...]:
    """Return the test results that the study keeps of this very ensemble."""
    before = stored_choice(paths)
    return tuple(before.get("test", ())) if before.get("hash") == choice.digest else ()


def _judge(stored: Mapping[str, Any]) -> Judge:
    kept = stored.get("judge", {})
    costs = kept.get("cost_matrix")
    return Judge(metric=kept.get("metric", "log_loss"), cost_matrix=None if costs is None else tuple(map(tuple, costs)))


def _amount(ms: float, macs: int, params: int) -> Amount:
    return Amount(ms=ms, macs=macs, megabytes=params * _BYTES / 1e6)
