"""What the selector is held against, and where each oracle lives.

1  Loss = mean loss - disagreement, to 1e-12: test_ensemble_contributions.py, test_ensemble_pool.py.
2  Brute force: the search and the local search here; the front at every cost in test_ensemble_front.py.
3  The certificate of convexity: here for 200 models; against expectation maximisation in test_ensemble_objective.py.
4  Two experts and an all-rounder, closed form: test_ensemble_greedy.py.
5  Copies, noise, permutations: here through the whole selection; the search alone in test_ensemble_greedy.py,
   scaled and shifted logits in test_ensemble_selection.py.
6  Complementary skills under a family cap: here; the search alone in test_ensemble_greedy.py.
7  The members of the plain loop on probabilities of the true class: here; AutoGluon itself in benchmarks/selector.py.
8  Bounds of majority votes (Theisen et al. 2023): test_ensemble_contributions.py.
9  The interval of the cross-fitted gain: here; the optimism that cross-fit removes in test_ensemble_honest.py.
10 Temperatures: here; one model alone in test_ensemble_calibrate.py.
11 Shapley values and leaving out: test_ensemble_contributions.py.
12 Costs and budgets: test_ensemble_price.py, test_ensemble_front.py.
13 Published tables: not reproduced, because the project holds no copy of them.
"""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import calibrate, model_of
from spine_ray.ensemble.greedy import Problem, Rules, Traits, pose, slopes, walk
from spine_ray.ensemble.metrics import log_loss
from spine_ray.ensemble.objective import OBJECTIVES, gap
from spine_ray.ensemble.polish import mean_encoding, objective_of, polish, search
from spine_ray.ensemble.pool import PoolName, floored, pooled
from spine_ray.ensemble.price import as_cost
from spine_ray.ensemble.selection import pooled_log_probs
from tests.support.gain_coverage import (
    Draw,
    FreshRows,
    claimed_and_true_gains,
    complementary,
    equal,
    fixed_model,
    nearly_equal,
    sample,
    select_logits,
)

pytestmark = pytest.mark.long

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _traits(members: int) -> Traits:
    return Traits(
        families=tuple(f"f{index}" for index in range(members)),
        resolutions=(64,) * members,
        costs=(as_cost(1.0),) * members,
    )


def _problem(values: np.ndarray, labels: np.ndarray, pool: PoolName, **rules: Any) -> Problem:
    encodings = np.stack([OBJECTIVES[pool].encode(value, labels) for value in values])
    given = Rules(**{"tie_band": 0.0, "max_members": len(values), **rules})
    return pose(encodings, OBJECTIVES[pool], _traits(len(values)), given, len(labels))


def _families_of_models(seed: int, members: int, rows: int, signal: float = 1.3) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated log-probabilities of models that err alike within four families, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    shared = rng.normal(size=(4, rows, 3))[np.arange(members) % 4]
    quality = signal * rng.uniform(0.8, 1.2, size=(members, 1, 1))
    logits = quality * np.eye(3)[labels] + 0.7 * shared + 0.7 * rng.normal(size=(members, rows, 3))
    return floored(np.stack([log_probs(block, fit_temperature(block, labels)) for block in logits])), labels


# Oracle 2


def _losses_of_all_subsets(values: np.ndarray, labels: np.ndarray, pool: PoolName) -> np.ndarray:
    """Log-loss of the uniform pool of each non-empty subset, (2^members - 1,), the single models at powers of 2."""
    members, rows, classes = values.shape
    masks = (np.arange(1, 2**members)[:, None] >> np.arange(members)) & 1
    shares = masks / masks.sum(axis=1, keepdims=True)
    every = np.arange(rows)
    if pool == "prob":
        return np.asarray(-np.log(shares @ np.exp(values[:, every, labels])).mean(axis=1))
    mean = (shares @ values.reshape(members, -1)).reshape(-1, rows, classes)
    return np.asarray((np.log(np.exp(mean).sum(axis=2)) - mean[:, every, labels]).mean(axis=1))


@pytest.mark.parametrize("pool", POOLS)
def test_search_is_no_worse_on_average_than_the_best_of_4095_subsets(pool: PoolName) -> None:
    searched, local = [], []
    for seed in range(8):
        values, labels = _families_of_models(seed, members=12, rows=150)
        losses = _losses_of_all_subsets(values, labels, pool)
        unit = losses[2 ** np.arange(12) - 1].min() - losses.min()  # what the best subset gains over one model
        problem = _problem(values, labels, pool)
        found = search(problem)
        loss = log_loss(pooled(pool, values[list(found.members)], found.weights), labels)
        searched.append((loss - losses.min()) / unit)
        local.append((objective_of(problem, polish(problem, dict.fromkeys(range(12), 1))) - losses.min()) / unit)
    assert np.mean(searched) <= 0.0
    assert np.mean(local) <= 0.04  # dropping and swapping alone, from all members at equal weight


