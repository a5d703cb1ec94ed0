import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.mix import Mix
from spine_ray.ensemble.pool import disagreement, floored
from spine_ray.ensemble.selection import Ensemble, pooled_log_probs

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3.0, size=(3, 50, 4)).astype(np.float32)


def mix(pool: str = "log", final: float = 1.3) -> Mix:
    return Mix(weights=(0.5, 0.3, 0.2), temperatures=(0.7, 1.0, 2.0), pool=pool, final_temperature=final)


@pytest.mark.parametrize("pool", ["log", "prob"])
def test_it_says_what_the_selection_says(pool: str) -> None:
    each = mix(pool)
    ensemble = Ensemble(
        members=(0, 1, 2), weights=each.weights, temperatures=each.temperatures, pool=pool, trajectory=(),
        final_temperature=each.final_temperature, certificate=None, report={},
    )  # fmt: skip
    np.testing.assert_allclose(each.say(list(LOGITS)).log_probs, pooled_log_probs(ensemble, LOGITS), atol=1e-12)


def test_disagreement_is_that_of_the_pool_row_by_row() -> None:
    each = mix()
    values = np.stack([floored(log_probs(block, t)) for block, t in zip(LOGITS, each.temperatures, strict=True)])
    found = each.say(list(LOGITS)).disagreement
    assert found.mean() == pytest.approx(disagreement(values, each.weights))
    assert found[0] == pytest.approx(disagreement(values[:, :1], each.weights))


def test_members_that_say_the_same_do_not_disagree() -> None:
    each = Mix(weights=(0.5, 0.5), temperatures=(1.0, 1.0), pool="log", final_temperature=1.0)
    np.testing.assert_allclose(each.say([LOGITS[0], LOGITS[0]]).disagreement, 0.0, atol=1e-12)


def test_a_part_keeps_the_proportions() -> None:
    part = mix().part((2, 0), 1.0)
    assert part.weights == pytest.approx((2 / 7, 5 / 7))
    assert part.temperatures == (2.0, 0.7)


def test_confidence_is_the_probability_of_the_likeliest_class() -> None:
    said = mix().say(list(LOGITS))
    np.testing.assert_allclose(said.confidence, np.exp(said.log_probs).max(axis=1))


@pytest.mark.parametrize(
    "wrong",
    [{"weights": (0.5, 0.4, 0.2)}, {"weights": (0.5, 0.5)}, {"pool": "mean"}, {"final_temperature": 0.0}],
)
def test_what_is_no_ensemble_is_refused(wrong: dict) -> None:
    given = {"weights": (0.5, 0.3, 0.2), "temperatures": (1.0, 1.0, 1.0), "pool": "log", "final_temperature": 1.0}
    with pytest.raises(ValueError, match=r"weight|pool|temperatures"):
        Mix(**{**given, **wrong})


def test_another_number_of_members_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        mix().say(list(LOGITS[:2]))
