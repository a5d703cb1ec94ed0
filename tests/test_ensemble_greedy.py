from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.greedy import Problem, Rules, Traits, pose, slopes
from spine_ray.ensemble.metrics import log_loss
from spine_ray.ensemble.objective import OBJECTIVES, gap
from spine_ray.ensemble.polish import Selection, mean_encoding, search
from spine_ray.ensemble.pool import PoolName, floored, pooled
from spine_ray.ensemble.price import as_cost

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _problem(values: np.ndarray, labels: np.ndarray, pool: PoolName, costs: Any = None, **rules: Any) -> Problem:
    members = len(values)
    traits = Traits(
        families=tuple(f"f{index}" for index in range(members)),
        resolutions=(64,) * members,
        costs=tuple(map(as_cost, costs if costs is not None else [1.0] * members)),
    )
    encodings = np.stack([OBJECTIVES[pool].encode(value, labels) for value in values])
    return pose(encodings, OBJECTIVES[pool], traits, Rules(**{"tie_band": 0.0, **rules}), len(labels))


def _random(seed: int, members: int = 6, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    quality = rng.uniform(0.5, 2.0, size=(members, 1, 1))
    return floored(log_probs(rng.normal(size=(members, rows, 3)) + quality * np.eye(3)[labels])), labels


def _two_experts(third: float) -> tuple[np.ndarray, np.ndarray]:
    """A is right with 0.9 on half of the rows and 0.5 on the rest, B the other way round, C everywhere alike."""
    labels = np.arange(400) % 2
    half = np.arange(400) < 200
    truth = np.stack([np.where(half, 0.9, 0.5), np.where(half, 0.5, 0.9), np.full(400, third)])
    values = np.log(np.where(labels[:, None] == np.arange(2), truth[..., None], 1 - truth[..., None]))
    return values, labels


def _loss(values: np.ndarray, labels: np.ndarray, pool: PoolName, found: Selection) -> float:
    return log_loss(pooled(pool, values[list(found.members)], found.weights), labels)


def _naive(values: np.ndarray, labels: np.ndarray, pool: PoolName, steps: int, limit: int) -> list[float]:
    """The plain loop: every candidate, every step, from scratch."""
    picks: list[int] = []
    path = []
    for _ in range(steps):
        scores = {}
        for index in range(len(values)):
            if len({*picks, index}) <= limit:
                trial = [*picks, index]
                scores[index] = log_loss(pooled(pool, values[trial], np.ones(len(trial)) / len(trial)), labels)
        picks.append(min(scores, key=lambda index: (round(scores[index], 11), index not in picks, index)))
        path.append(scores[picks[-1]])
    return path


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(6))
def test_greedy_walks_the_way_of_the_plain_loop(seed: int, pool: PoolName) -> None:
    values, labels = _random(seed)
    found = search(_problem(values, labels, pool, max_steps=15, max_members=4))
    np.testing.assert_allclose(found.trajectory, _naive(values, labels, pool, 15, 4), atol=1e-6)
    assert _loss(values, labels, pool, found) <= min(found.trajectory) + 1e-7


@pytest.mark.parametrize("pool", POOLS)
def test_greedy_is_no_worse_than_the_best_uniform_subset_on_average(pool: PoolName) -> None:
    regrets = []
    for seed in range(8):
        values, labels = _random(seed, members=8)
        found = search(_problem(values, labels, pool))
        subsets = [list(s) for size in range(1, 9) for s in combinations(range(8), size)]
        every = [log_loss(pooled(pool, values[s], np.ones(len(s)) / len(s)), labels) for s in subsets]
        regrets.append(_loss(values, labels, pool, found) - min(every))
    assert np.mean(regrets) <= 0.0
    assert max(regrets) < 0.001


@pytest.mark.parametrize("pool", POOLS)
def test_greedy_comes_within_its_own_duality_gap_of_the_best_weights(pool: PoolName) -> None:
    values, labels = _random(3, rows=300)
    gaps = []
    for steps in (5, 40, 200):
        problem = _problem(values, labels, pool, max_steps=steps)
        found = search(problem)
        mean = mean_encoding(problem, dict(zip(found.members, found.counts, strict=True)))
        gaps.append(gap(*slopes(problem, mean)))
    assert gaps[2] < gaps[0]
    assert gaps[2] < 0.005


def test_log_greedy_escapes_the_trap_of_two_experts_and_an_all_rounder() -> None:
    values, labels = _two_experts(0.72)
    found = search(_problem(values, labels, "log", max_steps=60))
    assert found.trajectory[0] == pytest.approx(-np.log(0.72))
    assert found.trajectory[1] == pytest.approx(-np.log(0.72))  # no gain at first: picks C again
    assert min(found.trajectory) == pytest.approx(0.289, abs=0.001)
    assert set(found.members) == {0, 1}  # the drop pass removes C and reaches the closed form
    assert _loss(values, labels, "log", found) == pytest.approx(-np.log(0.75), abs=1e-7)


def test_prob_greedy_stays_with_the_all_rounder_when_it_is_the_optimum() -> None:
    values, labels = _two_experts(0.72)
    assert search(_problem(values, labels, "prob")).members == (2,)


def test_prob_greedy_drops_the_all_rounder_when_the_experts_are_better() -> None:
    values, labels = _two_experts(0.68)
    found = search(_problem(values, labels, "prob", max_steps=40))
    assert found.trajectory[0] == pytest.approx(-np.log(0.68))
    assert min(found.trajectory) == pytest.approx(-np.log((0.68 + 38 * 0.7) / 39))  # C, then 19 times A and B
    assert set(found.members) == {0, 1}
    assert _loss(values, labels, "prob", found) == pytest.approx(-np.log(0.7), abs=1e-7)


