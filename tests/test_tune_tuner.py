"""A tiny tier on a real ray of two workers: slow, because every worker imports torch anew."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image
from ray.tune.experiment import Trial as RayTrial
from safetensors import safe_open
from sklearn.datasets import load_digits
from spine_ray.tune.tier import EventCallback, run_tier
from tier_plans import tier_plan

from spine_ray.core.activations import open_inputs
from spine_ray.core.backbone import facts, family_of
from spine_ray.core.fit import Fit
from spine_ray.core.network import Network
from spine_ray.core.pixels import build_pixels, short_side
from spine_ray.core.ship import REFIT
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.samples import Samples
from spine_ray.data.sources import open_source
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ladder.rungs import Rungs
from spine_ray.sampling.tier_plan import Refusal
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.fields import Around
from spine_ray.space.schema import TierSpace
from spine_ray.study.checkpoint import read_checkpoint
from spine_ray.study.control import read_control
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialResumed, TrialStarted
from spine_ray.study.hold import held
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import write_samples
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.tune.cluster import Workers, running_ray
from spine_ray.tune.scheduler import ExactAsha
from spine_ray.workers.failures import WorkFailedError
from spine_ray.workers.request import WorkerRequest
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.tasks import Refit, WorkFailure, measure_costs, refit_members, score_rows
from spine_ray.workers.worker_data import open_work, setup_of, shuffled_labels

CLASSES = {"one": 1, "seven": 7, "zero": 0}
FOLDS, EPOCHS, SIDE = 2, 2, 32
GOOD, BROKEN = ("test_resnet", "test_efficientnet"), "test_vit"
TIER = TierSpace(
    name="light",
    backbones=(*GOOD, BROKEN),
    resolutions=(SIDE,),
    recipe={"epochs": EPOCHS, "batch_size": 16, "lr": Around(3.0)},
    trials=5,
)
STARTS = start_configs(TIER, "random")


@dataclass(frozen=True)
class Study:
    """A study of 120 pictures, ready to train on; the weights of one backbone are not where they should be."""

    paths: StudyPaths
    samples: Samples
    order: WorkerSpec


@dataclass(frozen=True)
class Run:
    """What a tier's run left behind."""

    events: list[Event]
    refusals: tuple[Refusal, ...]

    @property
    def trials(self) -> dict[str, Trial]:
        return trials_from_events(self.events)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    root = tmp_path_factory.mktemp("tier")
    scans = load_digits()
    for name, digit in CLASSES.items():
        (root / "data" / name).mkdir(parents=True)
        for number, scan in enumerate(scans.images[scans.target == digit][:40]):
            pixels = np.rint(scan * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 24)).save(root / "data" / name / f"{number}.png")
    source = open_source(str(root / "data"))
    samples = build_samples(inspect_source(source), folds=FOLDS, test_share=0.25, seed=0)
    paths = StudyPaths(root / "study")
    write_samples(paths.samples, samples)
    places = source.locate(samples.paths)
    folder = build_pixels(lambda row: source.read(int(places[row])), samples.sample_ids, short_side(SIDE)).folder
    weights = ((BROKEN, root / "nothing.safetensors", "0" * 64),)
    with held(paths) as hold:
        order = WorkerSpec(
            study=paths.root, holder=hold.token, pixels=folder, seed=0, weights=weights, device="cpu", threads=1
        )
        yield Study(paths, samples, order)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    with running_ray(None, WorkerRequest(2)) as found:
        yield found


@pytest.fixture(scope="module")
def climbed(study: Study, workers: Workers) -> Run:
    """The tier's one long run, with the control; the broken backbone is tried at its start recipe alone."""
    return run(study, workers, control=STARTS[0], admit=_only_start_if_broken)


def run(study: Study, workers: Workers, **changes: Any) -> Run:
    events: list[Event] = []
    plan = tier_plan(TIER, "random", FOLDS, describe=describe, **changes)
    refusals = run_tier(plan, study.order, workers, events.append)
    return Run(events, refusals)


def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
    known = facts(config.backbone, config.resolution, len(CLASSES))
    return TrialStarted(
        trial_id=config.trial_id, tier=TIER.name, config=config, family=family_of(config.backbone), is_start=is_start,
        total_steps=EPOCHS * FOLDS, params=known.params, macs=known.macs, weights_source="random",
        licence="unknown", data_version="rows", time=time.time(),
    )  # fmt: skip


