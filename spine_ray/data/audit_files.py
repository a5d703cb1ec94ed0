"""What the audit says of the files: names that say another format, animations, colours that need care, rotations."""

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from PIL import Image

from spine_ray.data.counted import counted
from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Finding, Level
from spine_ray.data.inspection import Look

_ALIKE = {"MPO": "JPEG", "DIB": "BMP"}
"""Formats that go by the suffix of another: what cameras write beside a JPEG, and a BMP without its header."""
_HANDLED: tuple[tuple[str, Level, tuple[str, str], str, Callable[[Look], bool]], ...] = (
    (
        "animated",
        "warning",
        ("picture has", "pictures have"),
        "several frames or pages; only the first is used",
        lambda look: look.has_more_frames and look.format not in _ALIKE,
    ),
    (
        "cmyk",
        "fact",
        ("picture is", "pictures are"),
        "CMYK, which becomes RGB by formula, without the ICC profile",
        lambda look: look.mode == "CMYK",
    ),
    (
        "deep",
        "fact",
        ("picture has", "pictures have"),
        "more than 8 bits a channel, scaled to 8 bits over the full range of 16",
        lambda look: look.is_deep,
    ),
    (
        "transparent",
        "fact",
        ("picture is", "pictures are"),
        "transparent in places; white shows through",
        lambda look: look.is_see_through,
    ),
    (
        "rotated",
        "fact",
        ("picture is", "pictures are"),
        "turned upright, as EXIF says",
        lambda look: look.orientation != 1,
    ),
)


def file_findings(evidence: Evidence) -> Iterator[Finding]:
    """Say what is unusual about the files, once a kind, with the rows."""
    yield from _wrong_extensions(evidence)
    looks = evidence.looks
    for kind, level, (one, many), told, is_so in _HANDLED:
        found = [sample for sample, look in enumerate(looks) if is_so(look)]
        if found:
            message = f"{counted(len(found), one, many)} {told} (first: {evidence.samples.paths[found[0]]})"
            yield Finding(level=level, kind=kind, message=message, rows=evidence.ids(found))


def _wrong_extensions(evidence: Evidence) -> Iterator[Finding]:
    known = Image.registered_extensions()
    paths = evidence.samples.paths
    wrong: list[int] = []
    for sample, look in enumerate(evidence.looks):
        named = known.get(PurePosixPath(paths[sample]).suffix.lower())
        if named is not None and named not in (look.format, _ALIKE.get(look.format)):
            wrong.append(sample)
    if wrong:
        first = wrong[0]
        message = (
            f"{counted(len(wrong), 'picture is', 'pictures are')} of another format than the name says; the content is "
            f"believed (first: {paths[first]} is {evidence.looks[first].format})"
        )
        yield Finding(level="warning", kind="wrong_extension", message=message, rows=evidence.ids(wrong))
