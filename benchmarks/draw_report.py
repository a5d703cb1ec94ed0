"""What the runs of `benchmarks.real_pictures` say: every draw by itself, and all draws of a size together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from benchmarks.picture_table import Draw, PictureTable
from benchmarks.predicted_losses import Judged, Paired, rounded
from benchmarks.search_runs import MarkRun, SearchRun


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawRuns:
    """Both sides on one draw."""

    rows: int
    """As asked for, to learn from."""
    seed: int
    """Of the draw."""
    draw: Draw
    judge: PictureTable
    mark: MarkRun
    searches: tuple[SearchRun, ...]
    """One a budget, in the order of the budgets."""

    def minus_mark(self, index: int) -> Paired | None:
        """Compare a search with the mark; None where it has no answer."""
        return self._paired(self.searches[index].judged, self.mark.judged)

    def minus_previous(self, index: int) -> Paired | None:
        """Compare a search with that of the budget before; None where one of them has no answer."""
        return self._paired(self.searches[index].judged, self.searches[index - 1].judged)

    def plain(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        searches = [
            {**search.summary(), "minus_mark": _summary(self.minus_mark(index))}
            for index, search in enumerate(self.searches)
        ]
        return {
            "rows": len(self.draw.study),
            "test_rows": len(self.draw.test),
            "judge_rows": len(self.draw.judge),
            "draw": self.seed,
            "mark": {
                "seconds": rounded(self.mark.seconds),
                "cpu_seconds": self.mark.found["cpu_seconds"],
                "judge": self.mark.judged.summary(),
                "models": self.mark.found["models"],
            },
            "searches": searches,
            "longer_minus_shorter": [
                {"longer": longer.budget, "shorter": shorter.budget, "paired": _summary(self.minus_previous(index))}
                for index, (shorter, longer) in enumerate(pairwise(self.searches), 1)
            ],
        }

    def _paired(self, model: Judged | None, reference: Judged | None) -> Paired | None:
        if model is None or reference is None:
            return None
        return Paired.of(model, reference, self.judge)


def summary(runs: Sequence[DrawRuns]) -> list[dict[str, Any]]:
    """Return what all draws of each number of rows say together."""
    return [_of_size([run for run in runs if run.rows == rows]) for rows in dict.fromkeys(run.rows for run in runs)]


def _of_size(runs: Sequence[DrawRuns]) -> dict[str, Any]:
    budgets = [search.budget for search in runs[0].searches]
    return {
        "rows": runs[0].rows,
        "draws": len(runs),
        "mark": {
            "seconds": [rounded(run.mark.seconds) for run in runs],
            **_means([run.mark.judged for run in runs]),
        },
        "budgets": [_of_budget(runs, index) for index in range(len(budgets))],
        "longer_minus_shorter": [
            {
                "longer": longer,
                "shorter": shorter,
                "paired": _joined([run.minus_previous(index) for run in runs]),
            }
            for index, (shorter, longer) in enumerate(pairwise(budgets), 1)
        ],
    }


def _of_budget(runs: Sequence[DrawRuns], index: int) -> dict[str, Any]:
    searches = [run.searches[index] for run in runs]
    return {
        "budget": searches[0].budget,
        "answers": sum(search.judged is not None for search in searches),
        "largest_seconds_over_budget": rounded(max(search.seconds / search.budget_s for search in searches)),
        **_means([search.judged for search in searches if search.judged is not None]),
        "minus_mark": _joined([run.minus_mark(index) for run in runs]),
    }


def _means(judged: Sequence[Judged]) -> dict[str, float | None]:
    """Return the means over draws; None where nothing was judged."""
    if not judged:
        return {"log_loss": None, "accuracy": None}
    scores = [model.summary() for model in judged]
    return {name: rounded(fmean(score[name] for score in scores)) for name in ("log_loss", "accuracy")}


def _joined(pairs: Sequence[Paired | None]) -> dict[str, Any] | None:
    """Return the difference over the draws that have one, and that of each draw."""
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return None
    return {**Paired.joined(known).summary(), "by_draw": [rounded(float(pair.differences.mean())) for pair in known]}


def _summary(pair: Paired | None) -> dict[str, Any] | None:
    return None if pair is None else pair.summary()