def _only_start_if_broken(config: TrialConfig, now: float) -> str | None:
    return "it is broken" if config.backbone == BROKEN and config not in STARTS else None


@pytest.mark.timeout(180)
def test_starts_and_suggestions_run_to_their_ends(climbed: Run) -> None:
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


@pytest.mark.timeout(180)
def test_every_trial_starts_then_tells_its_epochs_in_order_then_ends(climbed: Run) -> None:
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


@pytest.mark.timeout(180)
def test_completed_trials_and_no_others_leave_oof_logits_that_score_as_told(study: Study, climbed: Run) -> None:
    completed = {trial_id: trial for trial_id, trial in climbed.trials.items() if trial.is_completed}
    assert {path.stem for path in study.paths.oof("x").parent.iterdir()} == set(completed)
    labels = study.samples.labels[study.samples.dev]
    for trial_id, trial in completed.items():
        logits = read_oof(study.paths, trial_id, study.samples)
        calibrated = log_probs(logits, fit_temperature(logits, labels))
        assert log_loss(calibrated, labels) == pytest.approx(trial.log_loss, rel=1e-6)
        assert accuracy(calibrated, labels) == pytest.approx(trial.accuracy)


@pytest.mark.timeout(180)
def test_a_failing_backbone_is_a_row_with_a_reason_of_one_line(climbed: Run) -> None:
    trial = climbed.trials[STARTS[2].trial_id]
    assert trial.status == "failed"
    assert trial.epochs == ()
    assert trial.ended is not None
    assert "nothing.safetensors" in trial.ended.reason
    assert "\n" not in trial.ended.reason


@pytest.mark.timeout(180)
def test_what_was_not_admitted_is_returned_with_its_reason(climbed: Run) -> None:
    assert all(refusal.config.backbone == BROKEN for refusal in climbed.refusals)
    assert {refusal.reason for refusal in climbed.refusals} <= {"it is broken"}
    refused = {refusal.config.trial_id for refusal in climbed.refusals}
    assert not refused & set(climbed.trials)


@pytest.mark.timeout(180)
def test_the_control_trains_one_fold_on_shuffled_labels_and_leaves_no_event(study: Study, climbed: Run) -> None:
    found = read_control(study.paths)
    assert found is not None
    labels, logits = found
    held_out = study.samples.held_out(0)
    np.testing.assert_array_equal(labels, shuffled_labels(study.samples, study.order.seed)[held_out])
    assert logits.shape == (len(held_out), len(CLASSES))
    namesake = [event for event in climbed.events if event.trial_id == STARTS[0].trial_id]
    assert len(namesake) == 1 + EPOCHS * FOLDS + 1


@pytest.mark.timeout(180)
def test_trials_that_are_over_are_not_trained_again(study: Study, workers: Workers, climbed: Run) -> None:
    again = run(study, workers, known=tuple(climbed.trials.values()))
    assert again == Run([], ())


@pytest.mark.timeout(180)
def test_an_interrupted_trial_without_a_checkpoint_begins_anew_and_stops_after_an_epoch_when_time_is_up(
    study: Study, workers: Workers, climbed: Run
) -> None:
    first, *others = climbed.trials.values()
    interrupted = replace(first, epochs=first.epochs[:1], ended=None)
    again = run(study, workers, known=(interrupted, *others), deadline=time.time() - 1.0)
    (trial,) = again.trials.values()
    assert trial.config == first.config
    assert [type(event) for event in again.events] == [TrialStarted, EpochDone, TrialEnded]
    assert trial.ended is not None
    assert (trial.status, trial.ended.reason, trial.ended.step) == ("stopped", "the budget is spent", 1)


