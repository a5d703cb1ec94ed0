from itertools import permutations

import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.contributions import Scores, take_apart
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.pool import PoolName, floored, pooled

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _random(seed: int, members: int = 4, rows: int = 60) -> tuple[np.ndarray, np.ndarray, list[float]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    values = floored(log_probs(rng.normal(size=(members, rows, 3)) * rng.uniform(1, 5) + np.eye(3)[labels]))
    return values, labels, rng.dirichlet(np.ones(members)).tolist()


def _frequencies(labels: np.ndarray) -> tuple[float, float]:
    """Log-loss and accuracy of answering every row with the class frequencies."""
    shares = np.array([(labels == label).mean() for label in np.unique(labels)])
    return float(-(shares * np.log(shares)).sum()), float(shares.max())


def _worth(
    values: np.ndarray, labels: np.ndarray, weights: list[float], pool: PoolName, members: list[int]
) -> tuple[float, float]:
    """Log-loss and accuracy of a subset's pool from scratch, its weights scaled to sum to 1."""
    if not members:
        return _frequencies(labels)
    shares = np.array(weights)[members]
    mixed = pooled(pool, values[members], shares / shares.sum())
    return log_loss(mixed, labels), accuracy(mixed, labels)


def _by_permutations(
    values: np.ndarray, labels: np.ndarray, weights: list[float], pool: PoolName
) -> list[tuple[float, float]]:
    """Shapley values by their definition: what each member adds, averaged over all orders of arrival."""
    gains: list[list[np.ndarray]] = [[] for _ in values]
    for order in permutations(range(len(values))):
        for place, member in enumerate(order):
            after, before = (_worth(values, labels, weights, pool, list(order[:end])) for end in (place + 1, place))
            gains[member].append(np.subtract(after, before))
    return [tuple(np.mean(each, axis=0)) for each in gains]


def _pairs(parts: tuple[Scores, ...] | None) -> np.ndarray:
    assert parts is not None
    return np.array([(part.log_loss, part.accuracy) for part in parts])


@pytest.mark.parametrize("seed", range(10))
def test_log_pool_loss_is_mean_loss_less_the_weighted_divergences_from_the_pool(seed: int) -> None:
    values, labels, weights = _random(seed, members=5)
    parts = take_apart(values, labels, weights, "log")
    unscaled = np.exp(np.einsum("m,mnc->nc", weights, values))
    pool = unscaled / unscaled.sum(axis=1, keepdims=True)
    divergences = [(pool * (np.log(pool) - member)).sum(axis=1).mean() for member in values]
    mean_loss = sum(weight * log_loss(member, labels) for weight, member in zip(weights, values, strict=True))
    np.testing.assert_allclose(parts.disagreement, divergences, atol=1e-12)
    assert parts.mean_loss == pytest.approx(mean_loss, abs=1e-12)
    assert parts.whole.log_loss == pytest.approx(mean_loss - np.dot(weights, divergences), abs=1e-12)
    assert parts.gained == pytest.approx(np.dot(weights, parts.disagreement), abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_prob_pool_loss_is_mean_loss_less_jensens_gap_on_the_label(seed: int) -> None:
    values, labels, weights = _random(seed, members=5)
    parts = take_apart(values, labels, weights, "prob")
    truth = np.exp(values[:, np.arange(60), labels])
    jensen = (np.log(weights @ truth) - weights @ np.log(truth)).mean()
    mean_loss = -float(weights @ np.log(truth).mean(axis=1))
    assert parts.whole.log_loss == pytest.approx(mean_loss - jensen, abs=1e-12)
    assert parts.gained == pytest.approx(jensen, abs=1e-12)
    assert jensen > 0


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(3))
def test_shapley_values_equal_the_average_over_all_orders_of_arrival(seed: int, pool: PoolName) -> None:
    values, labels, weights = _random(seed)
    parts = take_apart(values, labels, weights, pool)
    np.testing.assert_allclose(_pairs(parts.shapley), _by_permutations(values, labels, weights, pool), atol=1e-12)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("members", [1, 2, 5, 12])
def test_shapley_values_add_up_to_the_way_from_class_frequencies_to_the_pool(members: int, pool: PoolName) -> None:
    values, labels, weights = _random(members, members=members)
    parts = take_apart(values, labels, weights, pool)
    way = np.array([parts.whole.log_loss, parts.whole.accuracy]) - _frequencies(labels)
    np.testing.assert_allclose(_pairs(parts.shapley).sum(axis=0), way, atol=1e-10)


@pytest.mark.parametrize("pool", POOLS)
def test_equal_members_get_equal_shapley_values(pool: PoolName) -> None:
    values, labels, _ = _random(4)
    values[3] = values[1]
    found = _pairs(take_apart(values, labels, [0.3, 0.2, 0.3, 0.2], pool).shapley)
    np.testing.assert_allclose(found[3], found[1], atol=1e-12)
    assert not np.allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize("pool", POOLS)
def test_a_member_without_weight_brings_nothing_and_is_not_missed(pool: PoolName) -> None:
    values, labels, _ = _random(5)
    parts = take_apart(values, labels, [0.5, 0.0, 0.3, 0.2], pool)
    np.testing.assert_allclose(_pairs(parts.shapley)[1], 0.0, atol=1e-12)
    assert parts.left_out[1] is not None
    assert parts.left_out[1].log_loss == pytest.approx(0.0, abs=1e-12)
    assert parts.left_out[1].accuracy == 0.0


@pytest.mark.parametrize("pool", POOLS)
def test_members_that_say_only_the_class_frequencies_bring_nothing(pool: PoolName) -> None:
    labels = np.repeat([0, 1, 2], [10, 20, 30])
    values = np.broadcast_to(np.log([1 / 6, 2 / 6, 3 / 6]), (3, 60, 3)).copy()
    parts = take_apart(values, labels, [0.5, 0.25, 0.25], pool)
    np.testing.assert_allclose(_pairs(parts.shapley), 0.0, atol=1e-12)
    assert parts.gained == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("pool", POOLS)
def test_left_out_is_the_pool_of_the_others_less_the_pool(pool: PoolName) -> None:
    values, labels, weights = _random(6)
    parts = take_apart(values, labels, weights, pool)
    whole = _worth(values, labels, weights, pool, [0, 1, 2, 3])
    assert (parts.whole.log_loss, parts.whole.accuracy) == pytest.approx(whole, abs=1e-12)
    for member, found in enumerate(parts.left_out):
        rest = _worth(values, labels, weights, pool, [other for other in range(4) if other != member])
        assert found is not None
        assert (found.log_loss, found.accuracy) == pytest.approx(tuple(np.subtract(rest, whole)), abs=1e-12)


@pytest.mark.parametrize("pool", POOLS)
def test_one_of_two_copies_is_not_missed_but_shapley_shows_its_worth(pool: PoolName) -> None:
    values, labels, _ = _random(7, members=1)
    parts = take_apart(np.repeat(values, 2, axis=0), labels, [0.5, 0.5], pool)
    assert parts.left_out[0] is not None
    assert parts.left_out[0].log_loss == pytest.approx(0.0, abs=1e-12)
    way = parts.whole.log_loss - _frequencies(labels)[0]
    np.testing.assert_allclose(_pairs(parts.shapley)[:, 0], way / 2, atol=1e-12)


def test_a_member_alone_cannot_be_left_out_and_holds_the_whole_way() -> None:
    values, labels, _ = _random(8, members=1)
    parts = take_apart(values, labels, [1.0], "log")
    assert parts.left_out == (None,)
    assert parts.gained == pytest.approx(0.0, abs=1e-12)
    assert parts.disagreement == pytest.approx((0.0,), abs=1e-12)
    assert parts.error_inconsistency.tolist() == [[0.0]]


def test_error_inconsistency_is_the_share_of_rows_that_exactly_one_of_two_gets_right() -> None:
    labels = np.array([0, 1, 2, 0])
    answers = np.array([[0, 1, 2, 1], [0, 2, 2, 0], [1, 0, 0, 1]])  # right: 1110, 1011, 0000
    values = floored(log_probs(4.0 * np.eye(3)[answers]))
    parts = take_apart(values, labels, [0.5, 0.3, 0.2], "log")
    np.testing.assert_array_equal(parts.error_inconsistency, [[0.0, 0.5, 0.75], [0.5, 0.0, 0.75], [0.75, 0.75, 0.0]])


def test_more_members_than_all_subsets_can_be_tried_for_have_no_shapley_values() -> None:
    values, labels, weights = _random(9, members=13)
    parts = take_apart(values, labels, weights, "log")
    assert parts.shapley is None
    assert len(parts.left_out) == len(parts.disagreement) == 13


def _random_answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """Answers of models, (members, rows), that are wrong together on hard rows; labels; number of classes."""
    classes, members = int(rng.integers(2, 6)), int(rng.integers(2, 10))
    labels = rng.integers(0, classes, 300)
    chance_right = rng.beta(rng.uniform(0.5, 4), rng.uniform(0.3, 2), size=300)
    wrong = (labels + rng.integers(1, classes, size=(members, 300))) % classes
    return np.where(rng.random((members, 300)) < chance_right, labels, wrong), labels, classes


def _is_competent(answers: np.ndarray, labels: np.ndarray) -> bool:
    """Whether P(W in [t, 1/2)) >= P(W in [1/2, 1 - t]) for all t up to 1/2, W being the share of wrong members."""
    wrong = (answers != labels).sum(axis=0)
    members = len(answers)
    # W is a multiple of 1 / members, so that all cases of t are those at which an end of an interval passes one
    starts = range(members // 2 + 1)
    below = [((wrong >= start) & (2 * wrong < members)).sum() for start in starts]
    above = [((2 * wrong >= members) & (wrong <= members - start)).sum() for start in starts]
    return all(left >= right for left, right in zip(below, above, strict=True))


def test_votes_of_competent_models_keep_to_the_bounds_of_their_disagreement() -> None:
    rng = np.random.default_rng(0)
    competent = informative = 0
    for _ in range(700):
        answers, labels, classes = _random_answers(rng)
        if not _is_competent(answers, labels):
            continue
        competent += 1
        members = len(answers)
        values = floored(log_probs(40.0 * np.eye(classes)[answers]))  # the pool of certain members is their vote
        shares = np.full(members, 1 / members)
        error = 1 - np.mean([accuracy(value, labels) for value in values])
        if error == 0.0:
            continue
        improvement = (error - (1 - accuracy(pooled("prob", values, shares), labels))) / error
        apart = (answers[:, None] != answers[None, :]).mean()
        bound = 2 * (classes - 1) / classes * apart / error - (3 * classes - 4) / classes
        assert max(bound, 0.0) - 1e-9 <= improvement <= apart / error + 1e-9
        informative += bound > 0.0
        inconsistency = take_apart(values, labels, shares.tolist(), "prob").error_inconsistency.mean()
        assert inconsistency == pytest.approx(apart) if classes == 2 else inconsistency <= apart + 1e-12
    assert competent >= 200
    assert informative >= 20
