from dataclasses import replace

import pytest

from spine_ray.space.config import RECIPE_FIELDS, TrialConfig
from spine_ray.study.tables import Cost
from spine_ray.study.trials import trials_from_events
from spine_ray.track.records import (
    MAX_VALUE,
    config_text,
    ensemble_metrics,
    ensemble_params,
    epoch_points,
    trial_metrics,
    trial_params,
)
from tests.support.tracked import ended, started, whole_trial

TRIAL = next(iter(trials_from_events(whole_trial(started())).values()))
COST = Cost(
    backbone=TRIAL.config.backbone,
    resolution=32,
    freeze=0.5,
    device="cpu",
    arithmetic="float32",
    train_images_s=10.0,
    infer_images_s=400.0,
    score_images_s=100.0,
    prefix_images_s=50.0,
    activation_mb=0.1,
    peak_mb=100.0,
    macs=18,
    prefix_macs=9,
    prefix_params=5,
)
STORED = {
    "hash": "abc",
    "members": [{"trial_id": "a", "weight": 0.75}, {"trial_id": "b", "weight": 0.25}],
    "pool": "log",
    "best_single": "a",
    "report": {
        "log_loss": 0.5,
        "accuracy": 0.9,
        "cost": None,
        "cross_fit": None,
        "apparent": {"gain": 0.1, "low": 0.0, "high": 0.2},
    },
    "test": [],
}


def test_a_child_carries_what_the_ui_filters_by() -> None:
    params = trial_params(TRIAL.started)
    assert params["backbone"] == "resnet18.a1_in1k"
    assert params["freeze"] == "0.5"
    assert set(RECIPE_FIELDS) <= params.keys()
    assert {"tier", "family", "resolution", "params", "macs", "weights_source", "trial_id"} <= params.keys()


def test_points_lie_where_the_epochs_ended() -> None:
    points = epoch_points(TRIAL)
    assert list(points) == [1, 2, 3]
    assert [point.at_ms - 1_700_000_000_000 for point in points[1]] == [242] * 7
    assert points[3][0].at_ms == pytest.approx(1_700_000_000_000 + 1157, abs=1)


def test_only_a_completed_trial_has_an_oof_log_loss() -> None:
    assert trial_metrics(TRIAL, {})["oof_log_loss"] == 1 / 3
    stopped = trial_metrics(replace(TRIAL, ended=ended(TRIAL.trial_id, "stopped")), {})
    assert stopped == {"cost_params": 11.0, "cost_macs": 18.0, "total_seconds": 0.3, "total_steps": 3.0}


def test_the_cost_is_what_was_measured_in_milliseconds_an_image() -> None:
    assert "cost" not in trial_metrics(TRIAL, {})
    assert trial_metrics(TRIAL, {COST.key: COST})["cost"] == 2.5


def test_an_ensemble_has_the_names_of_trials_for_what_is_the_same() -> None:
    assert ensemble_metrics(STORED) == {
        "oof_log_loss": 0.5,
        "oof_accuracy": 0.9,
        "gain": 0.1,
        "gain_low": 0.0,
        "gain_high": 0.2,
        "num_members": 2.0,
    }
    assert ensemble_params(STORED)["members"] == "a, b"
    assert ensemble_params(STORED)["weights"] == "0.75, 0.25"


def test_a_long_text_is_cut_to_what_mlflow_takes() -> None:
    members = [{"trial_id": "m" * 99, "weight": 1.0}] * 99
    assert len(ensemble_params({**STORED, "members": members})["members"]) == MAX_VALUE


def test_the_configuration_can_be_read_back() -> None:
    import json

    assert TrialConfig.from_dict(json.loads(config_text(TRIAL))) == TRIAL.config
