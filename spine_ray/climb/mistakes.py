"""Where the answer errs, by classes, and the dev rows, never test rows, on which members disagree or all err."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from spine_ray.climb.choice import Choice
from spine_ray.climb.figures import short_names
from spine_ray.data.colours import to_rgb
from spine_ray.data.rows import Source
from spine_ray.data.samples import Samples
from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ensemble.pool import floored
from spine_ray.show.report import ClassRow, Gallery, Picture, PictureKind

MOST_PICTURES = 12
"""Of each kind."""
SIDE, QUALITY = 112, 75
"""Of a thumbnail: px at most, and of its JPEG."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What was said of every dev row out of fold."""

    samples: Samples
    names: tuple[str, ...]
    """Of the members."""
    pool: npt.NDArray[np.float64]
    """(dev rows, classes), log-probabilities of the answer."""
    members: npt.NDArray[np.float64]
    """(members, dev rows, classes), log-probabilities at each member's temperature."""
    weights: tuple[float, ...]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(dev rows,)."""
        labels: npt.NDArray[np.int64] = self.samples.labels[self.samples.dev]
        return labels


def what_was_said(
    choice: Choice, samples: Samples, logits: npt.NDArray[np.float32], pool: npt.NDArray[np.float64]
) -> Said:
    """Return what the answer and its members say of every dev row.

    Args:
        choice: The ensemble.
        samples: The study's rows.
        logits: (members, dev rows, classes), OOF.
        pool: (dev rows, classes), the answer's log-probabilities.
    """
    parts = zip(logits, choice.ensemble.temperatures, strict=True)
    return Said(
        samples=samples,
        names=short_names(choice.members),
        pool=pool,
        members=np.stack([floored(log_probs(block, heat)) for block, heat in parts]),
        weights=choice.ensemble.weights,
    )


def class_rows(said: Said) -> tuple[ClassRow, ...]:
    """Return how the answer does on each class, the worst recognised first."""
    classes, labels = said.samples.classes, said.labels
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (labels, said.pool.argmax(axis=1)), 1)
    rows = []
    for place, name in enumerate(classes):
        wrong = counts[place].copy()
        wrong[place] = 0
        worst = int(wrong.argmax())
        rows.append(
            ClassRow(
                name=name,
                rows=int(counts[place].sum()),
                predicted=int(counts[:, place].sum()),
                hits=int(counts[place, place]),
                confused_with=classes[worst] if wrong[worst] else "",
                confused_rows=int(wrong[worst]),
            )
        )
    return tuple(sorted(rows, key=lambda row: (2.0 if row.recall is None else row.recall, -row.rows)))


def gallery(said: Said, source: Source | None, note: str) -> Gallery:
    """Return the dev rows on which members disagree most, and those on which all err, each as a thumbnail.

    A picture is shown only if its bytes are those that the study was made from.

    Args:
        said: What was said of the rows.
        source: Where the pictures come from; None where it cannot be opened.
        note: Why it cannot.
    """
    labels, every = said.labels, np.arange(len(said.labels))
    err = (said.members.argmax(axis=2) != labels).all(axis=0)
    surely = said.pool[every, labels]
    wrong = [int(row) for row in np.argsort(surely, kind="stable") if err[row]]
    apart = _disagreement(said)
    torn = [int(row) for row in np.argsort(-apart, kind="stable") if apart[row] > 0.0] if len(said.names) > 1 else []
    chosen: list[tuple[PictureKind, int]] = [("all err", row) for row in wrong[:MOST_PICTURES]]
    shown = set(wrong[:MOST_PICTURES])
    chosen += [("disagree", row) for row in [row for row in torn if row not in shown][:MOST_PICTURES]]
    if source is None:
        return Gallery(pictures=(), all_err=len(wrong), rows=len(labels), note=note)
    jpegs = _thumbnails(source, said.samples, [row for _, row in chosen])
    missing = jpegs.count(None)
    if missing:
        note = f"{missing} of {len(jpegs)} pictures cannot be shown: the files are gone or have changed since"
    pictures = [
        _picture(said, kind, row, float(apart[row]), jpeg)
        for (kind, row), jpeg in zip(chosen, jpegs, strict=True)
        if jpeg is not None
    ]
    return Gallery(pictures=tuple(pictures), all_err=len(wrong), rows=len(labels), note=note)


def _disagreement(said: Said) -> npt.NDArray[np.float64]:
    """Return the weighted mean over the members of KL(pool || member) of each row, (dev rows,), nats."""
    pool = np.exp(said.pool)
    apart = np.zeros(len(said.pool))
    for weight, member in zip(said.weights, said.members, strict=True):
        apart += weight * (pool * (said.pool - member)).sum(axis=1)
    return apart


def _picture(said: Said, kind: PictureKind, row: int, apart: float, jpeg: bytes) -> Picture:
    samples, classes = said.samples, said.samples.classes
    place = int(samples.dev[row])
    likeliest = int(said.pool[row].argmax())
    spoken = [
        (name, int(member[row].argmax()), member[row]) for name, member in zip(said.names, said.members, strict=True)
    ]
    return Picture(
        kind=kind,
        sample_id=samples.sample_ids[place],
        path=samples.paths[place],
        label=classes[samples.labels[place]],
        answer=classes[likeliest],
        share=float(np.exp(said.pool[row, likeliest])),
        disagreement=apart,
        said=tuple((name, classes[best], float(np.exp(values[best]))) for name, best, values in spoken),
        jpeg=jpeg,
    )


def _thumbnails(source: Source, samples: Samples, rows: Sequence[int]) -> list[bytes | None]:
    """Return a thumbnail of each of some dev rows; None where the picture is not what it was."""
    index_of = {row.path: index for index, row in enumerate(source.rows)}
    found: list[bytes | None] = []
    for row in rows:
        place = int(samples.dev[row])
        index = index_of.get(samples.paths[place])
        try:
            data = b"" if index is None else source.read(index)
        except OSError:
            data = b""  # counted as missing by who asked
        is_same = hashlib.sha256(data).hexdigest()[:16] == samples.sample_ids[place].partition("-")[0]
        found.append(_thumbnail(data) if is_same else None)
    return found


def _thumbnail(data: bytes) -> bytes:
    """Return a picture that the study has decoded before as a small JPEG; tiny ones are enlarged by whole pixels."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft("RGB", (SIDE, SIDE))
        picture = to_rgb(ImageOps.exif_transpose(opened))
    picture.thumbnail((SIDE, SIDE))
    times = max(1, SIDE // max(picture.size))
    if times > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=QUALITY)
    return file.getvalue()
