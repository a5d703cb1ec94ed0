"""A tiny tier on a real Ray of one worker: processes that die, and what Ray Tune says of its trials."""

import math
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.tune.experiment import Trial as RayTrial

from spine_ray.ladder.rungs import Rungs
from spine_ray.sampling.stopping import StoppingRule
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone, Event, TrialEnded, TrialStarted
from spine_ray.study.hold import held
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from spine_ray.tune.ray_pool import RayPool
from spine_ray.tune.scheduler import ExactAsha
from spine_ray.tune.tuner import EventCallback
from spine_ray.workers.failures import WorkFailedError
from spine_ray.workers.trial_log import TrialLog
from spine_ray.workers.trial_steps import EpochReport, StepReport
from tests.support.tier_plans import epoch_done, tier_plan
from tests.support.tier_study import (
    BROKEN,
    EPOCHS,
    FOLDS,
    STARTS,
    TIER,
    TierStudy,
    describe,
    request_of,
    write_tier_study,
)

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]
PLAN = tier_plan(TIER, "random", FOLDS, describe=describe, starts=STARTS[:1], most_trials=1)


@pytest.fixture(scope="module")
def pool(one_ray_worker: RayPool) -> RayPool:
    return one_ray_worker


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TierStudy]:
    root = tmp_path_factory.mktemp("tuner")
    paths = StudyPaths(root / "study")
    with held(paths) as lock:
        yield write_tier_study(root, paths, lock.token)


def test_a_trial_whose_worker_and_whose_thin_process_are_killed_ends_with_the_same_bits(
    study: TierStudy, pool: RayPool
) -> None:
    calm: list[Event] = []
    pool.run_tier(PLAN, study.spec, calm.append)
    oof = study.paths.oof(STARTS[0].trial_id)
    before = read_oof(study.paths, STARTS[0].trial_id, study.samples)
    oof.unlink()
    events: list[Event] = []

    def kill(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochDone) and event.step in (1, 2):
            os.kill(process_of(pool.actors[0]) if event.step == 1 else thin_process(), signal.SIGKILL)

    pool.run_tier(PLAN, study.spec, kill)
    (trial,) = trials_from_events(events).values()
    assert trial.is_completed
    assert [event.step for event in events if isinstance(event, EpochDone)] == list(range(1, EPOCHS * FOLDS + 1))
    assert [type(event) for event in events].count(TrialStarted) == 1
    assert trial.resumed[0].reason == "the worker's process died"
    assert read_oof(study.paths, STARTS[0].trial_id, study.samples).tobytes() == before.tobytes()
    assert not list(study.paths.checkpoints.glob(f"{STARTS[0].trial_id}*")), "removed when the trial ends"


def test_a_process_that_is_handed_the_workers_loads_no_torch(pool: RayPool) -> None:
    @ray.remote(num_cpus=0)
    def loaded(actors: object) -> bool:
        import sys

        return "torch" in sys.modules

    assert not ray.get(loaded.remote(pool.actors))


def test_the_process_that_runs_a_trial_loads_no_torch(pool: RayPool, study: TierStudy) -> None:
    @ray.remote(num_cpus=0)
    def loaded(spec: object, request: object) -> bool:
        import sys

        import spine_ray.tune.trainable  # noqa: F401

        return "torch" in sys.modules

    assert not ray.get(loaded.remote(study.spec, request_of(STARTS[0])))


@pytest.mark.skipif("RAY_worker_niceness" in os.environ, reason="it was asked for another")
def test_workers_get_as_much_of_a_busy_core_as_the_process_that_started_them(pool: RayPool) -> None:
    (worker,) = pool.actors
    assert os.getpriority(os.PRIO_PROCESS, process_of(worker)) == os.nice(0)


def test_a_worker_that_raised_leaves_and_its_successor_takes_up_the_next_trial(study: TierStudy, pool: RayPool) -> None:
    (worker,) = pool.actors
    broken, good = (request_of(config, is_control=True) for config in (STARTS[TIER.backbones.index(BROKEN)], STARTS[0]))
    ray.get(worker.do.remote("begin", study.spec, good))
    before = process_of(worker)
    with pytest.raises(WorkFailedError, match=r"nothing\.safetensors"):
        ray.get(worker.do.remote("begin", study.spec, broken))
    ray.get(worker.do.remote("begin", study.spec, good))
    assert process_of(worker) != before
    assert ray.get(worker.do.remote("next_epoch", study.spec, good)).epoch.step == 1


