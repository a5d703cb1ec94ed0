import numpy as np
import pytest

from spine_ray.ladder.comparison import compare_losses


def test_the_best_leads_and_the_gaps_are_those_of_the_means() -> None:
    losses = np.random.default_rng(0).normal([[0.5], [0.2], [0.9]], 0.1, size=(3, 400))
    found = compare_losses(losses, None, seed=0)
    means = losses.mean(axis=1)
    assert (found.leader, found.order) == (1, (1, 0, 2))
    assert found.behind(2)[0] == pytest.approx(means[2] - means[1])
    assert found.behind(1) == (0.0, 0.0)
    assert not found.is_within_noise(0) and found.is_within_noise(1)


def test_the_margin_of_two_is_that_of_the_paired_difference() -> None:
    rng = np.random.default_rng(1)
    shared = rng.normal(1.0, 1.0, size=2_000)  # what both find hard cancels in the difference
    losses = np.stack([shared, shared + rng.normal(0.01, 0.05, size=2_000)])
    _, margin = compare_losses(losses, None, seed=0).behind(1)
    expected = 1.96 * (losses[1] - losses[0]).std() / np.sqrt(2_000)
    assert margin == pytest.approx(expected, rel=0.1)


def test_margins_are_symmetric_and_none_on_the_diagonal() -> None:
    found = compare_losses(np.random.default_rng(2).normal(size=(4, 100)), None, seed=0)
    np.testing.assert_array_equal(found.margins, found.margins.T)
    np.testing.assert_array_equal(np.diag(found.margins), 0.0)


def test_rows_of_one_group_count_once() -> None:
    losses = np.random.default_rng(3).normal(size=(2, 50))
    alone = compare_losses(losses, None, seed=0).behind(int(losses.mean(axis=1).argmax()))[1]
    copies = compare_losses(np.repeat(losses, 9, axis=1), np.repeat(np.arange(50), 9), seed=0)
    assert copies.margins.max() == pytest.approx(alone, rel=1e-6)


def test_a_trial_and_its_copy_are_within_noise_of_each_other() -> None:
    losses = np.random.default_rng(4).normal(size=100)
    found = compare_losses(np.stack([losses, losses]), None, seed=0)
    assert found.behind(1) == (0.0, 0.0)
    assert found.is_within_noise(1)


def test_all_intervals_against_the_leader_hold_at_once_in_95_percent_of_samples() -> None:
    truth, draws, held = np.array([0.30, 0.30, 0.31, 0.33, 0.40]), 200, 0
    rng = np.random.default_rng(5)
    for draw in range(draws):
        found = compare_losses(truth[:, None] + rng.normal(0.0, 0.3, size=(5, 300)), None, seed=draw)
        gaps = truth - truth[found.leader]
        held += all(abs(found.behind(each)[0] - gaps[each]) <= found.behind(each)[1] for each in range(5))
    assert held / draws >= 0.92  # 0.95 less twice the error of 200 draws


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="losses as"):
        compare_losses(np.zeros((0, 10)), None, seed=0)
    with pytest.raises(ValueError, match="at least 2 groups"):
        compare_losses(np.zeros((2, 10)), np.zeros(10), seed=0)
