"""The shortcut test: does something about the file, and not the picture in it, tell the class?

Each property is tested by itself: a shallow tree learns the classes from it alone, along the study's folds. What a
network can see of it (size, aspect, format, pixels, compression) is a warning; what it never sees (bytes, names) is a
fact.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from sklearn.tree import DecisionTreeClassifier

from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Finding
from spine_ray.data.inspection import Look
from spine_ray.data.samples import Samples

MAX_ROWS = 20_000
"""Of more dev rows, evenly spaced ones are used."""
MIN_ROWS = 10
"""Classes with fewer dev rows are not judged: a few pictures have a size in common by chance."""
_SIGMAS = 3.0
"""Standard errors between what is seen and what is sure: several properties and many classes are tested at once."""
_DEPTH = 4
_SMALLEST_LEAF = 3
_MOST_WORDS = 50
"""Rarer words of file names are not looked at."""
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Told:
    """What a property tells: classes, how surely at least, and the dev rows that were told right."""

    classes: tuple[int, ...]
    surely: tuple[float, ...]
    rows: npt.NDArray[np.int64]


def shortcut_findings(evidence: Evidence) -> Iterator[Finding]:
    """Say which properties of the files tell which classes."""
    samples = evidence.samples
    dev = samples.dev[:: -(-len(samples.dev) // MAX_ROWS)]
    looks = [evidence.looks[sample] for sample in dev]
    seen = [(name, table(looks)) for name, table in _SEEN.items()]
    unseen = [("byte size", _column([float(look.num_bytes) for look in looks])), ("file name", _names(evidence, dev))]
    for name, told in _told_by(seen, evidence, dev):
        yield Finding(
            level="warning",
            kind=f"shortcut_{name.replace(' ', '_')}",
            message=f"the {name} of the pictures tells {_classes(samples, told)}: a network may learn it instead "
            "of what is in the pictures",
            rows=evidence.ids(told.rows),
        )
    for name, told in _told_by(unseen, evidence, dev):
        yield Finding(
            level="fact",
            kind=f"told_by_{name.replace(' ', '_')}",
            message=f"the {name} tells {_classes(samples, told)}; a network does not see it",
            rows=evidence.ids(told.rows),
        )


def _told_by(
    tables: Sequence[tuple[str, Numbers]], evidence: Evidence, dev: npt.NDArray[np.int64]
) -> Iterator[tuple[str, _Told]]:
    for name, table in tables:
        if (table != table[0]).any():
            told = _tell(table, evidence.samples, dev, evidence.limits.shortcut)
            if told.classes:
                yield name, told


def _tell(table: Numbers, samples: Samples, dev: npt.NDArray[np.int64], least: float) -> _Told:
    """Guess every row's class by a tree that did not see its fold; keep the classes that are surely told."""
    labels, folds = samples.labels[dev], samples.folds[dev]
    guesses = np.full(len(dev), -1, np.int64)
    for fold in np.unique(folds):
        is_held = folds == fold
        tree = DecisionTreeClassifier(
            max_depth=_DEPTH, min_samples_leaf=_SMALLEST_LEAF, class_weight="balanced", random_state=0
        )
        guesses[is_held] = tree.fit(table[~is_held], labels[~is_held]).predict(table[is_held])
    surely = {label: _sure_gain(labels == label, guesses == label) for label in range(len(samples.classes))}
    told = tuple(label for label, gain in surely.items() if gain > least)
    right = (guesses == labels) & np.isin(labels, told)
    return _Told(told, tuple(surely[label] for label in told), dev[right])


def _sure_gain(is_class: npt.NDArray[np.bool_], is_guessed: npt.NDArray[np.bool_]) -> float:
    """Return true less false positive rate, three standard errors down."""
    if is_class.sum() < MIN_ROWS:
        return 0.0
    hit, hit_variance = _rate(is_guessed[is_class])
    false, false_variance = _rate(is_guessed[~is_class])
    return hit - false - _SIGMAS * float(np.sqrt(hit_variance + false_variance))


def _rate(happened: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return how often it happened and the variance of that, with one more of each so that none is ever sure."""
    tried = len(happened) + 2
    rate = (int(happened.sum()) + 1) / tried
    return rate, rate * (1.0 - rate) / tried


def _classes(samples: Samples, told: _Told) -> str:
    """Name the classes, the surest first."""
    order = sorted(range(len(told.classes)), key=lambda place: -told.surely[place])
    shown = [
        f"{samples.classes[told.classes[place]]} (at least {told.surely[place]:.0%} above chance)"
        for place in order[:3]
    ]
    more = f" and {len(order) - 3} more classes" if len(order) > 3 else ""
    return ", ".join(shown) + more


def _column(values: Sequence[float]) -> Numbers:
    return np.array(values, np.float64)[:, None]


def _kinds(values: Sequence[str]) -> Numbers:
    """One column a kind, 1 where it is that."""
    return np.asarray(np.array(values)[:, None] == np.array(sorted(set(values)))[None, :], np.float64)


def _qualities(sums: Sequence[int]) -> Numbers:
    """Give pictures of other formats the middle quality: that they are no JPEGs is another property."""
    known = sorted(each for each in sums if each)
    middle = known[len(known) // 2] if known else 0
    return _column([float(each or middle) for each in sums])


_SEEN: dict[str, Callable[[Sequence[Look]], Numbers]] = {
    "size": lambda looks: np.array([[*look.size, min(look.size)] for look in looks], np.float64),
    "aspect": lambda looks: _column([round(look.size[0] / look.size[1], 3) for look in looks]),
    "format": lambda looks: _kinds([look.format for look in looks]),
    "kind of pixels": lambda looks: _kinds([f"{look.mode} {look.is_deep} {look.is_see_through}" for look in looks]),
    "EXIF rotation": lambda looks: _column([float(look.orientation) for look in looks]),
    "JPEG quality": lambda looks: _qualities([look.quantization for look in looks]),
}


def _names(evidence: Evidence, dev: npt.NDArray[np.int64]) -> Numbers:
    """Return what stands in the paths besides the class: the first number, and words as kinds."""
    numbers, words = [], []
    for sample in dev:
        class_name = evidence.samples.classes[evidence.samples.labels[sample]]
        path = PurePosixPath(evidence.samples.paths[sample])
        found = re.search(r"\d+", path.stem)
        numbers.append(float(found[0][:15]) if found else -1.0)
        folders = [part for part in path.parts[:-1] if part not in (class_name, "train", "test")]
        word = re.match(r"[^\W\d_]*", path.stem)
        words.append("/".join([*folders, word[0] if word else ""]))
    common = [word for word, _ in Counter(words).most_common(_MOST_WORDS)]
    kinds = (np.array(words)[:, None] == np.array(common)[None, :]).astype(np.float64)
    return np.concatenate([_column(numbers), kinds], axis=1)
