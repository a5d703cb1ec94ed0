"""Cascades planned on generated logits, whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from spine_ray.ensemble.cascade import MOST_LOSS, Cascade, OofRows, plan_cascade
from spine_ray.ensemble.mix import Mix
from spine_ray.ensemble.price import Amount, Cost

CLASSES, COSTS = 10, (20.0, 1.0, 6.0)
"""The second member is the cheapest, the first the dearest."""


def mix(members: int = 3) -> Mix:
    return Mix(weights=(1 / members,) * members, temperatures=(1.0,) * members, pool="log", final_temperature=1.0)


def draw(rows: int, seed: int, easy: float = 0.8) -> OofRows:
    """Draw logits: all members know the easy rows, the cheap ones hardly any other."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    is_easy = rng.random(rows) < easy
    logits = rng.normal(size=(3, rows, CLASSES))
    for member, knows_hard in enumerate((4.0, 0.5, 1.5)):
        strength = np.where(is_easy, 7.0, knows_hard)
        logits[member, np.arange(rows), labels] += strength
    return OofRows(logits=logits.astype(np.float32), labels=labels, folds=np.arange(rows) % 5)


def run(cascade: Cascade, each: Mix, rows: OofRows) -> tuple[np.ndarray, np.ndarray]:
    """Apply a cascade to rows; return which are answered rightly, and what each has cost."""
    hits, costs, waiting = np.zeros(len(rows.labels)), np.zeros(len(rows.labels)), np.arange(len(rows.labels))
    for stage in range(len(cascade.order)):
        said = cascade.stage(each, stage).say([rows.logits[member][waiting] for member in cascade.order[: stage + 1]])
        done = cascade.is_answered(said, stage)
        answered = waiting[done]
        hits[answered] = said.log_probs[done].argmax(axis=1) == rows.labels[answered]
        costs[answered] = cascade.costs[stage]
        waiting = waiting[~done]
    assert not len(waiting)
    return hits, costs


def whole_hits(each: Mix, rows: OofRows) -> np.ndarray:
    return each.say(list(rows.logits)).log_probs.argmax(axis=1) == rows.labels


def test_members_come_in_the_order_of_what_they_add_to_the_cost() -> None:
    found = plan_cascade(mix(), draw(1000, 0), COSTS)
    assert found.order == (1, 2, 0)
    assert found.costs == (1.0, 7.0, 27.0)


def test_what_members_share_is_paid_once() -> None:
    shared = (("a prefix", Amount(ms=10.0)),)
    costs = [
        Cost(own=Amount(ms=12.0)),
        Cost(own=Amount(ms=1.0), shared=shared),
        Cost(own=Amount(ms=2.0), shared=shared),
    ]
    found = plan_cascade(mix(), draw(1000, 0), costs)
    assert found.order == (1, 2, 0)
    assert found.costs == (11.0, 13.0, 25.0)


@pytest.mark.parametrize("seed", range(4))
def test_easy_rows_cost_little_and_new_rows_do_as_predicted(seed: int) -> None:
    each = mix()
    found = plan_cascade(each, draw(10_000, seed), COSTS)
    assert found.pays, found.reason
    new = draw(12_000, 100 + seed)
    hits, costs = run(found, each, new)
    whole = whole_hits(each, new)
    predicted = found.predicted
    assert COSTS[0] + COSTS[1] + COSTS[2] >= 1.7 * costs.mean()
    assert predicted.change_low <= hits.mean() - whole.mean() <= predicted.change_high
    assert predicted.accuracy == pytest.approx(hits.mean(), abs=0.01)
    assert predicted.cost == pytest.approx(costs.mean(), rel=0.05)


def test_where_the_cheap_members_know_nothing_it_does_not_pay_and_says_so() -> None:
    found = plan_cascade(mix(), draw(4000, 0, easy=0.0), COSTS)
    assert not found.pays
    assert "all members run" in found.reason


def test_where_cost_lies_in_the_cheap_members_it_does_not_pay() -> None:
    found = plan_cascade(mix(), draw(4000, 0), (10.0, 10.0, 0.5))
    if found.pays:  # the last of three is left out at best: a third and more is saved, or nothing
        assert found.predicted.cost < 0.9 * found.predicted.whole_cost
    else:
        assert "all members run" in found.reason


def test_few_rows_cannot_vouch_for_a_small_loss() -> None:
    found = plan_cascade(mix(), draw(100, 0), COSTS)
    assert not found.pays
    assert found.predicted.change_low < -MOST_LOSS
    assert "is not ruled out" in found.reason


def test_one_member_leaves_nothing_to_leave_out() -> None:
    rows = draw(500, 0)
    found = plan_cascade(mix(1), replace(rows, logits=rows.logits[:1]), COSTS[:1])
    assert not found.pays
    assert found.predicted is None
    assert run(found, mix(1), replace(rows, logits=rows.logits[:1]))[1].mean() == COSTS[0]


def test_the_last_stage_is_the_ensemble_itself() -> None:
    each = replace(mix(), final_temperature=0.8)
    rows = draw(2000, 0)
    found = plan_cascade(each, rows, COSTS)
    last = found.stage(each, 2).say([rows.logits[member] for member in found.order]).log_probs
    np.testing.assert_allclose(last, each.say(list(rows.logits)).log_probs, atol=1e-12)


def test_the_interval_covers_what_new_rows_lose() -> None:
    each, covered = mix(), 0
    for seed in range(12):
        found = plan_cascade(each, draw(1000, seed), COSTS)
        new = draw(6000, 1000 + seed)
        change = run(found, each, new)[0].mean() - whole_hits(each, new).mean()
        covered += found.predicted.change_low <= change <= found.predicted.change_high
    assert covered >= 11


def test_other_numbers_of_logits_or_costs_are_refused() -> None:
    with pytest.raises(ValueError, match="3 members need"):
        plan_cascade(mix(), draw(100, 0), COSTS[:2])


def test_rows_of_a_few_groups_do_not_rule_a_loss_out() -> None:
    rows = draw(2000, seed=5, easy=1.0)  # so easy that cascade and ensemble say the same of every row
    alone = plan_cascade(mix(), rows, COSTS).predicted
    grouped = plan_cascade(mix(), replace(rows, groups=np.arange(2000) // 100), COSTS)
    assert alone is not None and grouped.predicted is not None
    assert alone.change == grouped.predicted.change == 0.0
    assert alone.change_low > -MOST_LOSS
    # Wilson's end of 0 in 20: z² / (20 + z²), and the square root of 2 for the luck of new rows.
    assert grouped.predicted.change_low == pytest.approx(-np.sqrt(2) * 3.8415 / 23.8415, rel=1e-3)
    assert not grouped.pays
