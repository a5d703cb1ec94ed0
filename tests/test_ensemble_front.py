from itertools import combinations
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble import Amount, Cost
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.front import Point, front
from spine_ray.ensemble.greedy import Problem, Rules, Traits, pose
from spine_ray.ensemble.metrics import log_loss
from spine_ray.ensemble.objective import OBJECTIVES
from spine_ray.ensemble.polish import search
from spine_ray.ensemble.pool import PoolName, floored, pooled
from spine_ray.ensemble.price import PriceList, as_cost

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _random(seed: int, members: int = 8, rows: int = 120) -> tuple[np.ndarray, np.ndarray, list[Cost]]:
    """Models of mixed quality on rows of mixed difficulty; half of them share a prefix, dear ones are no better."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    quality = rng.uniform(0.5, 2.0, size=(members, 1, 1))
    difficulty = rng.normal(size=(rows, 3))
    values = log_probs(difficulty + rng.normal(size=(members, rows, 3)) + quality * np.eye(3)[labels])
    prefix = (("prefix", Amount(ms=1.5, macs=7)),)
    costs = [Cost(own=Amount(ms=float(rng.uniform(0.5, 3.0))), shared=prefix * (index % 2)) for index in range(members)]
    return floored(values), labels, costs


def _problem(values: np.ndarray, labels: np.ndarray, pool: PoolName, costs: Any, **rules: Any) -> Problem:
    members = len(values)
    traits = Traits(
        families=tuple(f"f{index % 3}" for index in range(members)),
        resolutions=(64,) * members,
        costs=tuple(map(as_cost, costs)),
    )
    encodings = np.stack([OBJECTIVES[pool].encode(value, labels) for value in values])
    return pose(encodings, OBJECTIVES[pool], traits, Rules(**rules), len(labels))


def _loss(values: np.ndarray, labels: np.ndarray, pool: PoolName, point: Point) -> float:
    return log_loss(pooled(pool, values[list(point.members)], point.weights), labels)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(4))
def test_each_point_costs_more_and_loses_less_than_the_one_before(seed: int, pool: PoolName) -> None:
    values, labels, costs = _random(seed)
    points = front(_problem(values, labels, pool, costs))
    assert len(points) > 2
    assert (np.diff([point.cost.ms for point in points]) > 0).all()
    assert (np.diff([point.log_loss for point in points]) < 0).all()


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(4))
def test_points_say_the_cost_and_the_loss_of_their_members_and_weights(seed: int, pool: PoolName) -> None:
    values, labels, costs = _random(seed)
    for point in front(_problem(values, labels, pool, costs)):
        assert sum(point.weights) == pytest.approx(1.0)
        assert point.log_loss == pytest.approx(_loss(values, labels, pool, point), abs=1e-6)
        pays_prefix = any(costs[member].shared for member in point.members)
        own = sum(costs[member].own.ms for member in point.members)
        assert point.cost.ms == pytest.approx(own + 1.5 * pays_prefix)


@pytest.mark.parametrize("seed", range(4))
def test_the_front_reaches_from_the_cheapest_model_to_no_worse_than_the_search_itself(seed: int) -> None:
    values, labels, costs = _random(seed)
    problem = _problem(values, labels, "log", costs)
    points = front(problem)
    assert points[0].cost.ms == min(cost.alone.ms for cost in costs)
    found = search(problem)
    assert points[-1].log_loss <= log_loss(pooled("log", values[list(found.members)], found.weights), labels) + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_the_single_beside_a_point_is_the_best_that_costs_no_more(seed: int) -> None:
    values, labels, costs = _random(seed)
    losses = [log_loss(value, labels) for value in values]
    for point in front(_problem(values, labels, "log", costs)):
        affordable = [index for index, cost in enumerate(costs) if cost.alone.ms <= point.cost.ms + 1e-9]
        assert point.single == min(affordable, key=lambda index: losses[index])
        assert point.single_log_loss == pytest.approx(losses[point.single], abs=1e-6)
        assert point.log_loss <= point.single_log_loss + 1e-9


@pytest.mark.parametrize("limit", [1.2, 2.0, 4.0, 6.5])
@pytest.mark.parametrize("seed", range(3))
def test_no_point_exceeds_what_may_be_spent(seed: int, limit: float) -> None:
    values, labels, costs = _random(seed)
    limit += min(cost.alone.ms for cost in costs)
    problem = _problem(values, labels, "log", costs, max_cost=limit, max_members=4, max_per_family=2)
    for point in front(problem):
        assert point.cost.ms <= limit + 1e-9
        assert len(point.members) <= 4
        assert max(sum(member % 3 == family for member in point.members) for family in range(3)) <= 2
    assert PriceList(tuple(costs)).total(search(problem).members).ms <= limit + 1e-9


@pytest.mark.parametrize("pinned", [(5,), (7, 2)])
def test_pinned_members_are_in_each_point(pinned: tuple[int, ...]) -> None:
    values, labels, costs = _random(1)
    points = front(_problem(values, labels, "log", costs, pinned=pinned))
    assert points
    assert all(set(pinned) <= set(point.members) for point in points)
    assert set(points[0].members) == set(pinned)


@pytest.mark.parametrize("pool", POOLS)
def test_hardly_any_uniform_subset_beats_what_the_front_offers_for_its_cost(pool: PoolName) -> None:
    regrets = [_path_regret(seed, pool) for seed in range(8)]
    assert np.mean(regrets) <= 0.02  # in units of the best single model minus the best subset


def _path_regret(seed: int, pool: PoolName) -> float:
    """Mean over all budgets that matter of the front's loss less that of the best uniform subset for as much."""
    values, labels, costs = _random(seed)
    points = front(_problem(values, labels, pool, costs))
    prices = PriceList(tuple(costs))
    every = []
    for size in range(1, 9):
        for chosen in map(list, combinations(range(8), size)):
            loss = log_loss(pooled(pool, values[chosen], np.ones(size) / size), labels)
            every.append((prices.total(chosen).ms, loss))
    every.sort()
    least = np.minimum.accumulate([loss for _, loss in every])
    unit = min(log_loss(value, labels) for value in values) - least[-1]
    regrets = []
    for (budget, loss), best in zip(every, least, strict=True):
        if loss == best:  # a point of the true front of uniform subsets
            offered = min(point.log_loss for point in points if point.cost.ms <= budget + 1e-9)
            regrets.append((offered - best) / unit)
    return float(np.mean(regrets))