@pytest.mark.timeout(180)
def test_a_trial_whose_worker_and_whose_thin_process_are_killed_ends_with_the_same_bits(
    study: Study, workers: Workers, climbed: Run
) -> None:
    oof = study.paths.oof(STARTS[0].trial_id)
    before = read_oof(study.paths, STARTS[0].trial_id, study.samples)
    oof.unlink()
    events: list[Event] = []

    def kill(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochDone) and event.step in (1, 2):
            os.kill(process_of(workers.crew[0]) if event.step == 1 else thin_process(), signal.SIGKILL)

    run_tier(
        tier_plan(TIER, "random", FOLDS, describe=describe, starts=STARTS[:1], most_trials=1),
        study.order,
        workers,
        kill,
    )
    (trial,) = trials_from_events(events).values()
    assert trial.is_completed
    assert [event.step for event in events if isinstance(event, EpochDone)] == list(range(1, EPOCHS * FOLDS + 1))
    assert [type(event) for event in events].count(TrialStarted) == 1
    assert trial.resumed[0].reason == "the worker's process died"
    assert read_oof(study.paths, STARTS[0].trial_id, study.samples).tobytes() == before.tobytes()
    assert not list(study.paths.checkpoints.glob(f"{STARTS[0].trial_id}*")), "removed when the trial ends"


@pytest.mark.timeout(180)
def test_an_interrupted_trial_goes_on_from_its_checkpoint_and_tells_no_epoch_twice(
    study: Study, workers: Workers, climbed: Run
) -> None:
    config, others = STARTS[1], [each for each in climbed.trials.values() if each.config != STARTS[1]]
    before = read_oof(study.paths, config.trial_id, study.samples)
    first = [event for event in climbed.events if event.trial_id == config.trial_id][:2]
    ray.get(workers.crew[1].do.remote("begin", study.order, given_of(config)))
    for _ in range(2):  # the ledger knows one of them, the checkpoint both
        ray.get(workers.crew[1].do.remote("next_epoch", study.order, given_of(config)))
    interrupted = trials_from_events(first)[config.trial_id]
    again = run(study, workers, known=(interrupted, *others))
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


@pytest.mark.timeout(180)
@pytest.mark.parametrize("change", ["seed", "bytes"])
def test_a_checkpoint_that_does_not_fit_is_dropped_and_the_trial_begins_anew(
    change: str, study: Study, workers: Workers, climbed: Run
) -> None:
    given, worker = given_of(STARTS[0]), workers.crew[0]
    ray.get(worker.do.remote("begin", study.order, given))
    ray.get(worker.do.remote("next_epoch", study.order, given))
    path = study.paths.checkpoint(STARTS[0].trial_id)
    if change == "bytes":
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    order = replace(study.order, seed=1) if change == "seed" else study.order
    begun = ray.get(worker.do.remote("begin", order, given))
    expected = "it is of another seed" if change == "seed" else "the checksum differs"
    assert begun["step"] == 0
    assert expected in begun["dropped"]
    assert not path.exists()
    assert ray.get(worker.do.remote("next_epoch", order, given))["step"] == 1
    path.unlink()


@pytest.mark.timeout(180)
def test_workers_of_a_search_that_lost_its_hold_write_nothing_more(
    study: Study, workers: Workers, climbed: Run
) -> None:
    given, worker = given_of(STARTS[0]), workers.crew[0]
    orphan = replace(study.order, holder="somebody who is dead")
    before = {path: path.read_bytes() for path in study.paths.root.rglob("*.parquet")}
    ray.get(worker.do.remote("begin", orphan, given))
    with pytest.raises(WorkFailedError, match="another search holds"):
        ray.get(worker.do.remote("next_epoch", orphan, given))
    assert read_checkpoint(study.paths, STARTS[0].trial_id) is None
    with pytest.raises(WorkFailedError, match="another search holds"):
        ray.get(worker.do.remote("refit", orphan, STARTS[0]))
    assert {path: path.read_bytes() for path in study.paths.root.rglob("*.parquet")} == before
    assert not study.paths.refit(STARTS[0].trial_id).exists()
    assert not list(study.paths.root.rglob("*.part"))


@pytest.mark.timeout(180)
def test_a_backbone_that_cannot_be_measured_is_told_beside_those_that_can(study: Study, workers: Workers) -> None:
    broken, good = measure_costs([STARTS[2], STARTS[0]], study.order, workers)
    assert isinstance(broken, WorkFailure)
    assert "nothing.safetensors" in broken.reason
    assert not isinstance(good, WorkFailure)
    assert good.train_images_s > 0


