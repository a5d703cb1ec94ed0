import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.metrics import log_loss, row_losses
from spine_ray.ensemble.objective import OBJECTIVES, gap
from spine_ray.ensemble.pool import PoolName, floored, pooled

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _random(seed: int, members: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 60)
    values = floored(log_probs(rng.normal(size=(members, 60, 3)) * 2 + 2 * np.eye(3)[labels]))
    return values, labels, rng.dirichlet(np.ones(members))


def _encoded(pool: PoolName, values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([OBJECTIVES[pool].encode(value, labels) for value in values]).astype(np.float64)


def _gap(pool: PoolName, values: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    encodings = _encoded(pool, values, labels)
    mean = np.tensordot(weights, encodings, axes=1)
    direction = OBJECTIVES[pool].direction(mean)
    return gap(np.array([np.vdot(direction, each) for each in encodings]), float(np.vdot(direction, mean)))


@pytest.mark.parametrize("pool", POOLS)
def test_row_losses_of_the_mean_encoding_are_those_of_the_pool(pool: PoolName) -> None:
    values, labels, weights = _random(0)
    mean = np.tensordot(weights, _encoded(pool, values, labels), axes=1)
    expected = row_losses(pooled(pool, values, weights), labels)
    np.testing.assert_allclose(OBJECTIVES[pool].row_losses(mean), expected, atol=1e-6)


@pytest.mark.parametrize("pool", POOLS)
def test_direction_equals_finite_differences(pool: PoolName) -> None:
    values, labels, weights = _random(1)
    objective = OBJECTIVES[pool]
    encodings = _encoded(pool, values, labels)
    mean = np.tensordot(weights, encodings, axes=1)
    for encoding in encodings:
        step = 1e-6 * (encoding - mean)
        up, down = (float(objective.row_losses(mean + sign * step).mean()) for sign in (1, -1))
        assert np.vdot(objective.direction(mean), encoding - mean) == pytest.approx((up - down) / 2e-6, abs=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_prob_gap_bounds_what_expectation_maximisation_still_gains_and_vanishes(seed: int) -> None:
    values, labels, _ = _random(seed)
    truth = np.exp(values[:, np.arange(60), labels])
    weights = np.full(4, 0.25)
    losses, gaps = [], []
    for _ in range(3_000):
        losses.append(log_loss(pooled("prob", values, weights), labels))
        gaps.append((truth / (weights @ truth)).mean(axis=1).max() - 1)
        if len(losses) in (1, 10, 100):
            assert _gap("prob", values, labels, weights) == pytest.approx(gaps[-1], abs=1e-6)
        weights = weights * (truth / (weights @ truth)).mean(axis=1)
    assert np.all(np.diff(losses) <= 1e-12)
    assert all(gap >= loss - losses[-1] - 1e-12 for gap, loss in zip(gaps, losses, strict=True))
    assert gaps[-1] < 1e-3 * gaps[0]


def test_log_gap_bounds_the_gain_of_any_other_weights() -> None:
    values, labels, weights = _random(5)
    gap = _gap("log", values, labels, weights)
    loss = log_loss(pooled("log", values, weights), labels)
    others = np.random.default_rng(0).dirichlet(np.full(4, 0.5), size=500)
    assert gap >= 0
    assert min(log_loss(pooled("log", values, other), labels) for other in others) >= loss - gap
