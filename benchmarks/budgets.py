"""Budgets of searches that are compared with a mark: seconds, or so many times what the mark took and some more."""

import re
from dataclasses import dataclass

_NUMBER = r"\d+(?:\.\d+)?"
_FORM = re.compile(rf"(?:(?P<times>{_NUMBER})m)?(?:(?P<sign>\+?)(?P<plus>{_NUMBER}))?")


@dataclass(frozen=True, slots=True)
class Budget:
    """What a search may take."""

    text: str
    times: float
    """Of the mark's seconds."""
    plus: float
    """s."""

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `1.3m+40`, `4m` (m: the mark's seconds) or `600` (seconds).

        Raises:
            ValueError: If it has another form or is zero.
        """
        match = _FORM.fullmatch(text)
        # Between the two a plus must stand, and a number alone has none.
        if match is not None and bool(match["sign"]) == (match["times"] is not None and match["plus"] is not None):
            budget = cls(text, float(match["times"] or 0.0), float(match["plus"] or 0.0))
            if budget.times + budget.plus > 0.0:
                return budget
        raise ValueError(f"a budget is 1.3m+40 or 4m, m being the mark's seconds, or plain seconds; not {text!r}")

    def seconds(self, mark_s: float) -> float:
        """Return the budget beside a mark that took `mark_s`."""
        return self.times * mark_s + self.plus
