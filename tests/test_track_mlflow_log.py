import logging
import time
from dataclasses import replace

import pytest

from spine_ray.space.config import RECIPE_FIELDS, TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, TrialEnded, TrialStarted
from spine_ray.track.mlflow_log import Tracker, deliver_spool, public_uri, sqlite_uri

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:sqlalchemy.exc.SADeprecationWarning",
)

DEAD = "http://user:secret@127.0.0.1:9"


def started(resolution: int = 32, tier: str = "light") -> TrialStarted:
    config = TrialConfig(
        backbone="resnet18.a1_in1k", resolution=resolution, freeze=0.5, recipe=start_recipe("random", "part")
    )
    return TrialStarted(
        trial_id=config.trial_id,
        tier=tier,
        config=config,
        family="resnet",
        is_start=True,
        total_steps=3,
        params=11,
        macs=18,
        weights_source="random",
        licence="apache-2.0",
        data_version="rows",
        time=1_700_000_000.0,
    )


def epoch(trial_id: str, step: int) -> EpochDone:
    return EpochDone(
        trial_id=trial_id,
        step=step,
        fold=0,
        epoch=step,
        train_loss=2.0 / step,
        log_loss=1.0 / step,
        accuracy=0.5,
        seconds=0.1,
        train_images=200,
        train_images_s=100.0,
        score_images_s=300.0,
        peak_mb=50.0,
        views=10,
        micro_batch=32,
        note="",
    )


def ended(trial_id: str, status: str = "completed", reason: str = "") -> TrialEnded:
    return TrialEnded(
        trial_id=trial_id,
        status=status,
        reason=reason,
        step=3,
        log_loss=1 / 3,
        accuracy=0.5,
        seconds=0.3,
        time=1_700_000_001.0,
    )


def whole_trial(start: TrialStarted, status: str = "completed", reason: str = ""):
    name = start.trial_id
    return [start, *(epoch(name, step) for step in (1, 2, 3)), ended(name, status, reason)]


def track(uri, study, spool, events, ensembles=(), timeout_s=30.0):
    tracker = Tracker(uri, study, spool)
    for event in events:
        tracker.put(event)
    for summary in ensembles:
        tracker.put_ensemble(summary)
    tracker.close(timeout_s)