@pytest.mark.timeout(180)
def test_members_are_fitted_on_all_dev_rows_and_score_as_fitted(study: Study, workers: Workers) -> None:
    configs = [STARTS[1], replace(STARTS[0], freeze=0.5)]
    told: list[Refit] = []
    refit_members(configs, study.order, workers, told.append)
    assert {each.trial_id for each in told} == {each.trial_id for each in configs}
    rows = study.samples.test
    scored = score_rows(configs, study.order, workers, rows)
    for config, logits in zip(configs, scored, strict=True):
        with safe_open(study.paths.refit(config.trial_id), framework="np") as file:
            expected = {"trial_id": config.trial_id, "frozen": "random", "data_version": study.samples.version}
            about = file.metadata()
        assert {name: about[name] for name in expected} == expected
        assert logits.shape == (len(rows), len(CLASSES))
        np.testing.assert_allclose(logits, _fitted_here(study, config, rows), rtol=1e-3, atol=1e-3)


def _fitted_here(study: Study, config: TrialConfig, rows: np.ndarray) -> np.ndarray:
    """The same fit in this process, scored without leaving it."""
    samples, task = open_work(study.order)
    network = Network(config, task.classes, task.seed, setup_of(study.order, config.backbone))
    learner = network.learner(config.recipe.batch_size)
    inputs = open_inputs(config.recipe, network, task, samples.dev)
    fit = Fit(config.recipe, task, samples.dev, REFIT, learner, inputs)
    for epoch in range(config.recipe.epochs):
        fit.train_epoch(epoch)
    return fit.logits(rows)


@pytest.mark.timeout(180)
def test_ctrl_c_leaves_the_tier_at_once(study: Study, workers: Workers) -> None:
    def interrupt(_: TrialConfig, now: float) -> str | None:
        signal.raise_signal(signal.SIGINT)
        return None

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(study, workers, admit=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)


class SilentTrial(RayTrial):
    """A trial of whose error ray kept nothing."""

    pickled_error_file = None


def waiting_trial(config: TrialConfig, *, is_control: bool = False) -> RayTrial:
    values = {
        "trial_id": config.trial_id,
        "is_control": is_control,
    }
    return SilentTrial("trainable", config=values, stub=True)


def callback(events: list[Event], *interrupted: Trial) -> EventCallback:
    handed = {config.trial_id: describe(config, True) for config in STARTS}
    known = {trial.trial_id: trial for trial in interrupted}
    return EventCallback(ExactAsha(Rungs(EPOCHS, FOLDS, 3), None), events.append, handed, known)


def given_of(config: TrialConfig, *, is_control: bool = False, tell_from: int = 1) -> dict[str, Any]:
    """What a worker is handed of a trial."""
    return {
        "trial": config.to_dict(), "trial_id": config.trial_id, "is_control": is_control, "tell_from": tell_from
    }  # fmt: skip


@pytest.mark.timeout(180)
def test_a_process_that_is_handed_the_crew_loads_no_torch(workers: Workers) -> None:
    @ray.remote(num_cpus=0)
    def loaded(crew: object) -> bool:
        import sys

        return "torch" in sys.modules

    assert not ray.get(loaded.remote(workers.crew))


@pytest.mark.timeout(180)
def test_a_worker_that_raised_leaves_and_its_successor_takes_up_the_next_trial(study: Study, workers: Workers) -> None:
    worker = workers.crew[0]
    broken, good = (given_of(config, is_control=True) for config in (STARTS[TIER.backbones.index(BROKEN)], STARTS[0]))
    ray.get(worker.do.remote("begin", study.order, good))
    before = process_of(worker)
    with pytest.raises(WorkFailedError, match=r"nothing\.safetensors"):
        ray.get(worker.do.remote("begin", study.order, broken))
    ray.get(worker.do.remote("begin", study.order, good))
    assert process_of(worker) != before
    assert ray.get(worker.do.remote("next_epoch", study.order, good))["step"] == 1


