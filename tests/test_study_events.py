import json
from dataclasses import replace

import pytest

from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import (
    EpochDone,
    Event,
    TrialEnded,
    TrialResumed,
    TrialStarted,
    event_from_dict,
    event_to_dict,
)

CONFIG = TrialConfig(backbone="resnet18.a1_in1k", resolution=64, freeze=0.5, recipe=start_recipe("pretrained"))
STARTED = TrialStarted(
    trial_id=CONFIG.trial_id, tier="light", config=CONFIG, family="resnet", is_start=True, total_steps=30,
    params=11, macs=1_800, weights_source="hub", licence="apache-2.0", data_version="rows", time=5.0,
)  # fmt: skip
EPOCH = EpochDone(
    trial_id=CONFIG.trial_id, step=3, fold=0, epoch=3, train_loss=1.5, log_loss=0.9, accuracy=0.6, seconds=2.0,
    train_images=200, train_images_s=100.0, score_images_s=300.0, peak_mb=512.0, views=10, micro_batch=16,
    note="out of memory",
)  # fmt: skip
RESUMED = TrialResumed(trial_id=CONFIG.trial_id, step=2, reason="the worker's process died", time=7.0)
ENDED = TrialEnded(
    trial_id=CONFIG.trial_id, status="failed", reason="ValueError: no such file", step=0, log_loss=None,
    accuracy=None, seconds=0.0, time=9.0,
)  # fmt: skip


@pytest.mark.parametrize("event", [STARTED, RESUMED, EPOCH, ENDED, replace(ENDED, status="completed", log_loss=0.5)])
def test_an_event_is_equal_after_a_trip_through_json(event: Event) -> None:
    assert event_from_dict(json.loads(json.dumps(event_to_dict(event)))) == event


def test_each_kind_of_event_has_its_own_name() -> None:
    names = [event_to_dict(event)["event"] for event in (STARTED, RESUMED, EPOCH, ENDED)]
    assert names == ["started", "resumed", "epoch", "ended"]


def test_reading_an_event_leaves_the_given_values_alone() -> None:
    values = event_to_dict(STARTED)
    event_from_dict(values)
    assert values == event_to_dict(STARTED)


@pytest.mark.parametrize("name", ["paused", None, ["epoch"]])
def test_an_unknown_kind_names_the_known_ones(name: object) -> None:
    with pytest.raises(ValueError, match=r"known: started, resumed, epoch, ended"):
        event_from_dict({**event_to_dict(EPOCH), "event": name})


@pytest.mark.parametrize("event", [STARTED, RESUMED, EPOCH, ENDED])
def test_an_event_that_lacks_any_field_is_refused_in_one_line(event: Event) -> None:
    values = event_to_dict(event)
    for name in values:
        rest = {key: value for key, value in values.items() if key != name}
        with pytest.raises(ValueError) as caught:
            event_from_dict(rest)
        assert "\n" not in str(caught.value)


def test_a_field_that_no_event_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epoch event that cannot be read: .*mood"):
        event_from_dict({**event_to_dict(EPOCH), "mood": "good"})


def test_a_configuration_that_no_trial_can_have_is_refused() -> None:
    values = event_to_dict(STARTED)
    for strange in (
        {"backbone": "resnet18"},
        {**values["config"], "colour": 3},
        {**values["config"], "freeze": 2.0},
        7,
    ):
        with pytest.raises(ValueError):
            event_from_dict({**values, "config": strange})