def runs_of(uri, study):
    """Return the study's runs by name, asked of MLflow itself."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(study)
    found = client.search_runs([experiment.experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found), "a run exists twice"
    return client, named


def wait_until(is_true, seconds=10.0):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return sqlite_uri(tmp_path_factory.mktemp("store") / "mlflow.db")


@pytest.fixture
def spool(tmp_path):
    return tmp_path / "spool.jsonl"


def test_tiers_are_parents_and_trials_are_children(uri, spool):
    light, mid = started(32), started(64, tier="mid")
    events = [*whole_trial(light), *whole_trial(mid, "stopped", "ASHA at step 3")]
    track(uri, "structure", spool, events, [{"log_loss": 0.25, "pool": "log"}])
    client, runs = runs_of(uri, "structure")
    assert set(runs) == {"light", "mid", light.trial_id, mid.trial_id, "ensemble"}
    child, stopped = runs[light.trial_id], runs[mid.trial_id]
    assert child.data.tags["mlflow.parentRunId"] == runs["light"].info.run_id
    assert stopped.data.tags["mlflow.parentRunId"] == runs["mid"].info.run_id
    assert runs["light"].data.tags["spine.tier"] == "light"
    assert child.data.tags["spine.trial_id"] == light.trial_id
    assert child.data.params["resolution"] == "32"
    assert set(RECIPE_FIELDS) <= child.data.params.keys()
    history = client.get_metric_history(child.info.run_id, "log_loss")
    assert [(metric.step, metric.value) for metric in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert child.data.metrics["final_log_loss"] == 1 / 3
    assert child.data.metrics["total_seconds"] == 0.3
    assert child.data.metrics["cost_macs"] == 18.0
    assert (child.data.metrics["train_images_s"], child.data.metrics["score_images_s"]) == (100.0, 300.0)
    assert (child.info.status, stopped.info.status) == ("FINISHED", "KILLED")
    assert stopped.data.tags["spine.reason"] == "ASHA at step 3"
    assert "final_log_loss" not in stopped.data.metrics
    assert {runs[name].info.status for name in ("light", "mid", "ensemble")} == {"FINISHED"}
    assert runs["ensemble"].data.metrics["log_loss"] == 0.25
    assert not spool.exists()


def test_a_second_tracker_continues_the_runs_of_the_first(uri, spool):
    start = started()
    track(uri, "resumed", spool, [start, epoch(start.trial_id, 1), epoch(start.trial_id, 2)], [{"n": 1}])
    _, runs = runs_of(uri, "resumed")
    assert runs[start.trial_id].info.status == "KILLED"
    assert runs[start.trial_id].data.tags["spine.reason"] == "interrupted"
    track(uri, "resumed", spool, whole_trial(start), [{"n": 1}])
    client, runs = runs_of(uri, "resumed")
    assert set(runs) == {"light", start.trial_id, "ensemble"}
    run = runs[start.trial_id]
    assert [point.step for point in client.get_metric_history(run.info.run_id, "log_loss")] == [1, 2, 3]
    assert len(client.get_metric_history(run.info.run_id, "cost_macs")) == 1
    assert (run.info.status, run.data.tags["spine.reason"]) == ("FINISHED", "")


def test_a_dead_server_costs_a_spool_that_is_delivered_later(uri, spool, caplog):
    start = started()
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="spine_ray"):
        tracker = Tracker(DEAD, "spooled", spool)
        for event in whole_trial(start, "failed", "out of memory"):
            tracker.put(event)
        tracker.put_ensemble({"log_loss": 0.25})
        assert time.monotonic() - begin < 1.0, "put waits for the store"
        tracker.close(timeout_s=10.0)
    ours = [record for record in caplog.records if record.name.startswith("spine_ray")]
    assert len(ours) == 1
    assert "secret" not in caplog.text
    assert len(spool.read_text().splitlines()) == 6
    twice = spool.read_text()
    assert deliver_spool(uri, "spooled", spool) == 6
    assert not spool.exists()
    spool.write_text(twice)
    assert deliver_spool(uri, "spooled", spool) == 6
    client, runs = runs_of(uri, "spooled")
    assert set(runs) == {"light", start.trial_id, "ensemble"}
    run = runs[start.trial_id]
    assert (run.info.status, run.data.tags["spine.reason"]) == ("FAILED", "out of memory")
    for metric, times in (("log_loss", 3), ("total_seconds", 1)):
        assert len(client.get_metric_history(run.info.run_id, metric)) == times
    assert deliver_spool(uri, "spooled", spool) == 0


def test_a_spool_left_behind_is_delivered_before_new_entries(uri, spool):
    start = started()
    track(DEAD, "left", spool, [start, epoch(start.trial_id, 1)], timeout_s=0.0)
    assert spool.exists()
    track(uri, "left", spool, [epoch(start.trial_id, 2), epoch(start.trial_id, 3), ended(start.trial_id)])
    assert not spool.exists()
    client, runs = runs_of(uri, "left")
    history = client.get_metric_history(runs[start.trial_id].info.run_id, "log_loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_a_store_that_comes_back_gets_what_it_missed(uri, spool):
    from mlflow.tracking import MlflowClient

    start = started()
    client = MlflowClient(uri)
    experiment = client.create_experiment("away")
    client.delete_experiment(experiment)
    tracker = Tracker(uri, "away", spool, retry_s=0.3)
    tracker.put(start)
    wait_until(spool.exists)
    tracker.put(epoch(start.trial_id, 1))
    client.restore_experiment(experiment)
    wait_until(lambda: not spool.exists())
    for event in (epoch(start.trial_id, 2), epoch(start.trial_id, 3), ended(start.trial_id)):
        tracker.put(event)
    tracker.close()
    assert not spool.exists()
    client, runs = runs_of(uri, "away")
    assert runs[start.trial_id].info.status == "FINISHED"
    history = client.get_metric_history(runs[start.trial_id].info.run_id, "log_loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_an_event_without_a_start_is_left_out_and_holds_nothing_back(uri, spool, caplog):
    start = started()
    with caplog.at_level(logging.WARNING, logger="spine_ray"):
        track(uri, "headless", spool, [epoch("nobody", 1), ended("nobody"), *whole_trial(start)])
    assert "nobody" in caplog.text
    assert runs_of(uri, "headless")[1][start.trial_id].info.status == "FINISHED"


def test_nothing_is_lost_when_events_come_after_closing(uri, spool):
    tracker = Tracker(uri, "late", spool)
    tracker.close()
    tracker.put(started())
    assert len(spool.read_text().splitlines()) == 1


def test_a_store_that_refuses_a_delivery_keeps_the_spool(spool):
    spool.write_text("not an entry\n")
    with pytest.raises(ConnectionError, match="does not take"):
        deliver_spool("nosuch://store", "study", spool)
    assert spool.exists()


def test_a_uri_is_shown_without_its_password():
    assert public_uri(DEAD) == "http://127.0.0.1:9"
    assert public_uri("sqlite:////a/b@c.db") == "sqlite:////a/b@c.db"


def test_many_epochs_take_more_than_one_request(uri, spool):
    start = started()
    epochs = [replace(epoch(start.trial_id, 1), step=step) for step in range(1, 151)]
    track(uri, "many", spool, [start, *epochs])
    client, runs = runs_of(uri, "many")
    assert len(client.get_metric_history(runs[start.trial_id].info.run_id, "accuracy")) == 150
