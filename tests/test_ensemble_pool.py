import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import log_loss
from spine_ray.ensemble.pool import (
    disagreement,
    floored,
    log_pool,
    member_disagreement,
    pairwise_disagreement,
    pooled,
    prob_pool,
)


def _random(seed: int, members: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    values = floored(log_probs(rng.normal(size=(members, 40, 6)) * 6.0))
    return values, rng.dirichlet(np.ones(members)), rng.integers(0, 6, 40)


@pytest.mark.parametrize("seed", range(10))
def test_log_pool_loss_is_mean_member_loss_minus_disagreement(seed: int) -> None:
    values, weights, labels = _random(seed)
    mean = sum(weight * log_loss(member, labels) for weight, member in zip(weights, values, strict=True))
    assert log_loss(log_pool(values, weights), labels) == pytest.approx(mean - disagreement(values, weights), abs=1e-12)


def test_disagreement_is_the_log_of_the_pools_lost_mass_and_zero_for_copies() -> None:
    values, weights, _ = _random(0)
    mass = np.exp(np.tensordot(weights, values, axes=1)).sum(axis=1)
    assert disagreement(values, weights) == pytest.approx(-np.log(mass).mean(), abs=1e-12)
    assert disagreement(np.stack([values[0]] * 3), np.ones(3) / 3) == pytest.approx(0.0, abs=1e-12)
    assert (member_disagreement(log_pool(values, weights), values) > 0).all()


def test_pools_equal_their_definitions() -> None:
    values, weights, _ = _random(1)
    mean = np.einsum("m,mnc->nc", weights, np.exp(values))
    np.testing.assert_allclose(np.exp(prob_pool(values, weights)), mean, atol=1e-14)
    product = np.prod(np.exp(values) ** weights[:, None, None], axis=0)
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(log_pool(values, weights)), expected, atol=1e-14)
    np.testing.assert_array_equal(pooled("log", values, weights), log_pool(values, weights))
    np.testing.assert_array_equal(pooled("prob", values, weights), prob_pool(values, weights))


def test_floored_sums_to_one_and_keeps_the_rest() -> None:
    values = floored(log_probs(np.array([[0.0, -1e4, -1e4], [0.3, 0.1, 0.0]])))
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0, atol=1e-12)
    assert values.min() == pytest.approx(np.log(1e-6), abs=1e-5)
    np.testing.assert_allclose(values[1], log_probs(np.array([0.3, 0.1, 0.0])), atol=1e-15)


def test_one_of_eight_cannot_veto_what_seven_hold_nine_to_one() -> None:
    sure_and_wrong = log_probs(np.array([[-1e6, 0.0]]))
    members = np.stack([sure_and_wrong, *[np.log([[0.9, 0.1]])] * 7])
    assert log_pool(floored(members), np.ones(8) / 8).argmax(axis=1)[0] == 0
    assert log_pool(members, np.ones(8) / 8).argmax(axis=1)[0] == 1


def test_pairwise_disagreement_is_that_of_every_even_pair() -> None:
    values, _, _ = _random(2)
    found = pairwise_disagreement(values)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 0.0)
    for one in range(len(values)):
        for other in range(one):
            assert found[one, other] == pytest.approx(disagreement(values[[one, other]], [0.5, 0.5]), abs=1e-12)
