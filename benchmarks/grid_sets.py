"""Sets for the stored grid: dev rows in three folds, and fresh rows of the same distribution that nothing trains on."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks.textures import GLYPHS, drawings, glyph, picture
from spine_ray.study.paths import replace_table

DEV_ROWS, FRESH_ROWS, FOLDS, SEED = 660, 4000, 3, 0
SIDE = 63
"""Side of the drawn pictures, px: what is stored for 48 px, so that nothing is scaled on the way."""
SCAN_NOISE, OCCLUDED = 0.3, 3
"""Of a scan of digits: deviation of the noise in units of full ink, and side of the square that hides a part, px."""

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Kind:
    """What a set is made of."""

    titles: tuple[str, ...]
    """Its drawings, a class each; `new glyph N` for glyphs that the small weights never saw. Empty for digits."""
    wrong: float = 0.0
    """Share of rows with a label drawn from the other classes."""

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self.titles) or 10


KINDS = {
    "digits": Kind(()),
    "lattices": Kind(tuple(title for title in drawings() if title.startswith("lattice"))),
    "glyphs": Kind(tuple(f"new glyph {number}" for number in range(20))),
    "wrong": Kind(("lattice stripes", "noise clouds", "shape disc filled", "glyph 0", "noise cells"), wrong=0.15),
}
"""`digits` are noisy scans, `wrong` is easy, but 15 % of its labels are wrong: its best models have all there is."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """A set's pictures: dev rows first, then the fresh ones."""

    pictures: tuple[bytes, ...]
    """PNGs."""
    labels: Labels
    groups: npt.NDArray[np.int64]
    """Rows drawn from one scan share a group; others have their own."""
    folds: npt.NDArray[np.int64]
    """-1 in fresh rows."""


def make_rows(name: str, dev: int = DEV_ROWS, fresh: int = FRESH_ROWS) -> Rows:
    """Draw a set; the same rows every time.

    Args:
        name: One of `KINDS`.
        dev: Number of dev rows.
        fresh: Number of fresh rows; digits have whole copies of every held-out scan, so about as many.
    """
    kind, rng = KINDS[name], np.random.default_rng([SEED, *name.encode()])
    arrays, truth, groups = drawn(kind, dev, fresh, rng) if kind.titles else scans(dev, fresh, rng)
    labels = mislabelled(truth, kind, rng)
    folds = np.full(len(labels), -1, np.int64)
    dealt = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(labels[:dev], labels[:dev])
    for fold, (_, held_out) in enumerate(dealt):
        folds[held_out] = fold
    return Rows(pictures=tuple(map(png, arrays)), labels=labels, groups=groups, folds=folds)


def drawn(kind: Kind, dev: int, fresh: int, rng: Rng) -> tuple[list[Pixels], Labels, Labels]:
    """Return pictures, classes and groups of a generated set, the classes in turn."""
    known = drawings() | {f"new glyph {number}": glyph(GLYPHS + number) for number in range(20)}
    labels = np.concatenate([np.arange(dev), np.arange(fresh)]) % kind.classes
    return [picture(known[kind.titles[label]], rng, SIDE) for label in labels], labels, np.arange(dev + fresh)


def scans(dev: int, fresh: int, rng: Rng) -> tuple[list[Pixels], Labels, Labels]:
    """Return corrupted scans of digits: one of each dev scan, several of every scan that is held out."""
    found = load_digits()
    rows = np.arange(len(found.target))
    chosen, others = train_test_split(rows, train_size=dev, stratify=found.target, random_state=SEED)
    copies = max(1, fresh // len(others))
    groups = np.concatenate([chosen, np.repeat(others, copies)])
    arrays = [corrupted(found.images[row] / 16.0, rng) for row in groups]
    return arrays, found.target[groups].astype(np.int64), groups.astype(np.int64)


def corrupted(ink: npt.NDArray[np.float64], rng: Rng) -> Pixels:
    """Return a scan of 0 to 1 with noise, a part of it hidden."""
    noisy = ink + rng.normal(0.0, SCAN_NOISE, ink.shape)
    row, column = rng.integers(0, len(ink) - OCCLUDED + 1, 2)
    noisy[row : row + OCCLUDED, column : column + OCCLUDED] = rng.random()
    return np.rint(np.clip(noisy, 0.0, 1.0) * 255.0).astype(np.uint8)


def mislabelled(truth: Labels, kind: Kind, rng: Rng) -> Labels:
    """Return the labels with the kind's share of them drawn from the other classes."""
    is_wrong = rng.random(len(truth)) < kind.wrong
    moved = (truth + rng.integers(1, kind.classes, len(truth))) % kind.classes
    return np.where(is_wrong, moved, truth).astype(np.int64)


def least_loss(kind: Kind) -> float:
    """Return the log-loss of whoever knows every true class: nobody has less in the long run."""
    if not kind.wrong:
        return 0.0
    right, others = 1.0 - kind.wrong, kind.classes - 1
    return float(-right * np.log(right) - kind.wrong * np.log(kind.wrong / others))


def png(array: Pixels) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_data(rows: Rows, path: Path) -> None:
    """Write a table that `--data` takes: the dev rows in their folds, the fresh rows as its test split."""
    is_fresh = rows.folds < 0
    columns = {
        "image": pa.array(rows.pictures, pa.binary()),
        "label": pa.array([f"class_{label:02d}" for label in rows.labels]),
        "group": pa.array([str(group) for group in rows.groups]),
        "split": pa.array(["test" if each else "dev" for each in is_fresh]),
        "fold": pa.array(rows.folds),
    }
    replace_table(path, pa.table(columns))
