from itertools import permutations

import numpy as np
import pytest

from spine_ray.ensemble import Amount, Cost
from spine_ray.ensemble.price import PriceList, as_cost

PREFIX = Amount(ms=3.0, macs=600, megabytes=6.0)


def _two_that_share() -> PriceList:
    """Two models on one frozen prefix, and a third on nothing shared."""
    return PriceList(
        (
            Cost(own=Amount(ms=1.0, macs=10, megabytes=0.5), shared=(("prefix at 64 px", PREFIX),)),
            Cost(own=Amount(ms=2.0, macs=20, megabytes=0.25), shared=(("prefix at 64 px", PREFIX),)),
            Cost(own=Amount(ms=5.0, macs=50, megabytes=1.0)),
        )
    )


def _random(seed: int, members: int = 5, macs: int = 60) -> PriceList:
    """Costs that share up to four parts at random; MACs are multiples of `macs`."""
    rng = np.random.default_rng(seed)

    def amount() -> Amount:
        return Amount(ms=float(rng.uniform(0, 4)), macs=macs * int(rng.integers(0, 50)), megabytes=float(rng.uniform()))

    parts = [(f"part {index}", amount()) for index in range(4)]
    return PriceList(
        tuple(Cost(own=amount(), shared=tuple(part for part in parts if rng.random() < 0.5)) for _ in range(members))
    )


def _values(amount: Amount) -> tuple[float, float, float]:
    return (amount.ms, float(amount.macs), amount.megabytes)


def test_what_two_models_share_is_paid_once() -> None:
    prices = _two_that_share()
    assert prices.total([0]) == prices.costs[0].alone == Amount(ms=4.0, macs=610, megabytes=6.5)
    assert prices.total([0, 1]) == Amount(ms=6.0, macs=630, megabytes=6.75)  # not 9 ms, 1230 MACs, 12.75 MB
    assert prices.total([0, 1, 2]) == Amount(ms=11.0, macs=680, megabytes=7.75)
    assert prices.total([]) == Amount()


def test_a_set_is_priced_whatever_its_order_and_repetitions() -> None:
    prices = _random(0)
    assert prices.total([3, 1, 4]) == prices.total([4, 4, 1, 3, 1, 3])


@pytest.mark.parametrize("seed", range(5))
def test_the_total_is_what_a_plain_sum_over_distinct_parts_gives(seed: int) -> None:
    prices = _random(seed)
    for chosen in ([0], [1, 3], [0, 2, 4], range(5)):
        shared = {name: amount for member in chosen for name, amount in prices.costs[member].shared}
        every = [*shared.values(), *(prices.costs[member].own for member in chosen)]
        np.testing.assert_allclose(_values(prices.total(chosen)), np.sum([_values(each) for each in every], axis=0))


@pytest.mark.parametrize("seed", range(5))
def test_rises_equal_the_total_with_each_candidate_less_the_total_without(seed: int) -> None:
    prices = _random(seed)
    for chosen in ([], [2], [0, 3], [4, 4, 1], [0, 1, 2, 3, 4]):
        now = prices.total(chosen)
        ms, macs = prices.rises(chosen)
        for candidate in range(5):
            after = prices.total([*chosen, candidate])
            assert ms[candidate] == pytest.approx(after.ms - now.ms, abs=1e-12)
            assert macs[candidate] == after.macs - now.macs


@pytest.mark.parametrize("seed", range(5))
def test_picking_a_member_again_costs_exactly_nothing(seed: int) -> None:
    ms, macs = _random(seed).rises([0, 3])
    assert ms[[0, 3]].tolist() == [0.0, 0.0]
    assert macs[[0, 3]].tolist() == [0.0, 0.0]


def test_a_part_that_is_paid_already_costs_a_newcomer_nothing() -> None:
    ms, macs = _two_that_share().rises([0])
    assert ms.tolist() == [0.0, 2.0, 5.0]
    assert macs.tolist() == [0.0, 20.0, 50.0]


@pytest.mark.parametrize("seed", range(5))
def test_parts_add_up_to_the_total(seed: int) -> None:
    prices = _random(seed)
    for chosen in ([2], [3, 0], [4, 1, 2], [0, 1, 2, 3, 4]):
        parts = [_values(part) for part in prices.parts(chosen)]
        np.testing.assert_allclose(np.sum(parts, axis=0), _values(prices.total(chosen)), rtol=1e-12)


def test_parts_of_macs_that_do_not_divide_are_rounded_to_whole_ones() -> None:
    odd = Amount(macs=100)
    parts = PriceList((Cost(own=Amount(), shared=(("odd", odd),)),) * 3).parts([0, 1, 2])
    assert [part.macs for part in parts] == [33, 33, 33]  # each within half a MAC of its share


@pytest.mark.parametrize("seed", range(4))
def test_parts_are_the_shapley_values_of_the_cost(seed: int) -> None:
    prices, chosen = _random(seed), [4, 0, 2, 3]
    rises: dict[int, list[np.ndarray]] = {member: [] for member in chosen}
    for order in permutations(chosen):
        for place, member in enumerate(order):
            after, before = prices.total(order[: place + 1]), prices.total(order[:place])
            rises[member].append(np.subtract(_values(after), _values(before)))
    for member, part in zip(chosen, prices.parts(chosen), strict=True):
        np.testing.assert_allclose(_values(part), np.mean(rises[member], axis=0), atol=1e-9)


def test_one_part_with_two_amounts_is_refused() -> None:
    costs = (
        Cost(own=Amount(), shared=(("prefix", Amount(ms=1.0)),)),
        Cost(own=Amount(), shared=(("prefix", Amount(ms=2.0)),)),
    )
    with pytest.raises(ValueError, match=r"the shared part 'prefix' is given as Amount\(ms=2.0.*ms=1.0"):
        PriceList(costs)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ms": -0.1}, "at least 0, not -0.1 ms"),
        ({"macs": -1}, "at least 0, not -1 macs"),
        ({"megabytes": -2.0}, "at least 0, not -2.0 megabytes"),
        ({"ms": float("nan")}, "at least 0, not nan ms"),
        ({"ms": float("inf")}, "at least 0, not inf ms"),
    ],
)
def test_amounts_that_cannot_be_paid_are_refused(given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Amount(**given)  # type: ignore[arg-type]


def test_a_plain_number_is_milliseconds_and_a_cost_is_itself() -> None:
    cost = Cost(own=Amount(ms=2.0), shared=(("prefix", PREFIX),))
    assert as_cost(cost) is cost
    assert as_cost(2) == as_cost(2.0) == Cost(own=Amount(ms=2.0))
    with pytest.raises(ValueError, match=r"at least 0, not -2.0 ms"):
        as_cost(-2)


def test_a_part_that_is_named_twice_is_refused() -> None:
    part = ("prefix", Amount(ms=3.0))
    with pytest.raises(ValueError, match="names a shared part twice: prefix"):
        Cost(own=Amount(ms=1.0), shared=(part, part))
