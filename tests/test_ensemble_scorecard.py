import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import accuracy, balanced_accuracy, expected_calibration_error, log_loss, row_losses
from spine_ray.ensemble.scorecard import Judged, refit_temperature, score_rows


def draw(rows: int, seed: int = 0, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw predictions that are calibrated at sharpness 1, with uneven classes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=1.5, size=(rows, 3)) + np.array([1.0, 0.0, -1.0])
    chances = np.exp(log_probs(logits))
    labels = (rng.random(rows)[:, None] > chances.cumsum(axis=1)).sum(axis=1)
    return log_probs(logits * sharpness), labels


def judged(predicted: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None) -> Judged:
    return Judged(
        labels=labels, predicted=predicted.argmax(axis=1), losses=row_losses(predicted, labels),
        confidence=np.exp(predicted.max(axis=1)), groups=groups,
    )  # fmt: skip


def test_the_scores_are_those_of_the_metrics_and_lie_in_their_intervals() -> None:
    predicted, labels = draw(500)
    found = score_rows(judged(predicted, labels))
    assert found.log_loss.value == pytest.approx(log_loss(predicted, labels))
    assert found.accuracy.value == pytest.approx(accuracy(predicted, labels))
    assert found.balanced_accuracy.value == pytest.approx(balanced_accuracy(predicted, labels))
    assert found.calibration_error.value == pytest.approx(expected_calibration_error(predicted, labels))
    for score in (found.log_loss, found.accuracy, found.balanced_accuracy, found.calibration_error):
        assert score.low < score.value < score.high


def test_intervals_cover_what_many_rows_say() -> None:
    truth = balanced_accuracy(*draw(200_000, seed=99))
    inside = 0
    for seed in range(40):
        score = score_rows(judged(*draw(300, seed))).balanced_accuracy
        inside += score.low <= truth <= score.high
    assert inside >= 34


def test_the_interval_of_the_calibration_error_holds_it_though_resampled_rows_have_more_of_it() -> None:
    draws = np.random.default_rng(3)
    for _ in range(30):
        predicted = log_probs(draws.normal(size=(300, 3)))
        labels = (np.exp(predicted).cumsum(axis=1) > draws.random((300, 1))).argmax(axis=1)
        score = score_rows(judged(predicted, labels)).calibration_error
        assert score.low <= score.value <= score.high


def test_rows_of_one_group_count_as_one() -> None:
    predicted, labels = draw(200)
    twice = [np.concatenate([each, each]) for each in (predicted, labels)]
    groups = np.tile(np.arange(200), 2)
    alone, doubled = score_rows(judged(predicted, labels)), score_rows(judged(*twice, groups))
    naive = score_rows(judged(*twice))
    widths = [score.high - score.low for score in (alone.accuracy, doubled.accuracy, naive.accuracy)]
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert widths[2] < 0.85 * widths[0]


def test_where_all_are_right_no_interval_claims_certainty() -> None:
    predicted = log_probs(10.0 * np.eye(3)[np.arange(60) % 3])
    found = score_rows(judged(predicted, np.arange(60) % 3))
    assert found.accuracy.low < 0.95
    assert found.balanced_accuracy.low < 0.95


def test_a_temperature_is_found_and_judged_on_rows_it_was_not_fitted_on() -> None:
    predicted, labels = draw(3000, sharpness=3.0)
    found = refit_temperature(predicted, labels, None)
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.after < found.before - 0.1
    # Fitted on all of them it is better still, by hardly anything.
    assert log_loss(log_probs(predicted, found.temperature), labels) <= found.after < found.before


def test_one_row_is_too_few() -> None:
    predicted, labels = draw(1)
    with pytest.raises(ValueError, match="at least 2 groups"):
        score_rows(judged(predicted, labels))
