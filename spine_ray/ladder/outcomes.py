"""The ways in which the gates of a climb can decide, each with a name: what a plan has to think of."""

from collections.abc import Iterator, Sequence
from typing import Final

from spine_ray.ladder.gates import Verdict
from spine_ray.space.schema import Space, TierSpace

Way = tuple[str, tuple[Verdict, ...]]
"""In words, and what the gates say in the order in which they are asked."""
_CLIMB: Final[Verdict] = "climb"
_FROZEN_ONLY: Final[Verdict] = "climb_frozen_only"
_FROZEN_FIRST: Final[Verdict] = "climb_frozen_first"


def outcomes_of(spaces: Sequence[Space], dev_rows: int, *, has_budget: bool) -> tuple[Way, ...]:
    """Return every way the gates can decide; the gates behind the second tier all decide alike.

    Of a queue of several spaces only the way through all of them is told.

    Args:
        spaces: One after the other.
        dev_rows: Few of them open the later tiers frozen only.
        has_budget: Whether a tier may be out of reach for lack of time.
    """
    tiers = spaces[0].tiers
    if len(spaces) > 1 or len(tiers) == 1:
        return (("everything is tried", (_CLIMB,) * sum(len(space.tiers) - 1 for space in spaces)),)
    stopped: Way = (f"it ends after {tiers[0].name}: nothing sound is learnt", ("stop",))
    if tiers[1].gate == "never":
        return ((f"it ends after {tiers[0].name}", ("stop",)),)
    ways = () if tiers[1].gate == "always" else (stopped,)
    if len(tiers) == 2:
        return (*ways, (f"{tiers[1].name} opens", ("climb",)))
    return (*ways, *_behind_plateau(tiers, dev_rows < spaces[0].small_data, has_budget))


def _behind_plateau(tiers: Sequence[TierSpace], is_small: bool, has_budget: bool) -> Iterator[Way]:
    below, later = tiers[1].name, tiers[2:]
    names, count = " and ".join(tier.name for tier in later), len(later)
    if any(tier.gate == "never" for tier in later):
        yield f"it ends after {below}", ("climb", "stop")
        return
    can_freeze = all(max(tier.trained_freezes, default=0.0) > 0 for tier in later)
    is_frozen = is_small and can_freeze
    opens = (_FROZEN_ONLY if is_frozen else _CLIMB,) * count
    open_ = "opens" if count == 1 else "open"
    yield f"{names} {open_} {'frozen only' if is_frozen else 'as in the space'}", ("climb", *opens)
    if all(tier.gate == "always" for tier in later):
        return
    yield f"{below} still moves: one more helping of it, then {names}", ("climb", "again", *opens)
    if can_freeze and not is_small:
        yield f"undecided: {names} {open_} frozen first", ("climb", *(_FROZEN_FIRST,) * count)
    if has_budget:
        yield f"it ends after {below}: no time for {names}", ("climb", "stop")
