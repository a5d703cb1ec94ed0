import json
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble import Ensemble, select
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.selection import pooled_log_probs
from tests.support.patience import cpu_seconds


def _task(seed: int = 0, members: int = 6, rows: int = 600, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    return (2.0 * np.eye(4)[labels] + noise * rng.normal(size=(members, rows, 4))).astype(np.float32), labels


def _select(logits: np.ndarray, labels: np.ndarray, **options: Any) -> Ensemble:
    members = len(logits)
    given = {
        "families": [f"f{index % 3}" for index in range(members)],
        "resolutions": [64] * members,
        "costs": [1.0] * members,
        "folds": np.arange(len(labels)) % 4,
    }
    return select(logits, labels, **{**given, **options})


def test_independent_members_are_pooled_and_the_report_is_true() -> None:
    logits, labels = _task()
    found = _select(logits, labels)
    report = found.report
    assert report["answer"] == "ensemble"
    assert report["cross_fit"]["low"] > 0
    assert "cross-fitted" in report["reason"]
    values = pooled_log_probs(found, logits[list(found.members)])
    assert report["log_loss"] == pytest.approx(log_loss(values, labels))
    assert report["accuracy"] == accuracy(values, labels)
    assert report["best_single_log_loss"] - report["log_loss"] == pytest.approx(report["apparent"]["gain"])
    assert [each["index"] for each in report["members"]] == list(found.members)
    assert all(each["leave_one_out_rise"] > 0 and each["disagreement"] > 0 for each in report["members"])
    assert report["families"] == 3
    assert found.certificate is not None
    assert found.certificate >= 0
    json.dumps(report)


def test_copies_of_one_model_are_answered_by_a_single_model() -> None:
    logits, labels = _task(members=1)
    found = _select(np.repeat(logits, 5, axis=0), labels, costs=[5, 4, 1, 4, 5])
    assert (found.members, found.weights) == ((2,), (1.0,))
    assert found.report["answer"] == "single"
    assert found.certificate is None


def test_models_that_differ_by_little_are_answered_by_the_single_best() -> None:
    rng = np.random.default_rng(0)
    logits, labels = _task(members=1, rows=200)
    noisy = (logits + 0.05 * rng.normal(size=(8, 200, 4))).astype(np.float32)
    found = _select(noisy, labels)
    assert found.report["answer"] == "single"
    assert found.members == (found.report["best_single"],)
    if len(found.report["considered"]["members"]) > 1:
        assert "not surely above 0" in found.report["reason"]
        assert found.report["cross_fit"]["low"] <= 0.0


def test_scaled_and_shifted_logits_leave_the_selection_unchanged() -> None:
    logits, labels = _task()
    scale = np.array([0.5, 1, 2, 3, 0.7, 1.5])[:, None, None]
    found = _select(logits, labels)
    again = _select(logits * scale + 5.0, labels)
    assert again.members == found.members
    np.testing.assert_allclose(again.weights, found.weights)
    np.testing.assert_allclose(
        pooled_log_probs(again, (logits * scale + 5.0)[list(again.members)]),
        pooled_log_probs(found, logits[list(found.members)]),
        atol=1e-4,
    )


def test_final_temperature_sharpens_a_probability_pool_of_calibrated_members() -> None:
    logits, labels = _task()
    found = _select(logits, labels, pool="prob")
    assert found.pool == "prob"
    assert found.final_temperature < 0.95


def test_auto_takes_the_pool_with_the_lower_cross_fitted_loss() -> None:
    logits, labels = _task()
    found = _select(logits, labels)
    losses = found.report["pool_log_loss"]
    assert set(losses) == {"log", "prob"}
    assert found.pool == min(losses, key=losses.get)
    assert _select(logits, labels, folds=None).pool == "log"


def test_without_folds_the_gain_is_called_apparent() -> None:
    logits, labels = _task()
    found = _select(logits, labels, folds=None)
    assert found.report["cross_fit"] is None
    assert "optimistic" in found.report["reason"]


def test_pins_bans_and_limits_are_obeyed_in_the_callers_indices() -> None:
    logits, labels = _task()
    logits[4] = np.random.default_rng(9).normal(size=logits[4].shape)
    found = _select(logits, labels, pinned=[4], banned=[0, 1], max_members=3)
    assert 4 in found.members
    assert not {0, 1} & set(found.members)
    assert len(found.members) <= 3
    costs = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    cheap = _select(logits, labels, costs=costs, max_cost=6.0)
    assert sum(costs[member] for member in cheap.members) <= 6.0
    assert cheap.report["cost"] == sum(costs[member] for member in cheap.members)


def test_a_price_above_the_gain_leaves_the_cheapest_worthwhile_model() -> None:
    logits, labels = _task()
    found = _select(logits, labels, costs=[1, 1, 1, 1, 1, 0.1], price=100.0)
    assert found.members == (5,)
    assert found.report["answer"] == "single"


def test_one_candidate_answers_alone() -> None:
    logits, labels = _task(members=1)
    found = _select(logits, labels)
    assert found.members == (0,)
    assert "only one" in found.report["reason"]


def test_equal_calls_give_equal_answers() -> None:
    logits, labels = _task()
    assert _select(logits, labels, seed=3) == _select(logits, labels, seed=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"families": ["a"]}, "families must have one entry a member: 6 members, 1"),
        ({"costs": [1, 1, -2, 1, 1, 1]}, r"not -2.0 ms \(member 2\)"),
        ({"max_cost": float("nan")}, "max_cost must be a finite number, not nan"),
        ({"max_cost": 0.5}, "below the cheapest member's cost of 1"),
        ({"max_cost": 1.5, "pinned": [0, 1]}, "below the pinned members' cost of 2"),
        ({"pinned": [1], "banned": [1]}, "member 1 is pinned and banned at once"),
        ({"pinned": [6]}, "pinned must be members 0 to 5, not 6"),
        ({"banned": range(6)}, "all 6 members are banned"),
        ({"pinned": [0, 1], "max_members": 1}, "2 members are pinned"),
        ({"max_members": 0}, "max_members must be at least 1"),
        ({"price": -1.0}, "price must be at least 0"),
        ({"pool": "mean"}, "unknown pool 'mean': choose one of auto, log, prob"),
        ({"folds": np.zeros(600)}, "folds must have at least two"),
        ({"groups": [1, 2]}, "groups must have one entry a row: 600 rows"),
    ],
)
def test_select_refuses_what_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    logits, labels = _task()
    with pytest.raises(ValueError, match=message):
        _select(logits, labels, **options)