@pytest.mark.timeout(180)
def test_an_epoch_whose_worker_was_killed_fails_and_the_trial_is_taken_up_again(study: Study, workers: Workers) -> None:
    worker = workers.crew[1]
    given = given_of(STARTS[0], is_control=True)
    ray.get(worker.do.remote("begin", study.order, given))
    os.kill(process_of(worker), signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(worker.do.options(max_task_retries=0).remote("next_epoch", study.order, given))
    ray.get(worker.do.remote("begin", study.order, given))
    assert ray.get(worker.do.remote("next_epoch", study.order, given))["step"] == 1


def thin_process() -> int:
    """The process that runs the trial at hand for ray."""
    found = subprocess.run(["pgrep", "-f", "^ray::.*TrialTrainable"], capture_output=True, text=True, check=True)
    mine = [int(pid) for pid in found.stdout.split() if is_mine(int(pid))]
    return mine[-1]


def is_mine(pid: int) -> bool:
    """Whether a process descends from this one."""
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False


def process_of(worker: Any) -> int:
    found: int = ray.get(worker.__ray_call__.remote(lambda _: os.getpid()))
    return found


def test_a_worker_that_dies_before_it_comes_up_is_a_trial_that_started_and_failed() -> None:
    events: list[Event] = []
    callback(events).on_trial_error(0, [], waiting_trial(STARTS[0]))
    (trial,) = trials_from_events(events).values()
    assert (trial.status, trial.config) == ("failed", STARTS[0])


def test_a_failing_trial_starts_once() -> None:
    events: list[Event] = []
    given = callback(events)
    given.on_trial_start(0, [], waiting_trial(STARTS[0]))
    given.on_trial_error(0, [], waiting_trial(STARTS[0]))
    assert [type(event) for event in events] == [TrialStarted, TrialEnded]


def test_nothing_is_told_of_the_control() -> None:
    events: list[Event] = []
    given, control = callback(events), waiting_trial(STARTS[0], is_control=True)
    given.on_trial_start(0, [], control)
    given.on_trial_result(0, [], control, told_epoch(1, is_known=False))
    given.on_trial_complete(0, [], control)
    given.on_trial_error(0, [], control)
    assert events == []


def told_epoch(step: int, *, is_known: bool) -> dict[str, Any]:
    return {
        "step": step, "fold": 0, "epoch": step, "train_loss": 1.0, "log_loss": 0.5, "accuracy": 0.5, "seconds": 1.0,
        "train_images": 60, "train_images_s": 60.0, "score_images_s": 60.0, "peak_mb": 1.0, "views": 2,
        "micro_batch": 16, "note": "", "is_last": False, "is_known": is_known, "resumed": [],
    }  # fmt: skip


def test_an_epoch_that_the_ledger_has_is_not_told_again_and_is_no_progress() -> None:
    events: list[Event] = []
    given, trial = callback(events), waiting_trial(STARTS[0])
    given.on_trial_result(0, [], trial, told_epoch(1, is_known=False))
    allowed = trial.max_failures
    for step in (1, 2):  # its thin process was lost: the worker tells from the checkpoint what it holds
        trial.run_metadata.num_failures += 1
        given.on_trial_result(0, [], trial, told_epoch(step, is_known=True))
    assert [event.step for event in events if isinstance(event, EpochDone)] == [1, 2]
    assert trial.max_failures == allowed


def test_epochs_after_the_one_that_a_trial_goes_on_from_are_told_again() -> None:
    events: list[Event] = []
    given, trial = callback(events), waiting_trial(STARTS[0])
    for step in (1, 2):
        given.on_trial_result(0, [], trial, told_epoch(step, is_known=False))
    resumed = {"step": 1, "reason": "the worker's process died", "time": 3.0}
    given.on_trial_result(0, [], trial, {**told_epoch(2, is_known=False), "resumed": [resumed]})
    (whole,) = trials_from_events([describe(STARTS[0], True), *events]).values()
    assert [epoch.step for epoch in whole.epochs] == [1, 2]
    assert [type(event) for event in events] == [EpochDone, EpochDone, TrialResumed, EpochDone]


def test_a_trial_that_diverged_or_was_given_up_has_failed() -> None:
    for last, reason in (
        ({**told_epoch(1, is_known=False), "log_loss": float("nan")}, "the loss is nan at epoch 1"),
        ({"failure": "RuntimeError: no", "is_last": False}, "RuntimeError: no"),
    ):
        events: list[Event] = []
        given, trial = callback(events), waiting_trial(STARTS[0])
        given._scheduler.reasons[STARTS[0].trial_id] = "the loss is nan at epoch 1"
        trial.run_metadata.last_result = last
        given.on_trial_complete(0, [], trial)
        (end,) = events
        assert isinstance(end, TrialEnded)
        assert (end.status, end.reason) == ("failed", reason)
