"""What every pool does with a tier and with tasks: the same in this process and on Ray."""

import math
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from spine_ray.core.activations import open_inputs
from spine_ray.core.epoch_record import ALL_FOLDS
from spine_ray.core.features import scoring_features
from spine_ray.core.fit import Fit
from spine_ray.core.network import Network
from spine_ray.core.probe import refitted_head
from spine_ray.core.ship import REFIT
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.study.control import read_control
from spine_ray.study.events import EpochDone, TrialEnded, TrialResumed, TrialStarted
from spine_ray.study.hold import held
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.in_process import in_process_pool
from spine_ray.workers.layout import PoolLayout
from spine_ray.workers.pool import WorkerPool
from spine_ray.workers.tasks import measure_costs, refit_members, score_rows
from spine_ray.workers.worker import Refit, TrainWorker
from spine_ray.workers.worker_data import open_work, setup_of, shuffled_labels
from tests.support.tier_study import (
    BROKEN,
    CLASSES,
    EPOCHS,
    FOLDS,
    GOOD,
    SIDE,
    STARTS,
    TIER,
    TierRun,
    TierStudy,
    request_of,
    run_tier,
    write_tier_study,
)

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]


@pytest.fixture(scope="module", params=["in_process", "ray"])
def pool(request: pytest.FixtureRequest) -> Iterator[WorkerPool]:
    if request.param == "ray":
        yield request.getfixturevalue("one_ray_worker")
    else:
        with in_process_pool(PoolLayout(count=1, cpus=1, gpus=0.0)) as found:
            yield found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, pool: WorkerPool) -> Iterator[TierStudy]:
    root = tmp_path_factory.mktemp("tier")
    paths = StudyPaths(root / "study")
    with held(paths) as lock:
        yield write_tier_study(root, paths, lock.token)


@pytest.fixture(scope="module")
def climbed(study: TierStudy, pool: WorkerPool) -> TierRun:
    """The tier's one long run, with the control; the broken backbone is tried at its start recipe alone."""
    return run_tier(study, pool, control=STARTS[0], admit=_only_start_if_broken)


def _only_start_if_broken(config: TrialConfig, now: float) -> str | None:
    return "it is broken" if config.backbone == BROKEN and config not in STARTS else None


def test_starts_and_suggestions_run_to_their_ends(climbed: TierRun) -> None:
    trials = climbed.trials
    assert len(trials) == TIER.trials
    assert [trial.started.is_start for trial in trials.values()].count(True) == len(STARTS)
    for config in STARTS[:2]:
        assert trials[config.trial_id].is_completed
    suggested = [trial for trial in trials.values() if not trial.started.is_start]
    assert {trial.status for trial in suggested} <= {"completed", "stopped"}
    assert all(
        "above the cut" in trial.ended.reason for trial in suggested if trial.status == "stopped" and trial.ended
    )


