import numpy as np
import pytest
import torch

from spine_ray.core.scaling import scale_features


def rows(number: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(3.0 + rng.normal(size=(number, width)) * rng.uniform(0.1, 4.0, width), np.float32)


def test_the_scale_is_the_formula_written_out() -> None:
    raw = rows(50, 6)
    scaled = scale_features(torch.from_numpy(raw.copy()))
    assert scaled.basis is None
    deviation = raw.astype(np.float64).std(axis=0)
    values = (raw - raw.mean(axis=0, dtype=np.float64)) / np.sqrt(deviation**2 + deviation.mean() ** 2)
    values /= np.sqrt(values.var(axis=0).mean())
    np.testing.assert_allclose(scaled.values, values, atol=1e-5)
    assert float(scaled.values.var(dim=0, correction=0).mean()) == pytest.approx(1.0, abs=1e-5)


def test_few_rows_are_rotated_which_changes_no_product_of_rows() -> None:
    raw = rows(30, 200)
    scaled = scale_features(torch.from_numpy(raw.copy()))
    assert scaled.values.shape == (30, 30)
    assert scaled.basis is not None
    np.testing.assert_allclose(scaled.basis.T @ scaled.basis, np.eye(30), atol=1e-5)
    flat = (raw - scaled.mean.numpy()) * scaled.inverse_scale.numpy()
    np.testing.assert_allclose(scaled.values @ scaled.basis.T, flat, atol=1e-4)
    np.testing.assert_allclose(scaled.values @ scaled.values.T, flat @ flat.T, atol=1e-3)


@pytest.mark.parametrize("number", [30, 300])
def test_a_point_says_the_same_of_raw_features(number: int) -> None:
    raw = rows(number, 80)
    scaled = scale_features(torch.from_numpy(raw.copy()))
    point = torch.randn(4, scaled.values.shape[1] + 1, generator=torch.Generator().manual_seed(0))
    weights, biases = scaled.unscaled(point)
    expected = scaled.values @ point[:, :-1].T + point[:, -1]
    np.testing.assert_allclose(raw @ weights.numpy().T + biases.numpy(), expected, atol=1e-4)


def test_constant_features_become_zero_and_do_not_matter_to_the_others() -> None:
    raw = rows(60, 5)
    constant = np.full((60, 2), [1.0, -7.3], np.float32)
    constant[::2, 1] = np.nextafter(np.float32(-7.3), np.float32(0.0))  # constant but for its last bit
    with_constant = scale_features(torch.from_numpy(np.hstack([raw, constant])))
    np.testing.assert_array_equal(with_constant.values[:, 5:], np.zeros((60, 2)))
    np.testing.assert_allclose(with_constant.values[:, :5], scale_features(torch.from_numpy(raw)).values, atol=1e-6)


def test_features_that_are_all_constant_are_all_zero() -> None:
    scaled = scale_features(torch.full((10, 3), 2.5))
    np.testing.assert_array_equal(scaled.values, np.zeros((10, 3)))
    np.testing.assert_array_equal(scaled.inverse_scale, np.zeros(3))


def test_a_feature_that_hardly_moves_in_these_rows_is_not_blown_up() -> None:
    raw = rows(200, 20)
    raw[:, 0] = 0.0
    raw[0, 0] = 1e-3
    scaled = scale_features(torch.from_numpy(raw.copy()))
    others_with_one = (1.0 - scaled.mean[0]) * scaled.inverse_scale[0]
    assert abs(float(others_with_one)) < 5.0  # plain standardisation would say 14,000
