import math
from dataclasses import replace

import numpy as np
import pytest

from spine_ray.space.config import RECIPE_FIELDS, TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, TrialEnded, TrialStarted
from spine_ray.track.records import (
    MAX_VALUE,
    Entry,
    ensemble_chosen,
    entry_from_line,
    entry_to_line,
    final_metrics,
    summary_fields,
    trial_params,
)

CONFIG = TrialConfig(backbone="resnet18.a1_in1k", resolution=64, freeze=0.5, recipe=start_recipe("random", "part"))
STARTED = TrialStarted(
    trial_id=CONFIG.trial_id,
    tier="light",
    config=CONFIG,
    family="resnet",
    is_start=True,
    total_steps=4,
    params=11_000_000,
    macs=1_800_000_000,
    weights_source="random",
    licence="apache-2.0",
    data_version="rows",
    time=1000.0,
)
ENDED = TrialEnded(
    trial_id=CONFIG.trial_id,
    status="completed",
    reason="",
    step=4,
    log_loss=0.5,
    accuracy=0.9,
    seconds=12.0,
    time=1012.0,
)


def test_an_entry_survives_its_line():
    entry = Entry(at_ms=7, content=STARTED)
    assert entry_from_line(entry_to_line(entry)) == entry


def test_an_entry_with_nan_survives_its_line():
    epoch = EpochDone(
        trial_id="t",
        step=1,
        fold=0,
        epoch=1,
        train_loss=math.nan,
        log_loss=0.1,
        accuracy=0.5,
        seconds=1.0,
        train_images=200,
        train_images_s=1.0,
        score_images_s=1.0,
        peak_mb=1.0,
        views=10,
        micro_batch=32,
        note="",
    )
    back = entry_from_line(entry_to_line(Entry(at_ms=7, content=epoch)))
    assert isinstance(back.content, EpochDone)
    assert math.isnan(back.content.train_loss)


@pytest.mark.parametrize("line", ["", "{", '{"at_ms": 1}', "[1]", '{"at_ms": 1, "content": {"event": "odd"}}'])
def test_a_line_that_is_no_entry_is_refused(line):
    with pytest.raises(ValueError):
        entry_from_line(line)


def test_a_child_carries_what_the_ui_filters_by():
    params = trial_params(STARTED)
    assert params["backbone"] == "resnet18.a1_in1k"
    assert params["freeze"] == "0.5"
    assert set(RECIPE_FIELDS) <= params.keys()
    assert {"tier", "family", "resolution", "params", "macs", "weights_source", "trial_id"} <= params.keys()


def test_only_a_completed_trial_has_a_final_log_loss():
    assert final_metrics(ENDED)["final_log_loss"] == 0.5
    stopped = final_metrics(replace(ENDED, status="stopped"))
    assert stopped == {"total_seconds": 12.0, "total_steps": 4.0}


def test_a_summary_becomes_numbers_and_text():
    chosen = ensemble_chosen({"log_loss": np.float32(0.5), "members": ["a", "b"], "pool": "log", "a/b": True})
    params, metrics = summary_fields(chosen.summary)
    assert metrics == {"log_loss": 0.5}
    assert params == {"members": '["a", "b"]', "pool": "log", "a_b": "true"}


def test_a_long_text_is_cut_to_what_mlflow_takes():
    params, _ = summary_fields({"members": "m" * 9000})
    assert len(params["members"]) == MAX_VALUE


def test_equal_summaries_have_one_key():
    assert ensemble_chosen({"a": 1, "b": 2}).key == ensemble_chosen({"b": 2, "a": 1}).key
    assert ensemble_chosen({"a": 1}).key != ensemble_chosen({"a": 2}).key


def test_a_summary_that_contains_itself_is_refused():
    odd: dict[str, object] = {}
    odd["self"] = odd
    with pytest.raises(ValueError, match="Circular"):
        ensemble_chosen(odd)