def test_every_trial_starts_then_tells_its_epochs_in_order_then_ends(climbed: TierRun) -> None:
    for trial_id, trial in climbed.trials.items():
        mine = [event for event in climbed.events if event.trial_id == trial_id]
        assert isinstance(mine[0], TrialStarted)
        assert isinstance(mine[-1], TrialEnded)
        epochs = [event for event in mine if isinstance(event, EpochDone)]
        assert len(epochs) == len(mine) - 2
        expected = [(step, (step - 1) // EPOCHS, (step - 1) % EPOCHS + 1) for step in range(1, len(epochs) + 1)]
        assert [(each.step, each.fold, each.epoch) for each in epochs] == expected
        assert mine[-1].step == len(epochs)
        if trial.is_completed:
            assert len(epochs) == trial.started.total_steps
            assert mine[-1].log_loss == epochs[-1].log_loss


def test_completed_trials_and_no_others_leave_oof_logits_that_score_as_told(study: TierStudy, climbed: TierRun) -> None:
    completed = {trial_id: trial for trial_id, trial in climbed.trials.items() if trial.is_completed}
    assert {path.stem for path in study.paths.oof("x").parent.iterdir()} == set(completed)
    labels = study.samples.labels[study.samples.dev]
    for trial_id, trial in completed.items():
        logits = read_oof(study.paths, trial_id, study.samples)
        calibrated = log_probs(logits, fit_temperature(logits, labels))
        assert log_loss(calibrated, labels) == pytest.approx(trial.log_loss, rel=1e-6)
        assert accuracy(calibrated, labels) == pytest.approx(trial.accuracy)


def test_a_failing_backbone_is_a_row_with_a_reason_of_one_line(climbed: TierRun) -> None:
    trial = climbed.trials[STARTS[2].trial_id]
    assert trial.status == "failed"
    assert trial.epochs == ()
    assert trial.ended is not None
    assert "nothing.safetensors" in trial.ended.reason
    assert "\n" not in trial.ended.reason


def test_what_was_not_admitted_is_returned_with_its_reason(climbed: TierRun) -> None:
    assert all(refusal.config.backbone == BROKEN for refusal in climbed.refusals)
    assert {refusal.reason for refusal in climbed.refusals} <= {"it is broken"}
    refused = {refusal.config.trial_id for refusal in climbed.refusals}
    assert not refused & set(climbed.trials)


def test_the_control_trains_one_fold_on_shuffled_labels_and_leaves_no_event(study: TierStudy, climbed: TierRun) -> None:
    found = read_control(study.paths)
    assert found is not None
    labels, logits = found
    held_out = study.samples.held_out(0)
    np.testing.assert_array_equal(labels, shuffled_labels(study.samples, study.spec.seed)[held_out])
    assert logits.shape == (len(held_out), len(CLASSES))
    namesake = [event for event in climbed.events if event.trial_id == STARTS[0].trial_id]
    assert len(namesake) == 1 + EPOCHS * FOLDS + 1


def test_trials_that_are_over_are_not_trained_again(study: TierStudy, pool: WorkerPool, climbed: TierRun) -> None:
    assert run_tier(study, pool, known=tuple(climbed.trials.values())) == TierRun([], ())


def test_an_interrupted_trial_without_a_checkpoint_begins_anew_and_stops_after_an_epoch_when_time_is_up(
    study: TierStudy, pool: WorkerPool, climbed: TierRun
) -> None:
    first, *others = climbed.trials.values()
    interrupted = replace(first, epochs=first.epochs[:1], ended=None)
    again = run_tier(study, pool, known=(interrupted, *others), deadline=time.time() - 1.0)
    (trial,) = again.trials.values()
    assert trial.config == first.config
    assert [type(event) for event in again.events] == [TrialStarted, EpochDone, TrialEnded]
    assert trial.ended is not None
    assert (trial.status, trial.ended.reason, trial.ended.step) == ("stopped", "the budget is spent", 1)


def test_an_interrupted_trial_goes_on_from_its_checkpoint_and_tells_no_epoch_twice(
    study: TierStudy, pool: WorkerPool, climbed: TierRun
) -> None:
    config, others = STARTS[1], [each for each in climbed.trials.values() if each.config != STARTS[1]]
    before = read_oof(study.paths, config.trial_id, study.samples)
    first = [event for event in climbed.events if event.trial_id == config.trial_id][:2]
    interrupted_worker, request = TrainWorker(), request_of(config)
    interrupted_worker.begin(study.spec, request)
    for _ in range(2):  # the ledger knows one of them, the checkpoint both
        interrupted_worker.next_epoch(study.spec, request)
    interrupted = trials_from_events(first)[config.trial_id]
    again = run_tier(study, pool, known=(interrupted, *others), reduction=1)  # the others may be better
    steps = [event.step for event in again.events if isinstance(event, EpochDone)]
    assert steps == list(range(2, EPOCHS * FOLDS + 1))
    (resumed,) = [event for event in again.events if isinstance(event, TrialResumed)]
    assert resumed.reason == "it was interrupted"
    assert resumed.step >= 1
    assert read_oof(study.paths, config.trial_id, study.samples).tobytes() == before.tobytes()
    whole = trials_from_events([*first, *again.events])[config.trial_id]
    assert [epoch.step for epoch in whole.epochs] == list(range(1, EPOCHS * FOLDS + 1))
    told = climbed.trials[config.trial_id].epochs
    assert [epoch.log_loss for epoch in whole.epochs] == [epoch.log_loss for epoch in told]
    assert not study.paths.checkpoint(config.trial_id).exists(), "removed when the trial ends"


@pytest.fixture
def untouched(tmp_path: Path) -> Iterator[TierStudy]:
    """A study in which nothing was trained."""
    paths = StudyPaths(tmp_path / "study")
    with held(paths) as lock:
        yield write_tier_study(tmp_path, paths, lock.token)


def test_probes_are_trials_of_one_step_of_which_none_is_stopped(untouched: TierStudy, pool: WorkerPool) -> None:
    study = untouched
    probes = tuple(probe_config(backbone, SIDE) for backbone in TIER.backbones)
    run = run_tier(study, pool, starts=probes, most_trials=len(probes), control=probes[0])
    assert list(run.trials) == [probe.trial_id for probe in probes]
    for probe, trial in zip(probes, run.trials.values(), strict=True):
        mine = [event for event in run.events if event.trial_id == probe.trial_id]
        if probe.backbone == BROKEN:
            assert [type(event) for event in mine] == [TrialStarted, TrialEnded]
            assert trial.status == "failed"
            continue
        assert [type(event) for event in mine] == [TrialStarted, EpochDone, TrialEnded]
        (step,) = trial.epochs
        assert (step.step, step.fold, trial.status) == (1, ALL_FOLDS, "completed")
        logits, labels = read_oof(study.paths, probe.trial_id, study.samples), study.samples.labels[study.samples.dev]
        calibrated = log_probs(logits, fit_temperature(logits, labels))
        assert log_loss(calibrated, labels) == pytest.approx(trial.log_loss, rel=1e-6)
        assert not study.paths.checkpoint(probe.trial_id).exists(), "removed when the trial ends"
    found = read_control(study.paths)
    assert found is not None
    assert found[1].shape == (len(study.samples.held_out(0)), len(CLASSES))
    again = run_tier(study, pool, starts=probes, most_trials=len(probes), known=tuple(run.trials.values()))
    assert again == TierRun([], ())


def test_a_backbone_that_cannot_be_measured_is_told_beside_those_that_can(study: TierStudy, pool: WorkerPool) -> None:
    broken, good = measure_costs([STARTS[2], STARTS[0]], study.spec, pool)
    assert isinstance(broken, WorkFailure)
    assert "nothing.safetensors" in broken.reason
    assert not isinstance(good, WorkFailure)
    assert good.train_images_s > 0


def test_members_are_fitted_on_all_dev_rows_and_score_as_fitted(study: TierStudy, pool: WorkerPool) -> None:
    configs = [STARTS[1], replace(STARTS[0], freeze=0.5), probe_config(GOOD[0], SIDE)]
    fitted: list[Refit] = []
    assert refit_members(configs, study.spec, pool, fitted.append) == []
    assert [each.trial_id for each in fitted] == [each.trial_id for each in configs]
    assert all(math.isfinite(each.seconds) and each.seconds > 0 for each in fitted)
    rows = study.samples.test
    scored = score_rows(configs, study.spec, pool, rows)
    for config, logits in zip(configs, scored, strict=True):
        with safe_open(study.paths.refit(config.trial_id), framework="np") as file:
            told = {"trial_id": config.trial_id, "frozen": "random", "data_version": study.samples.version}
            about = file.metadata()
        assert {name: about[name] for name in told} == told
        assert logits.shape == (len(rows), len(CLASSES))
        expected = _solved_here(study, config, rows) if config.is_probe else _fitted_here(study, config, rows)
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def _fitted_here(study: TierStudy, config: TrialConfig, rows: np.ndarray) -> np.ndarray:
    """The same fit in this process, scored without leaving it."""
    samples, task = open_work(study.spec)
    network = Network(config, task.classes, task.seed, setup_of(study.spec, config))
    learner = network.learner(config.training.batch_size)
    inputs = open_inputs(config.training, network, task, samples.dev)
    fit = Fit(config.training, task, samples.dev, REFIT, learner, inputs)
    for epoch in range(config.training.epochs):
        fit.train_epoch(epoch)
    return fit.logits(rows)


def _solved_here(study: TierStudy, probe: TrialConfig, rows: np.ndarray) -> np.ndarray:
    """The head of all dev rows, on the features of others."""
    samples, task = open_work(study.spec)
    network = Network(probe, task.classes, task.seed, setup_of(study.spec, probe))
    return refitted_head(task, samples.dev, network).logits(scoring_features(network, task, rows).values)


def test_a_member_that_was_never_fitted_cannot_be_scored(study: TierStudy, pool: WorkerPool) -> None:
    missing = replace(STARTS[0], freeze=0.25)
    with pytest.raises(ValueError, match=f"{missing.trial_id} cannot be scored: "):
        score_rows([missing], study.spec, pool, study.samples.test)


def test_ctrl_c_leaves_the_tier_at_once(study: TierStudy, pool: WorkerPool) -> None:
    def interrupt(_: TrialConfig, now: float) -> str | None:
        signal.raise_signal(signal.SIGINT)
        return None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run_tier(study, pool, admit=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
