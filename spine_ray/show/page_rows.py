"""The sections of the page about rows and time: classes, pictures worth a look, predicted against actual time."""

import base64
from collections.abc import Sequence

from spine_ray.show.page_parts import bar, hint, name, number, section, share_bar, table, text
from spine_ray.show.report import ClassRow, Gallery, Picture, PictureKind, Timing
from spine_ray.show.words import duration_text, share_text

_TALL = 16
"""Rows from which a table scrolls by itself."""
_KINDS: dict[PictureKind, tuple[str, str]] = {
    "all err": ("All members err", "the most surely wrong first: look here for wrong labels"),
    "disagree": ("Members disagree most", "by their mean KL from the pool"),
}


def classes_section(rows: Sequence[ClassRow]) -> str:
    """Return how the answer does on every class, the worst recognised first."""
    if not rows:
        return ""
    drawn = table(
        ("class", "#rows", "#recall", "", "#precision", "most often taken for"),
        [_class(row) for row in rows],
        is_tall=len(rows) > _TALL,
    )
    told = hint(
        "The answer on OOF rows, the worst recognised class first. Recall: share of its rows that were recognised. "
        "Precision: share of the rows taken for it that are of it."
    )
    return section("Classes", drawn, told)


def gallery_section(gallery: Gallery | None) -> str:
    """Return the pictures on which members disagree or all err."""
    if gallery is None:
        return ""
    err = f"On {gallery.all_err} of {gallery.rows} dev rows every member errs. "
    parts = [hint(f"{err}Dev rows only, each said by models that never saw it; nothing here is of the test split.")]
    for kind, (title, order) in _KINDS.items():
        pictures = [picture for picture in gallery.pictures if picture.kind == kind]
        if pictures:
            cards = "".join(map(_picture, pictures))
            parts.append(f'<h3>{title}: {order}</h3><div class="pictures">{cards}</div>')
    if gallery.note:
        parts.append(hint(text(gallery.note)))
    return section("Pictures worth a look", *parts)


def timing_section(timing: Timing | None) -> str:
    """Return what was predicted for every way the gates could decide, and what it took."""
    if timing is None:
        return ""
    most = max([outcome.high for outcome in timing.expected] + [timing.actual or 0.0])
    scale = (0.0, 1.02 * max(most, 1e-9))
    rows = []
    for outcome in timing.expected:
        happened = outcome.name == timing.happened
        at = timing.actual if happened else None
        start = '<tr class="first">' if happened else "<tr>"
        rows.append(
            f"{start}<td>{text(outcome.name)}</td>"
            + number(f"{duration_text(outcome.low)} to {duration_text(outcome.high)}")
            + f"<td>{bar(outcome.low, outcome.high, at, scale, 'wide')}</td>"
            + number(duration_text(timing.actual) if happened else "")
            + "</tr>"
        )
    line = f"The last search: {timing.line}." if timing.line else "The last search has not ended."
    told = "Ranges hold nine of ten rehearsals. The bold row is how the gates decided; the mark is what it took."
    heads = ("if the gates decide", "#predicted wall time", "", "#took")
    return section("Predicted and actual time", f"<p>{text(line)}</p>", table(heads, rows), hint(told))


def _class(row: ClassRow) -> str:
    taken = f"{name(row.confused_with)}, {row.confused_rows} of {row.rows}" if row.confused_rows else ""
    recall = "" if row.recall is None else share_bar(row.recall)
    return (
        f"<tr><td>{name(row.name)}</td>{number(str(row.rows))}{number(share_text(row.recall))}<td>{recall}</td>"
        f"{number(share_text(row.precision))}<td>{taken}</td></tr>"
    )


def _picture(picture: Picture) -> str:
    source = base64.b64encode(picture.jpeg).decode("ascii")
    said = "".join(f"<small>{text(who)}: {name(what)} {share:.0%}</small>" for who, what, share in picture.said)
    is_right = picture.answer == picture.label
    style = "right" if is_right else "wrong"
    apart = f"<p>{picture.disagreement:.2f} nats apart</p>{said}" if len(picture.said) > 1 else ""
    return (
        f'<div class="picture"><img alt="" title="{text(picture.path)}" src="data:image/jpeg;base64,{source}"><div>'
        f"<p>filed under <b>{name(picture.label)}</b></p>"
        f'<p>answer <b class="{style}">{name(picture.answer)}</b> {picture.share:.0%}</p>{apart}</div></div>'
    )
