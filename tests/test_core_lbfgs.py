import numpy as np
import pytest
import torch
from torch import Tensor

from spine_ray.core.lbfgs import minimise


def below(tolerance: float):
    return lambda gradient: float(gradient.abs().max()) <= tolerance


def same(gradient: Tensor) -> Tensor:
    return gradient.clone()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_quadratic_is_solved_whatever_the_scale_of_the_preconditioner(scale: float) -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(20, 20))
    matrix = torch.from_numpy(root @ root.T + np.eye(20))
    target = torch.from_numpy(rng.normal(size=(20, 3)))

    def objective(point: Tensor) -> tuple[float, Tensor]:
        return float(0.5 * (point * (matrix @ point)).sum() - (target * point).sum()), matrix @ point - target

    found = minimise(objective, torch.zeros(20, 3, dtype=torch.float64), lambda g: scale * g, below(1e-10))
    np.testing.assert_allclose(found.point, torch.linalg.solve(matrix, target), atol=1e-9)
    assert float(found.gradient.abs().max()) <= 1e-10


def test_the_inverse_hessian_as_preconditioner_is_newtons_method() -> None:
    diagonal = torch.logspace(-4, 4, 30, dtype=torch.float64)

    def objective(point: Tensor) -> tuple[float, Tensor]:
        return float(0.5 * (diagonal * point * point).sum()), diagonal * point

    found = minimise(objective, torch.ones(30, dtype=torch.float64), lambda g: g / diagonal, below(1e-12))
    assert found.evaluations == 2


@pytest.mark.parametrize("start", [-30.0, 30.0])
@pytest.mark.parametrize("scale", [0.01, 1000.0])
def test_a_far_start_where_steps_are_first_much_too_short_or_too_long(start: float, scale: float) -> None:
    def objective(point: Tensor) -> tuple[float, Tensor]:
        """Return log(1 + exp(x)) - 0.2 x, whose minimum is where the logistic function is 0.2."""
        return float((torch.nn.functional.softplus(point) - 0.2 * point).sum()), point.sigmoid() - 0.2

    found = minimise(objective, torch.tensor([start], dtype=torch.float64), lambda g: scale * g, below(1e-9))
    assert float(found.point[0]) == pytest.approx(np.log(0.2 / 0.8), abs=1e-7)


def test_it_ends_where_float32_lets_no_step_come_closer() -> None:
    rows = torch.randn(200, 10, generator=torch.Generator().manual_seed(0))

    def objective(point: Tensor) -> tuple[float, Tensor]:
        values = rows @ point - 1.0
        return float(values.square().sum()) + 1e3, 2.0 * rows.T @ values

    found = minimise(objective, torch.zeros(10), same, below(0.0))
    expected = torch.linalg.lstsq(rows.double(), torch.ones(200, 1, dtype=torch.float64)).solution[:, 0]
    np.testing.assert_allclose(found.point, expected, atol=1e-5)


def test_a_start_that_is_good_enough_is_returned() -> None:
    start = torch.zeros(4)
    found = minimise(lambda point: (0.0, torch.zeros(4)), start, same, below(1e-5))
    assert found.point is start
    assert found.evaluations == 1
