"""What a study ships, as an artefact: its chosen members, fitted on all dev rows, and what is known of them."""

import hashlib
import importlib.metadata
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spine_ray.climb.choice import price_of, stored_choice
from spine_ray.climb.pick import StoredStudy
from spine_ray.core.weights import weights_again
from spine_ray.ensemble.cascade import OofRows, plan_cascade
from spine_ray.ensemble.mix import Mix
from spine_ray.ladder.evidence import gather
from spine_ray.ship.artefact import Arrays, Artefact, Member
from spine_ray.space.arithmetic import FLOAT32, parse_arithmetic
from spine_ray.study.shipped import read_refit
from spine_ray.study.trials import Trial

_log = logging.getLogger(__name__)

PACKAGES = ("torch", "timm", "numpy", "pillow", "safetensors")
"""What a bundle needs to run."""


class StudyTensors:
    """The tensors of a study's members: what was trained from the study, the rest from the initial weights."""

    def __init__(self, study: StoredStudy) -> None:
        """Read nothing yet."""
        self._study = study

    def initial(self, member: Member) -> Path | None:
        """Return the file of a frozen member's initial weights; whatever is trained whole needs none.

        Raises:
            ValueError: If it is not there any more, or is another file than the one the study began with.
        """
        weights, backbone = self._study.record.weights, member.config.backbone
        if weights.kind == "random" or member.config.freeze == 0.0:
            return None
        path = weights_again(weights.source, [backbone], _log.info).files[backbone]
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != weights.hashes.get(backbone):
                raise ValueError(f"{path} is not the file of {backbone} that the study began with")
        return path

    def fitted(self, member: Member) -> Arrays:
        """Return the tensors that the last fit on all dev rows has changed.

        Raises:
            ValueError: If the file is missing or damaged.
        """
        return read_refit(self._study.paths, member.trial_id)


def study_artefact(study: StoredStudy) -> tuple[Artefact, StudyTensors]:
    """Return what a study ships.

    Raises:
        ValueError: If nothing was chosen yet, or a member was not fitted on all dev rows.
    """
    stored = stored_choice(study.paths)
    root = study.paths.root
    if not stored:
        raise ValueError(f"{root} has no ensemble yet; the search chooses one at its end, or spine_ray.select")
    missing = study.not_fitted
    if missing or stored.get("stored_side") is None:
        who = ", ".join(missing) or "the members"
        raise ValueError(f"{root}: {who} not fitted on all dev rows yet; the search's own command fits them")
    trials = [study.trials[each["trial_id"]] for each in stored["members"]]
    artefact = Artefact(
        classes=study.samples.classes,
        seed=study.record.seed,
        stored_side=stored["stored_side"],
        members=tuple(_member(study, trial) for trial in trials),
        mix=Mix(
            weights=tuple(each["weight"] for each in stored["members"]),
            temperatures=tuple(each["temperature"] for each in stored["members"]),
            pool=stored["pool"],
            final_temperature=stored["final_temperature"],
        ),
        about=_about(study, stored),
    )
    return artefact, StudyTensors(study)


def with_cascade(study: StoredStudy, artefact: Artefact) -> Artefact:
    """Return the artefact with a cascade planned on its members' OOF logits.

    Raises:
        ValueError: If a member's cost was never measured, or its OOF logits are lost.
    """
    trials = {member.trial_id: study.trials[member.trial_id] for member in artefact.members}
    lost = next((name for name, trial in trials.items() if not trial.is_completed), None)
    if lost is not None:
        raise ValueError(f"the OOF logits of {lost} are lost: the search's own command trains it again")
    evidence = gather(study.paths, study.samples, trials)
    oof = OofRows(logits=evidence.logits, labels=evidence.labels, folds=evidence.folds, groups=evidence.groups)
    costs = [price_of(trial, study.costs) for trial in trials.values()]
    return replace(artefact, cascade=plan_cascade(artefact.mix, oof, costs, seed=study.record.seed))


def _member(study: StoredStudy, trial: Trial) -> Member:
    arithmetic = study.record.choices.arithmetic.get(trial.config.backbone)
    return Member(
        config=trial.config,
        arithmetic=FLOAT32 if arithmetic is None else parse_arithmetic(arithmetic),
        family=trial.started.family,
        weights_source=trial.started.weights_source,
        licence=trial.started.licence,
    )


def _about(study: StoredStudy, stored: dict[str, Any]) -> dict[str, Any]:
    """Return what people ask of a model, as plain values; every number says what it describes."""
    record, samples, report = study.record, study.samples, stored["report"]
    return {
        "fitted_on": {
            "rows": len(samples.dev),
            "what": "all dev rows, once more after the trials",
            "data": record.data,
            "data_fingerprint": samples.data_fingerprint,
            "fold_fingerprint": samples.fold_fingerprint,
        },
        "oof": {
            "what": "OOF logits of the members' trials pooled, on the rows they were chosen on: somewhat optimistic",
            "rows": len(samples.dev),
            "log_loss": report["log_loss"],
            "log_loss_interval": report["log_loss_interval"],
            "accuracy": report["accuracy"],
        },
        "test": list(stored["test"]),
        "test_openings": stored["test_openings"],
        "weights": {"kind": record.weights.kind, "source": record.weights.source, "hashes": record.weights.hashes},
        "versions": {"fitted_with": record.versions, "exported_with": package_versions(PACKAGES)},
        "device": record.device,
    }


def package_versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of packages by name."""
    return {package: importlib.metadata.version(package) for package in packages}
