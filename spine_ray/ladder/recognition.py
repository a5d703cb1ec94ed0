"""Which classes a trial recognises, and of how many it can be said that they collapsed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spine_ray.data.counted import counted

MIN_CLASS_ROWS = 10
"""Independent rows that a class needs before it can be said to have collapsed.

Of n independent rows not one is recognised: then the recall lies below `1 - 0.05 ** (1 / n)` with 95 % confidence,
about 3 / n (the rule of three, Hanley and Lippman-Hand 1983, JAMA 249). For 10 rows that is 26 %, for 5 rows 45 %, for
3 rows 63 %: a class of 3 rows may well be recognised every other time, and none of the 3 be among them. That a class
recognised less than one time in four has collapsed is a convention.
"""
MOST_NAMED = 8
"""Classes that a sentence names; of a longer list it says how many more there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRecall:
    """How many of a class's rows are recognised."""

    name: str
    rows: int
    groups: int
    """Independent rows: rows of one group count as one."""
    hits: int
    """Rows whose likeliest class is their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recognition:
    """How a trial does on each class."""

    recalls: tuple[ClassRecall, ...]
    """Of the classes that have rows."""

    @property
    def unrecognised(self) -> tuple[ClassRecall, ...]:
        """The classes of which no row is recognised, weakest first: the more rows, the lower the recall can be."""
        found = (recall for recall in self.recalls if recall.hits == 0)
        return tuple(sorted(found, key=lambda recall: (-recall.groups, -recall.rows)))

    @property
    def judged(self) -> tuple[ClassRecall, ...]:
        """The classes with rows enough to say whether they collapsed."""
        return tuple(recall for recall in self.recalls if recall.groups >= MIN_CLASS_ROWS)

    @property
    def collapsed(self) -> tuple[ClassRecall, ...]:
        """The unrecognised classes with rows enough, weakest first."""
        return tuple(recall for recall in self.unrecognised if recall.groups >= MIN_CLASS_ROWS)

    @property
    def collapsed_share(self) -> float:
        """The share of the judged classes that collapsed; 0.0 where none can be judged."""
        return len(self.collapsed) / max(1, len(self.judged))

    @property
    def summary(self) -> str:
        """How many classes collapsed, and which, as a part of a sentence."""
        if not self.judged:
            return f"no class has the {MIN_CLASS_ROWS} independent rows that it takes to say whether it collapsed"
        if not self.collapsed:
            return "no class collapsed"
        names = listed([recall.name for recall in self.collapsed])
        return f"{self._collapsed_of_judged} collapsed ({names})"

    @property
    def collapse(self) -> str:
        """Which classes collapsed, of how many rows, as a sentence without its full stop; empty where none did."""
        if not self.collapsed:
            return ""
        return f"{self._collapsed_of_judged} collapsed: no row was recognised of {named(self.collapsed)}"

    @property
    def findings(self) -> tuple[str, ...]:
        """What a reader must know of the classes that are not recognised, one sentence each."""
        found = [self.collapse] if self.collapsed else []
        few = tuple(recall for recall in self.unrecognised if recall.groups < MIN_CLASS_ROWS)
        if few:
            doubt = f"with fewer than {MIN_CLASS_ROWS} independent rows that may be chance"
            found.append(f"no row was recognised of {named(few)}; {doubt}")
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the evidence as plain values for JSON, the classes by name, weakest first, none left out."""
        return {
            "judged_classes": len(self.judged),
            "collapsed_share": self.collapsed_share,
            "collapsed_classes": [recall.name for recall in self.collapsed],
            "unrecognised_classes": [recall.name for recall in self.unrecognised],
            "unrecognised_rows": [recall.rows for recall in self.unrecognised],
        }

    @property
    def _collapsed_of_judged(self) -> str:
        classes = counted(len(self.judged), "class", "classes")
        return f"{len(self.collapsed)} of {classes} with at least {MIN_CLASS_ROWS} independent rows"


def recognition(
    log_probs: NDArray[np.float64], labels: ArrayLike, classes: Sequence[str], groups: ArrayLike | None
) -> Recognition:
    """Count which rows of each class are recognised.

    Args:
        log_probs: (samples, classes), OOF log-probabilities of one trial.
        labels: (samples,), class indices.
        classes: The classes' names.
        groups: (samples,), rows of one group stay together; None: every row for itself.

    Raises:
        ValueError: If there is not one name a class or not one group a row.
    """
    truth = np.asarray(labels)
    members = np.arange(len(truth)) if groups is None else np.asarray(groups)
    if len(classes) != np.shape(log_probs)[1] or members.shape != truth.shape:
        raise ValueError(
            f"recognition needs one name a class and one group a row: {len(classes)} names and groups "
            f"{members.shape} for log_probs {np.shape(log_probs)}"
        )
    hits = np.argmax(log_probs, axis=1) == truth
    recalls = []
    for index, name in enumerate(classes):
        mine = truth == index
        if mine.any():
            independent = len(np.unique(members[mine]))
            recalls.append(ClassRecall(name=name, rows=int(mine.sum()), groups=independent, hits=int(hits[mine].sum())))
    return Recognition(recalls=tuple(recalls))


def named(recalls: Sequence[ClassRecall]) -> str:
    """Name classes with their numbers of rows."""
    return listed([f"{recall.name} ({counted(recall.rows, 'row', 'rows')})" for recall in recalls])


def listed(names: Sequence[str]) -> str:
    """Write at least one name as a list, the first `MOST_NAMED` of them and how many more there are."""
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    *most, last = [*names[:MOST_NAMED], *more]
    return f"{', '.join(most)} and {last}" if most else last