def test_select_refuses_broken_logits_and_labels() -> None:
    logits, labels = _task()
    with pytest.raises(ValueError, match=r"labels must be 0 to 3, not 0 to 4"):
        _select(logits, np.where(np.arange(600) == 5, 4, labels))
    with pytest.raises(ValueError, match="one whole number a row"):
        _select(logits, labels[:-1], folds=None)
    with pytest.raises(ValueError, match="members, samples, classes"):
        _select(logits[0], labels)
    logits[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="logits of member 3 are not all finite"):
        _select(logits, labels)


def test_pooled_log_probs_refuses_another_number_of_members() -> None:
    logits, labels = _task()
    found = _select(logits, labels)
    with pytest.raises(ValueError, match="logits must be"):
        pooled_log_probs(found, logits[: len(found.members) - 1])


def test_ensemble_refuses_weights_that_are_no_shares() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        Ensemble(
            members=(0, 1), weights=(0.5, 0.6), temperatures=(1.0, 1.0), final_temperature=1.0, pool="log",
            trajectory=(), certificate=None, report={},
        )  # fmt: skip


def test_forty_members_with_cross_fit_take_less_than_a_thousand_log_softmaxes_of_their_logits() -> None:
    logits, labels = _task(members=40, rows=3_000)
    look = cpu_seconds(lambda: log_probs(logits), times=5)
    assert cpu_seconds(lambda: _select(logits, labels)) < 1000 * look  # about 300, or 2 s
