from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble import Amount, Cost
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.front import Point, front
from spine_ray.ensemble.greedy import Problem, Rules, Traits, pose, walk
from spine_ray.ensemble.metrics import log_loss
from spine_ray.ensemble.objective import OBJECTIVES
from spine_ray.ensemble.polish import search
from spine_ray.ensemble.pool import PoolName, floored, pooled
from spine_ray.ensemble.price import PriceList, as_cost

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _random(seed: int, members: int = 8, rows: int = 200) -> tuple[np.ndarray, np.ndarray, list[Cost]]:
    """Calibrated models of similar quality on rows of mixed difficulty; every other one pays for a shared prefix."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    quality = rng.uniform(1.0, 1.4, size=(members, 1, 1))
    difficulty = 0.5 * rng.normal(size=(rows, 3))
    logits = difficulty + rng.normal(size=(members, rows, 3)) + quality * np.eye(3)[labels]
    values = np.stack([log_probs(block, fit_temperature(block, labels)) for block in logits])
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


@dataclass(frozen=True)
class _Offers:
    """What the front and what the best uniform subset offer for each budget, in loss and in a unit of loss."""

    budgets: np.ndarray
    """(subsets,), rising."""
    best: np.ndarray
    """(subsets,), the lowest loss of a subset that costs no more."""
    is_new: np.ndarray
    """(subsets,), whether no cheaper subset is as good."""
    points: tuple[Point, ...]
    unit: float
    """The best single model's loss minus that of the best subset, nats."""

    def regret(self, place: int) -> float:
        """The front's loss less the best subset's for as much, in units; below 0 where weights beat subsets."""
        offered = min(point.log_loss for point in self.points if point.cost.ms <= self.budgets[place] + 1e-9)
        return float(offered - self.best[place]) / self.unit


def _offers(seed: int, pool: PoolName) -> _Offers:
    """Price and score all 255 uniform subsets of 8 models beside the front."""
    values, labels, costs = _random(seed)
    prices = PriceList(tuple(costs))
    subsets = [list(chosen) for size in range(1, 9) for chosen in combinations(range(8), size)]
    every = sorted(
        (prices.total(each).ms, log_loss(pooled(pool, values[each], np.ones(len(each)) / len(each)), labels))
        for each in subsets
    )
    best = np.minimum.accumulate([loss for _, loss in every])
    return _Offers(
        budgets=np.array([cost for cost, _ in every]),
        best=best,
        is_new=np.array([loss for _, loss in every]) == best,
        points=front(_problem(values, labels, pool, costs)),
        unit=min(log_loss(value, labels) for value in values) - float(best[-1]),
    )


@pytest.mark.parametrize("pool", POOLS)
def test_the_front_offers_what_the_best_uniform_subsets_do_over_evenly_spaced_budgets(pool: PoolName) -> None:
    regrets = []
    for seed in range(8):
        offers = _offers(seed, pool)
        budgets = np.linspace(offers.budgets[0], offers.budgets[-1], 20)
        places = np.searchsorted(offers.budgets, budgets + 1e-9) - 1
        regrets.append(np.mean([offers.regret(int(place)) for place in places]))
    assert np.mean(regrets) <= 0.02


@pytest.mark.parametrize("pool", POOLS)
def test_the_front_offers_what_the_best_uniform_subsets_do_at_the_cost_of_each_of_them(pool: PoolName) -> None:
    regrets = []
    for seed in range(8):
        offers = _offers(seed, pool)
        regrets.append([offers.regret(int(place)) for place in np.flatnonzero(offers.is_new)])
    assert np.mean([np.mean(each) for each in regrets]) <= 0.02
    assert max(map(max, regrets)) <= 0.1  # what the worst budget of all forgoes of what an ensemble can bring


def test_members_that_share_a_prefix_pay_it_once() -> None:
    values, labels, _ = _random(2, members=2)
    shared = [Cost(own=Amount(ms=1.0), shared=(("prefix", Amount(ms=4.0)),)) for _ in range(2)]
    points = front(_problem(values, labels, "log", shared, max_cost=6.0))
    assert (points[-1].members, points[-1].cost.ms) in (((0, 1), 6.0), ((1, 0), 6.0))
    assert all(len(point.members) == 1 for point in front(_problem(values, labels, "log", [5.0, 5.0], max_cost=6.0)))


@pytest.mark.parametrize("pool", POOLS)
def test_weights_are_refined_at_no_cost_when_no_newcomer_can_be_paid(pool: PoolName) -> None:
    values, labels, _ = _random(2)
    values[0] *= 0.2  # one says less, so that equal weights are not the best
    values = floored(log_probs(values))
    best = front(_problem(values[:2], labels, pool, [1.0, 1.0], max_cost=2.0, tie_band=0.0))[-1]
    assert best.cost.ms == 2.0
    assert best.weights != (0.5, 0.5)
    assert best.log_loss < log_loss(pooled(pool, values[:2], [0.5, 0.5]), labels) - 1e-4


def test_a_price_is_not_paid_again_when_a_member_is_picked_again() -> None:
    values, labels, _ = _random(3)
    way = walk(_problem(values, labels, "log", [1.0] * 8, price=0.02, tie_band=0.0))
    assert len(way.picks) > len(set(way.picks))
    for end, value in enumerate(way.trajectory, start=1):
        picks = list(way.picks[:end])
        loss = log_loss(pooled("log", values[picks], np.ones(end) / end), labels)
        assert value == pytest.approx(loss + 0.02 * len(set(picks)), abs=1e-6)


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