@pytest.mark.parametrize("pool", POOLS)
def test_copies_count_as_one_member_and_the_cheapest_is_taken(pool: PoolName) -> None:
    values, labels = _random(0, members=1)
    found = search(_problem(np.repeat(values, 4, axis=0), labels, pool, costs=[3, 2, 1, 1], tie_band=1.0))
    assert (found.members, found.weights) == ((2,), (1.0,))


@pytest.mark.parametrize("pool", POOLS)
def test_three_disjoint_skills_are_all_chosen_and_noise_is_not(pool: PoolName) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    knows = np.arange(600) % 3
    values = np.stack(
        [log_probs(3.0 * np.eye(3)[labels] * (knows == skill)[:, None]) for skill in range(3)]
        + [log_probs(np.eye(3)[rng.integers(0, 3, 600)]) for _ in range(3)]
    )
    assert set(search(_problem(values, labels, pool)).members) == {0, 1, 2}


@pytest.mark.parametrize("tie_band", [0.0, 1.0])
def test_selection_does_not_depend_on_the_order_of_candidates_rows_and_classes(tie_band: float) -> None:
    values, labels = _random(7)
    rng = np.random.default_rng(1)
    members, rows, classes = rng.permutation(6), rng.permutation(80), rng.permutation(3)
    found = search(_problem(values, labels, "log", tie_band=tie_band))
    moved = values[np.ix_(members, rows, classes)]
    again = search(_problem(moved, np.argsort(classes)[labels[rows]], "log", tie_band=tie_band))
    assert tuple(int(members[index]) for index in again.members) == found.members
    assert again.counts == found.counts


def test_limits_hold_and_re_weighting_costs_nothing() -> None:
    values, labels = _random(2)
    costs = [5.0, 1.0, 2.0, 3.0, 1.0, 2.0]
    found = search(_problem(values, labels, "log", costs, max_members=3, max_cost=5.0))
    assert len(found.members) <= 3
    assert sum(costs[member] for member in found.members) <= 5.0
    assert sum(found.counts) >= len(found.members)


def test_a_high_price_leaves_one_member_and_no_price_leaves_more() -> None:
    values, labels = _random(2)
    assert len(search(_problem(values, labels, "log", price=10.0)).members) == 1
    assert len(search(_problem(values, labels, "log")).members) > 1


def test_pinned_members_stay_even_when_they_are_useless() -> None:
    values, labels = _random(2)
    values[5] = log_probs(np.random.default_rng(0).normal(size=(80, 3)) * 3)
    problem = _problem(values, labels, "log")
    assert 5 not in search(problem).members
    assert 5 in search(replace(problem, rules=replace(problem.rules, pinned=(5,)))).members


def _near_equals() -> tuple[np.ndarray, np.ndarray]:
    """A leader, and two candidates whose losses differ by far less than their standard error; 1 is better than 2."""
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 3, 150), 2)
    signal = 2.0 * np.eye(3)[labels]
    leader = 1.2 * signal + np.repeat(rng.normal(size=(150, 3)), 2, axis=0)
    first = signal + rng.normal(size=(300, 3))
    second = first[np.arange(300) ^ 1]  # the same rows' worth, within pairs of rows that are alike otherwise
    return floored(log_probs(np.stack([leader, first + 0.005 * signal, second]))), labels


@pytest.mark.parametrize(
    ("traits", "tie_band", "second_pick"),
    [
        ({}, 0.0, 1),
        ({"costs": (1.0, 2.0, 1.0)}, 0.0, 1),
        ({"costs": (1.0, 2.0, 1.0)}, 1.0, 2),
        ({"costs": (1.0, 1.0, 2.0)}, 1.0, 1),
        ({"families": ("a", "a", "b")}, 1.0, 2),
        ({"families": ("a", "b", "a")}, 1.0, 1),
        ({"resolutions": (64, 64, 32)}, 1.0, 2),
        ({"costs": (1.0, 1.0, 2.0), "families": ("a", "a", "b")}, 1.0, 1),  # cheaper comes before a new family
    ],
)
def test_statistical_equals_are_told_apart_by_cost_family_and_resolution(
    traits: dict[str, Any], tie_band: float, second_pick: int
) -> None:
    values, labels = _near_equals()
    same = {"families": ("a", "a", "a"), "resolutions": (64, 64, 64), "costs": (1.0, 1.0, 1.0)}
    given = {**same, **traits, "costs": tuple(map(as_cost, traits.get("costs", same["costs"])))}
    problem = _problem(values, labels, "log", tie_band=tie_band, max_steps=2, max_members=2)
    rules = replace(problem.rules, pinned=(0,))
    found = search(pose(problem.encodings, problem.objective, Traits(**given), rules, problem.groups))
    expected = log_loss(pooled("log", values[[0, second_pick]], [0.5, 0.5]), labels)
    assert found.trajectory[1] == pytest.approx(expected, abs=1e-7)


def test_the_pools_own_slope_is_exact_however_many_rows_there_are() -> None:
    # In the probability pool the loss falls by 1 along the pool itself, whatever the pool.
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 1.0, size=(2, 1, 1_000_000)).astype(np.float32)
    traits = Traits(families=("a", "b"), resolutions=(64, 64), costs=(as_cost(1.0), as_cost(1.0)))
    problem = pose(truth, OBJECTIVES["prob"], traits, Rules(), 1_000_000)
    along, own = slopes(problem, truth.mean(axis=0))
    assert own == pytest.approx(-1.0, abs=1e-7)
    assert along.mean() == pytest.approx(-1.0, abs=1e-5)