# Oracle 3


def test_more_steps_lose_less_and_stay_within_their_certificate_of_the_best_weights() -> None:
    values, labels = _families_of_models(0, members=200, rows=1_000)
    truth = np.exp(values[:, np.arange(1_000), labels])
    weights = np.full(200, 1 / 200)
    for _ in range(5_000):  # expectation maximisation, which converges to the best convex weights
        weights *= (truth / (weights @ truth)).mean(axis=1)
    optimum = -np.log(weights @ truth).mean()
    assert (truth / (weights @ truth)).mean(axis=1).max() - 1 < 1e-4  # its own certificate
    losses = []
    for steps in (5, 10, 25, 50, 100):
        problem = _problem(values, labels, "prob", max_steps=steps)
        found = search(problem)
        mean = mean_encoding(problem, dict(zip(found.members, found.counts, strict=True)))
        losses.append(log_loss(pooled("prob", values[list(found.members)], found.weights), labels))
        assert -1e-4 <= losses[-1] - optimum <= gap(*slopes(problem, mean)) + 1e-6
    assert (np.diff(losses) < 0).all()
    assert losses[2] - optimum < 0.1 * (problem.losses.min() - optimum)  # 25 steps: nine tenths of what there is


# Oracles 5 and 6


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(5))
def test_models_of_random_labels_get_no_weight_even_for_free(seed: int, pool: PoolName) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 800)
    able = 1.5 * np.eye(3)[labels] + rng.normal(size=(3, 800, 3))
    unable = 1.5 * np.eye(3)[rng.integers(0, 3, (5, 800))] + rng.normal(size=(5, 800, 3))
    found = select_logits(np.concatenate([unable, able]), labels, pool=pool, costs=[0.0] * 5 + [1.0] * 3)
    assert set(found.members) == {5, 6, 7}


