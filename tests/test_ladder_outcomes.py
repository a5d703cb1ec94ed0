from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spine_ray.ladder.outcomes import outcomes_of
from spine_ray.space.schema import Space, TierSpace


def space(*gates: str, freezes: tuple[float, ...] = (0.0, 0.5)) -> Space:
    names = ("light", "mid", "heavy", "huge")
    tiers = [
        TierSpace(name=name, backbones=("test_vit",), freezes=freezes, gate=gate)  # type: ignore[arg-type]
        for name, gate in zip(names, ("auto", *gates), strict=False)
    ]
    return Space(name="s", tiers=tuple(tiers), file=Path("s.yaml"))


def verdicts(spaces: list[Space], dev_rows: int = 1000, *, has_budget: bool = False) -> list[tuple[str, ...]]:
    return [verdict for _, verdict in outcomes_of(spaces, dev_rows, has_budget=has_budget)]


def test_a_ladder_ends_climbs_is_helped_once_more_or_opens_frozen() -> None:
    expected: list[Any] = [("stop",), ("climb", "climb"), ("climb", "again", "climb"), ("climb", "climb_frozen_first")]
    assert verdicts([space("auto", "auto")]) == expected
    assert verdicts([space("auto", "auto")], has_budget=True) == [*expected, ("climb", "stop")]


def test_few_rows_open_the_last_tier_frozen_only_where_it_can_be() -> None:
    assert verdicts([space("auto", "auto")], 100) == [
        ("stop",),
        ("climb", "climb_frozen_only"),
        ("climb", "again", "climb_frozen_only"),
    ]
    rigid = space("auto", "auto", freezes=(0.0,))
    assert verdicts([rigid], 100) == [("stop",), ("climb", "climb"), ("climb", "again", "climb")]
    # A probe is no frozen fine-tune.
    assert verdicts([space("auto", "auto", freezes=(0.0, 1.0))], 100) == verdicts([rigid], 100)


@pytest.mark.parametrize(
    ("gates", "expected"),
    [
        (("always", "always"), [("climb", "climb")]),
        (("always", "never"), [("climb", "stop")]),
        (("never", "auto"), [("stop",)]),
        (("auto",), [("stop",), ("climb",)]),
        ((), [()]),
    ],
)
def test_gates_that_are_set_leave_less_to_think_of(gates: tuple[str, ...], expected: list[tuple[str, ...]]) -> None:
    assert verdicts([space(*gates)]) == expected


def test_later_gates_decide_alike_and_a_queue_is_gone_through() -> None:
    assert verdicts([space("auto", "auto", "auto")])[1] == ("climb", "climb", "climb")
    one = space()
    assert verdicts([one, replace(one, name="t")]) == [()]


def test_every_way_has_a_name_of_its_own() -> None:
    ways = outcomes_of([space("auto", "auto")], 1000, has_budget=True)
    assert len({name for name, _ in ways}) == len(ways)
    assert ways[1][0] == "heavy opens as in the space"
