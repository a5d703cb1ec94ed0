import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from tests.support.patience import cpu_seconds


def _sampled(rows: int, classes: int, scale: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `scale` times the true log-posterior of the labels."""
    rng = np.random.default_rng(seed)
    posterior = log_probs(rng.normal(size=(rows, classes)) * 2.0)
    labels = (rng.random((rows, 1)) > np.exp(posterior).cumsum(axis=1)).sum(axis=1).clip(0, classes - 1)
    return posterior * scale, labels


def _loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return -float(log_probs(logits, temperature)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0, 10.0])
def test_fit_temperature_recovers_the_scale_of_a_true_posterior(scale: float) -> None:
    logits, labels = _sampled(200_000, 3, scale, seed=0)
    assert fit_temperature(logits, labels) == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_fit_temperature_equals_a_bounded_scalar_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(300, 5)) * rng.uniform(0.1, 20)
    labels = np.where(rng.random(300) < rng.uniform(0.1, 0.95), logits.argmax(axis=1), rng.integers(0, 5, 300))
    found = fit_temperature(logits, labels)
    reference = minimize_scalar(
        lambda x: _loss(logits, labels, float(np.exp(x))), bounds=np.log([0.05, 20]), options={"xatol": 1e-10}
    )
    assert _loss(logits, labels, found) <= reference.fun + 1e-9
    assert _loss(logits, labels, found) <= _loss(logits, labels, 1.0)


def test_fit_temperature_is_clamped_when_the_data_are_separable_or_hopeless() -> None:
    logits = np.eye(4)[np.arange(40) % 4] * 0.01
    assert fit_temperature(logits, np.arange(40) % 4) == pytest.approx(0.05)
    assert fit_temperature(-1e4 * logits, np.arange(40) % 4) == pytest.approx(20.0)


def test_fit_temperature_is_one_when_logits_say_nothing() -> None:
    assert fit_temperature(np.zeros((10, 3)), np.arange(10) % 3) == 1.0


def test_fit_temperature_does_not_depend_on_its_start_or_on_a_constant() -> None:
    logits, labels = _sampled(2_000, 4, 2.5, seed=1)
    found = fit_temperature(logits, labels)
    for start in (0.05, 0.3, 20.0):
        assert fit_temperature(logits, labels, start=start) == pytest.approx(found, rel=1e-6)
    assert fit_temperature(logits + 1e3, labels) == pytest.approx(found, rel=1e-9)


def test_fit_temperature_takes_less_than_twenty_log_softmaxes_of_an_epochs_logits() -> None:
    logits, labels = _sampled(4_000, 10, 3.0, seed=2)
    look = cpu_seconds(lambda: log_probs(logits), times=5)
    assert cpu_seconds(lambda: fit_temperature(logits, labels), times=5) < 20 * look  # about 3, or 1 ms


def test_log_probs_sum_to_one_when_logits_are_extreme() -> None:
    values = log_probs(np.array([[1e4, -1e4, 0.0], [5e3, 5e3, 5e3]], dtype=np.float32), 0.5)
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0, atol=1e-12)
    assert values.dtype == np.float64


def test_fit_temperature_refuses_labels_of_other_rows() -> None:
    with pytest.raises(ValueError, match="one label a row"):
        fit_temperature(np.zeros((3, 2)), [0, 1])


def test_of_many_numbers_float32_finds_the_temperature_of_float64() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 60, 20_000)
    logits = (3.0 * np.eye(60)[labels] + 1.3 * rng.normal(size=(20_000, 60))).astype(np.float32)
    assert fit_temperature(logits, labels) == pytest.approx(
        fit_temperature(logits.astype(np.float64), labels), rel=1e-6
    )