def test_members_that_share_a_prefix_pay_it_once() -> None:
    values, labels, _ = _random(2, members=2)
    shared = [Cost(own=Amount(ms=1.0), shared=(("prefix", Amount(ms=4.0)),)) for _ in range(2)]
    points = front(_problem(values, labels, "log", shared, max_cost=6.0))
    assert (points[-1].members, points[-1].cost.ms) in (((0, 1), 6.0), ((1, 0), 6.0))
    assert all(len(point.members) == 1 for point in front(_problem(values, labels, "log", [5.0, 5.0], max_cost=6.0)))


@pytest.mark.parametrize("pool", POOLS)
def test_weights_are_refined_at_no_cost_when_no_newcomer_can_be_paid(pool: PoolName) -> None:
    values, labels, _ = _random(2)
    values[0], values[1] = values[0] * 0.2, values[1]  # one says less, so that equal weights are not the best
    values = floored(log_probs(values))
    best = front(_problem(values[:2], labels, pool, [1.0, 1.0], max_cost=2.0, tie_band=0.0))[-1]
    assert best.cost.ms == 2.0
    assert best.weights != (0.5, 0.5)
    assert best.log_loss < log_loss(pooled(pool, values[:2], [0.5, 0.5]), labels) - 1e-4


def test_a_price_is_not_paid_again_when_a_member_is_picked_again() -> None:
    values, labels, _ = _random(3)
    problem = _problem(values, labels, "log", [1.0] * 8, price=0.02, tie_band=0.0)
    found = search(problem)
    assert sum(found.counts) > len(found.members) > 1
    free = log_loss(pooled("log", values[list(found.members)], found.weights), labels)
    assert min(found.trajectory) >= free + 0.02 * len(found.members) - 1e-6
    assert problem.charge([0, 0, 0, 1]) == problem.charge([0, 1]) == pytest.approx(0.04)


def test_equal_costs_leave_one_point_a_number_of_members() -> None:
    values, labels, _ = _random(0)
    points = front(_problem(values, labels, "log", [1.0] * 8))
    assert [point.cost.ms for point in points] == [float(len(point.members)) for point in points]
    assert len({point.cost.ms for point in points}) == len(points)


def test_models_that_cost_nothing_leave_the_best_set_alone() -> None:
    values, labels, _ = _random(0)
    problem = _problem(values, labels, "log", [0.0] * 8)
    points = front(problem)
    assert len(points) == 1
    assert points[0].log_loss <= min(search(problem).trajectory) + 1e-9
