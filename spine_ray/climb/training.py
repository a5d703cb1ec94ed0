"""The checks that need a model, as findings: augmentation, one batch, a linear probe and its shuffled control."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spine_ray.climb.desk import Desk
from spine_ray.climb.request import StoppedByGate
from spine_ray.core.contact_sheet import contact_sheet
from spine_ray.core.screen import Screening
from spine_ray.core.soundness import BatchCheck, TrainingCheck
from spine_ray.core.task import Task
from spine_ray.core.views import Augmentation
from spine_ray.data.counted import counted
from spine_ray.data.findings import Audit, Finding, Level
from spine_ray.data.samples import Samples
from spine_ray.ladder.view_check import FULLY_KEPT, MOSTLY_KEPT, ViewCheck
from spine_ray.space.config import SYMMETRIES, TrialConfig
from spine_ray.study.paths import StudyPaths, read_json, replace_bytes, replace_json
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.tasks import check_backbone
from spine_ray.workers.worker_data import open_work

_LEAK_ACCURACY = 0.1
"""By how much a probe on shuffled labels may beat the largest class before something is wrong with the folds."""


def check_before_training(desk: Desk, configs: Sequence[TrialConfig]) -> ViewCheck | None:
    """Run the checks once for these rows, add what they find to `audit.json`, and say it.

    Args:
        desk: The open study.
        configs: The start recipes of the first tier, cheapest first: the checks are about the first that can be built
            and run.

    Returns:
        What augmentation does to the classes; None where no backbone could tell.

    Raises:
        StoppedByGate: If augmentation destroys the classes, and nobody said `--force`.
    """
    for config in configs:
        known = _check(desk, config)
        if isinstance(known, WorkFailure):
            desk.progress.say(f"{config.backbone} cannot be checked before it trains: {known.reason}")
        else:
            return _tell(desk, config, known)
    return None


def _check(desk: Desk, config: TrialConfig) -> TrainingCheck | WorkFailure:
    """Return what is known of a backbone on these rows, looking at it where nothing is."""
    checks = _stored(desk.paths)
    kept = checks.get(config.trial_id, {})
    if kept.get("data_version") == desk.samples.version:
        return _checks(kept["found"])
    found = check_backbone(config, desk.spec, desk.pool)
    if isinstance(found, TrainingCheck):
        checks[config.trial_id] = {"data_version": desk.samples.version, "found": asdict(found)}
        replace_json(desk.paths.checks, checks)
        desk.paths.contact_sheet.unlink(missing_ok=True)  # of the rows as they were
    if not desk.paths.contact_sheet.exists():
        _, task = open_work(desk.spec)
        write_contact_sheet(desk.paths, task, desk.samples, config)
    return found


def _tell(desk: Desk, config: TrialConfig, known: TrainingCheck) -> ViewCheck:
    findings = training_findings(known, config)
    add_findings(desk.paths, findings)
    for finding in findings:
        desk.progress.say(f"{finding.level}: {finding.message}")
    if known.views.is_destroyed and not desk.request.force:
        raise StoppedByGate(f"preflight: {known.views.sentence}; --force goes on all the same")
    return known.views


def training_findings(found: TrainingCheck, config: TrialConfig) -> tuple[Finding, ...]:
    """Say what the checks found."""
    views, batch, probe = found.views, found.batch, found.probe
    level: Level = "error" if views.is_destroyed else "fact"
    if not views.is_destroyed and views.kept_high is not None and views.kept_high < MOSTLY_KEPT:
        level = "warning"
    size = f"{counted(batch.rows, 'picture', 'pictures')} in {counted(batch.steps, 'step', 'steps')}"
    told = f"{size}: loss {batch.first_loss:.2f} to {batch.last_loss:.2f}"
    findings = [
        Finding(level=level, kind="augmentation", message=f"{views.sentence} ({config.backbone})"),
        Finding(
            level="warning" if batch.verdict == "not learnt" else "fact",
            kind="one_batch",
            message=f"{config.backbone} at its start recipe, one batch by heart: {batch.verdict}; {told}",
        ),
    ]
    if (symmetry := _symmetry_finding(found, config)) is not None:
        findings.append(symmetry)
    knows = probe.probe_accuracy - views.prior_accuracy
    findings.append(
        Finding(
            level="fact" if knows > 0 else "warning",
            kind="probe",
            message=f"a linear probe on its frozen features is right for {probe.probe_accuracy:.1%} of {probe.rows} "
            f"pictures it did not see (nearest neighbours {probe.knn_accuracy:.1%}, largest class "
            f"{views.prior_accuracy:.1%})" + ("" if knows > 0 else ": the labels may have nothing to do with them"),
        )
    )
    leak = found.shuffled.probe_accuracy - views.prior_accuracy > _LEAK_ACCURACY
    findings.append(
        Finding(
            level="warning" if leak else "fact",
            kind="shuffled_control",
            message=f"the same probe on shuffled labels is right for {found.shuffled.probe_accuracy:.1%}"
            + (": something tells it what it cannot know" if leak else ", as it should"),
        )
    )
    return tuple(findings)


def _symmetry_finding(found: TrainingCheck, config: TrialConfig) -> Finding | None:
    """Say which symmetries the labels do not mind, a warning where the recipe uses one that they do."""
    mirrored, turned = found.mirrored.kept, found.turned.kept
    if mirrored is None or turned is None:
        return None
    minds_mirror, minds_turns = mirrored < FULLY_KEPT, turned < FULLY_KEPT
    suits = "none" if minds_mirror else "mirror" if minds_turns else "all"
    used = SYMMETRIES.index(config.training.symmetry)
    return Finding(
        level="warning" if used > SYMMETRIES.index(suits) else "fact",
        kind="symmetry",
        message=f"of what a linear probe knows, {mirrored:.0%} is kept on mirror images and {turned:.0%} on pictures "
        f"turned by right angles: recipe.symmetry {suits!r} suits these labels",
    )


def add_findings(paths: StudyPaths, findings: tuple[Finding, ...]) -> Audit:
    """Add findings to `audit.json` and return the whole audit, errors first."""
    before = Audit.from_dict(read_json(paths.audit)).findings
    audit = Audit.ordered((*before, *findings))
    replace_json(paths.audit, audit.to_dict())
    return audit


def write_contact_sheet(paths: StudyPaths, task: Task, samples: Samples, config: TrialConfig) -> None:
    """Draw views of a few dev pictures of each class."""
    augmentation = Augmentation.of(config.training)
    drawn = contact_sheet(task, samples.dev, samples.classes, augmentation, config.resolution)
    replace_bytes(paths.contact_sheet, drawn)


def _stored(paths: StudyPaths) -> dict[str, Any]:
    """Return what was found before, by trial id."""
    if not paths.checks.exists():
        return {}
    found = read_json(paths.checks)
    if not isinstance(found, dict):
        raise ValueError(f"{paths.checks} is damaged: it holds no table; delete it to have it made anew")
    return found


def _checks(found: Mapping[str, Any]) -> TrainingCheck:
    return TrainingCheck(
        views=ViewCheck(**found["views"]),
        mirrored=ViewCheck(**found["mirrored"]),
        turned=ViewCheck(**found["turned"]),
        batch=BatchCheck(**found["batch"]),
        probe=Screening(**found["probe"]),
        shuffled=Screening(**found["shuffled"]),
    )
