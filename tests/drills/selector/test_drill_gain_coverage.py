"""The interval of the cross-fitted gain, on 200 studies of each kind."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from tests.support.gain_coverage import Draw, claimed_and_true_gains, complementary, equal, nearly_equal


@pytest.mark.timeout(900)
@pytest.mark.parametrize("draw", [equal, nearly_equal, complementary])
def test_the_interval_of_the_cross_fitted_gain_covers_the_true_gain_in_nine_of_ten_studies(draw: Draw) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        halves = pool.map(claimed_and_true_gains, [draw, draw], [range(100), range(100, 200)])
        low, high, gain = np.array([study for half in halves for study in half]).T
    assert ((low <= gain) & (gain <= high)).mean() >= 0.9