def _two_models_of_which_one_is_copied(copies: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Logits, labels and costs; of the copies the last is the cheapest."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    first, second = 1.5 * np.eye(3)[labels] + rng.normal(size=(2, 300, 3))
    return np.stack([second, *[first] * copies]), labels, {"costs": [1.0, *np.linspace(3.0, 2.0, copies)]}


@pytest.mark.parametrize("copies", [2, 5, 70])
def test_copies_are_one_member_and_are_paid_once(copies: int) -> None:
    logits, labels, costs = _two_models_of_which_one_is_copied(copies)
    found = select_logits(logits, labels, families=["a", *["b"] * copies], **costs)
    assert set(found.members) == {0, copies}
    assert found.report["cost"] == pytest.approx(3.0)
    assert found.weights == select_logits(logits[[0, copies]], labels, costs=[1.0, 2.0]).weights


def test_two_good_models_of_one_family_are_found_among_more_families_than_the_short_list_holds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    signal = np.array([2.0, 1.9, *[0.3] * 70])[:, None, None]
    logits = signal * np.eye(3)[labels] + rng.normal(size=(72, 300, 3))
    found = select_logits(logits, labels, families=["good", "good", *(f"weak {index}" for index in range(70))])
    assert {0, 1} <= set(found.members)


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_selection_does_not_depend_on_the_order_of_candidates_rows_and_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 240)
    logits = (1.5 * np.eye(3)[labels] + rng.normal(size=(6, 240, 3))).astype(np.float32)
    folds, costs = np.arange(240) % 4, np.array([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    names = np.array(list("aabbcc"))
    members, rows, classes = rng.permutation(6), rng.permutation(240), rng.permutation(3)
    groups = np.arange(240)  # the names of the rows: by them they are dealt again
    found = select_logits(logits, labels, folds=folds, groups=groups, costs=costs, families=names)
    again = select_logits(
        logits[np.ix_(members, rows, classes)],
        np.argsort(classes)[labels[rows]],
        folds=folds[rows],
        groups=groups[rows],
        costs=costs[members],
        families=names[members],
    )
    assert [int(members[index]) for index in again.members] == list(found.members)
    np.testing.assert_allclose(again.weights, found.weights, rtol=1e-12)
    assert again.final_temperature == pytest.approx(found.final_temperature, rel=1e-6)
    assert again.report["cross_fit"] == pytest.approx(found.report["cross_fit"], abs=1e-5)


def test_three_disjoint_skills_are_pooled_and_a_cap_of_one_a_family_allows_it() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    knows = np.arange(600) // 200
    logits = 3.0 * np.eye(3)[labels] * (knows == np.arange(3)[:, None])[..., None] + rng.normal(size=(3, 600, 3))
    found = select_logits(logits, labels, max_per_family=1)
    assert set(found.members) == {0, 1, 2}
    assert found.report["answer"] == "ensemble"
    assert found.report["cross_fit"]["low"] > 0.1
    assert len(select_logits(logits, labels, max_per_family=1, families=["same"] * 3).members) == 1


# Oracle 7


def _plain_loop(truth: np.ndarray, steps: int) -> list[int]:
    """Caruana's greedy selection with replacement on probabilities of the true class, (members, samples)."""
    total, picks = np.zeros(truth.shape[1]), []
    for step in range(1, steps + 1):
        losses = [-np.log((total + each) / step).mean() for each in truth]
        picks.append(int(np.argmin(losses)))
        total = total + truth[picks[-1]]
    return picks


@pytest.mark.parametrize("seed", range(3))
def test_picks_are_those_of_the_plain_loop_for_200_models(seed: int) -> None:
    values, labels = _families_of_models(seed, members=200, rows=2_000)
    problem = _problem(values, labels, "prob", max_steps=25)
    assert list(walk(problem).picks) == _plain_loop(problem.encodings[:, 0].astype(np.float64), 25)


# Oracle 10


def test_temperatures_are_the_scales_of_the_posteriors_and_the_pool_of_equals_is_sharpened() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200_000)
    evidence = np.eye(3)[labels] + rng.normal(size=(4, 200_000, 3))  # its own posterior: softmax of itself
    scales = (0.3, 1.0, 2.5, 8.0)
    logits = np.stack([scale * each for scale, each in zip(scales, evidence, strict=True)]).astype(np.float32)
    candidates = Candidates(
        logits=logits,
        kept=(0, 1, 2, 3),
        rows=None,
        labels=labels,
        groups=np.arange(len(labels)),
        traits=_traits(4),
        rules=Rules(),
        screen=None,
    )
    calibrated, _ = calibrate(candidates, ())
    assert [calibrated.temperatures[member] for member in range(4)] == pytest.approx(scales, rel=0.01)
    pools = {pool: model_of(candidates, calibrated, range(4), [0.25] * 4, pool).final_temperature for pool in POOLS}
    assert pools["prob"] < 0.9
    assert pools["log"] == pytest.approx(0.25, rel=0.01)  # independent evidence adds up: the mean times four


# Oracle 9

STUDIES = 24
"""Of each kind; 200 in the drills."""


@pytest.mark.parametrize("draw", [equal, nearly_equal, complementary])
def test_the_interval_of_the_cross_fitted_gain_covers_the_true_gain_in_nine_of_ten_studies(draw: Draw) -> None:
    """Fewer covered studies than this one in a thousand runs would show if nine of ten were covered in truth."""
    low, high, gain = np.array(claimed_and_true_gains(draw, range(STUDIES))).T
    assert ((low <= gain) & (gain <= high)).sum() >= binom.ppf(1e-3, STUDIES, 0.9)


@pytest.mark.parametrize("pool", POOLS)
def test_the_loss_on_fresh_rows_is_that_of_the_pooled_log_probabilities(pool: PoolName) -> None:
    logits, labels = sample(complementary, np.random.default_rng(0), 2_000)
    model = fixed_model(logits, labels, [0, 1, 5], [0.5, 0.3, 0.2], pool)
    fresh = FreshRows([FreshRows.chunk(50.0 * np.eye(3)[labels], logits)])  # a posterior that is sure of the label
    expected = log_loss(pooled_log_probs(model, logits[[0, 1, 5]]), labels)
    assert fresh.loss(model) == pytest.approx(expected, abs=1e-6)


def test_copies_of_one_model_are_answered_by_the_single_model_for_every_seed() -> None:
    for seed in range(40):
        logits, labels = sample(equal, np.random.default_rng(seed), 320)
        found = select_logits(np.repeat(logits[:1], 6, axis=0), labels, folds=np.arange(320) % 5, seed=seed)
        assert found.report["answer"] == "single"
        assert len(found.members) == 1