def test_an_epoch_whose_worker_was_killed_fails_and_the_trial_is_taken_up_again(
    study: TierStudy, pool: RayPool
) -> None:
    (worker,) = pool.actors
    request = request_of(STARTS[0], is_control=True)
    ray.get(worker.do.remote("begin", study.spec, request))
    os.kill(process_of(worker), signal.SIGKILL)
    with pytest.raises(ray.exceptions.RayError):
        ray.get(worker.do.options(max_task_retries=0).remote("next_epoch", study.spec, request))
    ray.get(worker.do.remote("begin", study.spec, request))
    assert ray.get(worker.do.remote("next_epoch", study.spec, request)).epoch.step == 1


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


class SilentTrial(RayTrial):
    """A trial of whose error ray kept nothing."""

    pickled_error_file = None


def waiting_trial(config: TrialConfig, *, is_control: bool = False) -> RayTrial:
    return SilentTrial("trainable", config={"request": request_of(config, is_control=is_control)}, stub=True)


def callback(events: list[Event]) -> EventCallback:
    rule = StoppingRule(Rungs(EPOCHS, 3), None, time.time)
    return EventCallback(ExactAsha(rule), TrialLog(events.append, {}))


def result(step: int, *, is_known: bool, log_loss: float = 0.5) -> dict[str, Any]:
    epoch = epoch_done(STARTS[0], step=step, fold=0, epoch=step, log_loss=log_loss)
    return {"report": StepReport(done=EpochReport(epoch, is_last=False, is_known=is_known))}


def test_a_worker_that_dies_before_it_comes_up_is_a_trial_that_started_and_failed() -> None:
    events: list[Event] = []
    callback(events).on_trial_error(0, [], waiting_trial(STARTS[0]))
    (trial,) = trials_from_events(events).values()
    assert (trial.status, trial.config) == ("failed", STARTS[0])


def test_a_failing_trial_starts_once() -> None:
    events: list[Event] = []
    told = callback(events)
    told.on_trial_start(0, [], waiting_trial(STARTS[0]))
    told.on_trial_error(0, [], waiting_trial(STARTS[0]))
    assert [type(event) for event in events] == [TrialStarted, TrialEnded]


def test_nothing_is_recorded_of_the_control() -> None:
    events: list[Event] = []
    told, control = callback(events), waiting_trial(STARTS[0], is_control=True)
    told.on_trial_start(0, [], control)
    told.on_trial_result(0, [], control, result(1, is_known=False))
    told.on_trial_complete(0, [], control)
    told.on_trial_error(0, [], control)
    assert events == []


def test_an_epoch_from_a_checkpoint_is_no_progress() -> None:
    events: list[Event] = []
    told, trial = callback(events), waiting_trial(STARTS[0])
    told.on_trial_result(0, [], trial, result(1, is_known=False))
    allowed = trial.max_failures
    for step in (1, 2):
        trial.run_metadata.num_failures += 1
        told.on_trial_result(0, [], trial, result(step, is_known=True))
    assert [event.step for event in events if isinstance(event, EpochDone)] == [1, 2]
    assert trial.max_failures == allowed


def test_a_trial_that_diverged_or_was_given_up_has_failed() -> None:
    for last, reason in (
        (result(1, is_known=False, log_loss=math.nan), "the loss is nan at epoch 1"),
        ({"report": StepReport(failure="RuntimeError: no")}, "RuntimeError: no"),
    ):
        events: list[Event] = []
        told, trial = callback(events), waiting_trial(STARTS[0])
        told._scheduler.reasons[STARTS[0].trial_id] = "the loss is nan at epoch 1"
        trial.run_metadata.last_result = last
        told.on_trial_complete(0, [], trial)
        (end,) = events
        assert isinstance(end, TrialEnded)
        assert (end.status, end.reason) == ("failed", reason)
