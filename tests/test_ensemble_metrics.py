import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import (
    accuracy,
    balanced_accuracy,
    bootstrap_interval,
    expected_calibration_error,
    expected_cost,
    group_sums,
    log_loss,
    macro_f1,
    reliability,
    row_losses,
    scores_of,
    share_interval,
    wilson_interval,
)
from tests.support.patience import cpu_seconds

HAND = np.log(np.array([[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]))
LABELS = np.array([0, 1, 1])


def test_scores_equal_hand_computed_values() -> None:
    np.testing.assert_allclose(row_losses(HAND, LABELS), -np.log([0.8, 0.3, 0.7]))
    assert log_loss(HAND, LABELS) == pytest.approx(-np.log(0.8 * 0.3 * 0.7) / 3)
    assert accuracy(HAND, LABELS) == pytest.approx(2 / 3)
    assert balanced_accuracy(HAND, LABELS) == pytest.approx((1 + 0.5) / 2)
    assert macro_f1(HAND, LABELS) == pytest.approx((2 / 3 + 2 / 3) / 2)


def test_calibration_error_equals_the_gap_of_hand_made_bins() -> None:
    # bin (0.5, 0.75]: confidence 0.6 and 0.7, one of two right; bin (0.75, 1]: confidence 0.8, right
    assert expected_calibration_error(HAND, LABELS, bins=4) == pytest.approx((abs(1 - 1.3) + abs(1 - 0.8)) / 3)


def test_reliability_leaves_out_bins_without_rows_and_counts_every_row() -> None:
    found = reliability(HAND, LABELS, bins=4)
    np.testing.assert_allclose(found.confidence, [0.65, 0.8])
    np.testing.assert_allclose(found.accuracy, [0.5, 1.0])
    assert found.rows.tolist() == [2, 1]
    assert found.error == expected_calibration_error(HAND, LABELS, bins=4)


def test_wilsons_interval_equals_published_values_and_stays_inside() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    low, high = wilson_interval(np.array([81 / 263, 15 / 148, 0.0, 1 / 29]), np.array([263, 148, 20, 29]))
    np.testing.assert_allclose(low, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    np.testing.assert_allclose(high, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)


@pytest.mark.parametrize("seed", range(3))
def test_class_averages_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values, labels = log_probs(rng.normal(size=(50, 6))), rng.integers(0, 5, 50)
    predicted = values.argmax(axis=1)
    assert macro_f1(values, labels) == pytest.approx(f1_score(labels, predicted, average="macro"))
    seen = np.isin(predicted, labels)  # scikit-learn warns of predicted classes without rows
    assert balanced_accuracy(values[seen], labels[seen]) == pytest.approx(
        balanced_accuracy_score(labels[seen], predicted[seen])
    )


def test_interval_has_the_width_of_a_normal_mean() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 4_000)
    low, high = bootstrap_interval(values, None, seed=1)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(4_000), rel=0.1)
    assert low < values.mean() < high


def test_interval_widens_when_rows_are_copies_within_groups() -> None:
    values = np.random.default_rng(0).normal(size=200)
    alone = bootstrap_interval(values, None, seed=1)
    copied = bootstrap_interval(np.repeat(values, 25), np.repeat(np.arange(200), 25), seed=1)
    np.testing.assert_allclose(copied, alone, rtol=0.15, atol=0.02)
    assert bootstrap_interval(values, None, seed=1) == alone


def test_interval_of_many_rows_takes_little_more_than_its_draws() -> None:
    values, generator = np.random.default_rng(0).normal(size=50_000), np.random.default_rng(0)

    def draw() -> None:
        for _ in range(200):
            values[generator.integers(0, 25_000, 25_000)].sum()

    interval = cpu_seconds(lambda: bootstrap_interval(values, np.arange(50_000) // 2, seed=0, draws=200), times=3)
    assert interval < 5 * cpu_seconds(draw, times=3)  # less than twice as long


def test_group_sums_equal_a_loop() -> None:
    values = np.arange(12.0).reshape(2, 6)
    sums, sizes = group_sums(values, ["b", "a", "b", "c", "a", "b"])
    np.testing.assert_allclose(sums, [[5, 7, 3], [17, 25, 9]])
    np.testing.assert_allclose(sizes, [2, 3, 1])


def test_interval_refuses_one_group_and_wrong_shapes() -> None:
    with pytest.raises(ValueError, match="at least 2 groups"):
        bootstrap_interval([1.0, 2.0], [0, 0], seed=0)
    with pytest.raises(ValueError, match="one entry a row"):
        bootstrap_interval([1.0, 2.0], [0, 0, 1], seed=0)


def test_share_interval_does_not_claim_certainty_when_all_rows_are_right() -> None:
    # Wilson with k = n: the lower end is n / (n + z^2), z = 1.959964.
    low, high = share_interval(np.ones(100), None, seed=0)
    assert low == pytest.approx(100 / (100 + 1.959964**2), abs=1e-6)
    assert high == pytest.approx(1.0, abs=1e-12)


def test_share_interval_counts_groups_and_not_rows() -> None:
    low, _ = share_interval(np.ones(100), np.arange(100) // 10, seed=0)
    assert low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-6)


def test_share_interval_is_the_bootstrap_when_rows_differ() -> None:
    hits = np.array([1.0] * 80 + [0.0] * 20)
    assert share_interval(hits, None, seed=3) == bootstrap_interval(hits, None, seed=3)


def test_expected_cost_is_that_of_the_cheapest_decision_and_not_of_the_likeliest_class() -> None:
    # Deciding dog for a wolf costs 10: at a wolf's chance of 0.2 the cheaper decision is wolf (0.8 against 2).
    costs = np.array([[0.0, 1.0], [10.0, 0.0]])
    values = np.log([[0.8, 0.2], [0.95, 0.05], [0.8, 0.2]])
    assert expected_cost(values, [0, 0, 1], costs) == pytest.approx((1.0 + 0.0 + 0.0) / 3)
    assert expected_cost(values, [0, 1, 1], costs) == pytest.approx((1.0 + 10.0 + 0.0) / 3)


def test_where_every_mistake_costs_one_expected_cost_is_the_error_rate() -> None:
    rng = np.random.default_rng(0)
    values, labels = np.log(rng.dirichlet(np.ones(4), 50)), rng.integers(0, 4, 50)
    scores = scores_of(values, labels, 1.0 - np.eye(4))
    assert scores["expected_cost"] == pytest.approx(1.0 - scores["accuracy"])
