"""One worker, called directly: when a checkpoint is used, and when nothing may be written any more."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from spine_ray.study.checkpoint import read_checkpoint
from spine_ray.study.hold import held
from spine_ray.study.paths import StudyPaths
from spine_ray.workers import checkpointer
from spine_ray.workers.failures import WorkFailedError
from spine_ray.workers.worker import TrainWorker, run_task
from tests.support.tier_study import BROKEN, STARTS, TIER, TierStudy, request_of, write_tier_study

CONFIG = STARTS[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TierStudy]:
    root = tmp_path_factory.mktemp("worker")
    paths = StudyPaths(root / "study")
    with held(paths) as lock:
        yield write_tier_study(root, paths, lock.token)


@pytest.mark.parametrize("change", ["seed", "bytes"])
def test_a_checkpoint_that_does_not_fit_is_dropped_and_the_trial_begins_anew(change: str, study: TierStudy) -> None:
    request, worker = request_of(CONFIG), TrainWorker()
    worker.begin(study.spec, request)
    worker.next_epoch(study.spec, request)
    path = study.paths.checkpoint(CONFIG.trial_id)
    if change == "bytes":
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    spec = replace(study.spec, seed=1) if change == "seed" else study.spec
    begun = worker.begin(spec, request)
    expected = "it is of another seed" if change == "seed" else "the checksum differs"
    assert begun.step == 0
    assert expected in begun.dropped
    assert not path.exists()
    assert worker.next_epoch(spec, request).epoch.step == 1
    path.unlink()


def test_a_worker_of_a_search_that_lost_its_lock_writes_nothing_more(study: TierStudy) -> None:
    request, worker = request_of(CONFIG), TrainWorker()
    orphan = replace(study.spec, holder="somebody who is dead")
    before = {path: path.read_bytes() for path in study.paths.root.rglob("*.parquet")}
    worker.begin(orphan, request)
    for task, asked in (("next_epoch", request), ("refit", CONFIG)):
        with pytest.raises(WorkFailedError, match="another search holds"):
            run_task(worker, task, orphan, asked)
    assert read_checkpoint(study.paths, CONFIG.trial_id) is None
    assert {path: path.read_bytes() for path in study.paths.root.rglob("*.parquet")} == before
    assert not study.paths.refit(CONFIG.trial_id).exists()
    assert not list(study.paths.root.rglob("*.part"))


class Clock:
    """Shows one second more whenever it is read."""

    now = 0.0

    def perf_counter(self) -> float:
        self.now += 1.0
        return self.now


def test_after_a_state_that_took_a_second_to_keep_the_next_is_kept_in_fifty(
    study: TierStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, request, worker = Clock(), request_of(CONFIG), TrainWorker()
    monkeypatch.setattr(checkpointer, "time", clock)
    worker.begin(study.spec, request)
    kept = []
    for before in (9.0, 59.0, 61.0):  # the first state is kept from second 10 to second 11
        clock.now = before
        worker.next_epoch(study.spec, request)
        found = read_checkpoint(study.paths, CONFIG.trial_id)
        assert found is not None
        kept.append(len(found.about["records"]))
    assert kept == [1, 1, 3]
    study.paths.checkpoint(CONFIG.trial_id).unlink()


def test_an_epoch_of_a_trial_that_was_not_begun_here_is_refused(study: TierStudy) -> None:
    worker = TrainWorker()
    with pytest.raises(WorkFailedError, match="was never begun here") as failure:
        run_task(worker, "next_epoch", study.spec, request_of(CONFIG))
    assert failure.value.kind == "error"


def test_weights_that_are_not_there_are_not_worth_another_try(study: TierStudy) -> None:
    broken = STARTS[TIER.backbones.index(BROKEN)]
    with pytest.raises(WorkFailedError, match=r"nothing\.safetensors") as failure:
        run_task(TrainWorker(), "begin", study.spec, request_of(broken))
    assert failure.value.kind == "hopeless"
