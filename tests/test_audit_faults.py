"""A set with one of every fault: all are found with their rows, each vanishes with its fault, a clean set has none."""

import io
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.textures import drawings, picture
from spine_ray.climb.preflight import look_at_data
from spine_ray.climb.request import SearchRequest
from spine_ray.data.findings import Audit, Finding
from spine_ray.data.sources import open_source
from spine_ray.space.load import load_space

PER_CLASS, IN_TEST, SIDE = 40, 10, 64
CLASSES = {"blob": "noise blobs", "maze": "noise maze", "brick": "lattice bricks", "heart": "shape heart outlined"}
RARE, TYPO, BOXES = "comet", "Heart", "crate"
SPACE = "folds: 3\nresolution: [32, 48]\nbackbone: test_resnet\n"

Files = dict[str, bytes]
"""The pictures of a set, by path."""


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


DRAWINGS = drawings()


@cache
def draw(name: str, seed: int) -> np.ndarray:
    return picture(DRAWINGS[name], np.random.default_rng([seed, SIDE]), SIDE)


def clean_set(seed: int = 0) -> Files:
    """Four classes of textures, 30 pictures each to train on and 10 to test on, half of each kind of file."""
    return dict(drawn_set(seed))


@cache
def drawn_set(seed: int) -> Files:
    files = {}
    for place, (name, drawing) in enumerate(CLASSES.items()):
        for number in range(PER_CLASS):
            part = "test" if number < IN_TEST else "train"
            kind, suffix = (("PNG", "png"), ("JPEG", "jpg"))[number % 2]
            files[f"{part}/{name}/{number:03d}.{suffix}"] = encoded(
                draw(drawing, 1000 * seed + 100 * place + number), kind
            )
    return files


def put(files: Files, path: str, content: bytes) -> set[str]:
    files[path] = content
    return {path}


def truncated(files: Files) -> set[str]:
    return put(files, "train/blob/cut.png", files["train/blob/010.png"][:900])


def zero_bytes(files: Files) -> set[str]:
    return put(files, "train/maze/none.png", b"")


def no_picture(files: Files) -> set[str]:
    return put(files, "train/maze/text.jpg", b"<html>not found</html>")


def wrong_extension(files: Files) -> set[str]:
    return put(files, "train/brick/webp.png", encoded(draw("lattice bricks", 901), "WEBP"))


def animated(files: Files) -> set[str]:
    frames = [Image.fromarray(draw("noise maze", seed)) for seed in (902, 903)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return put(files, "train/maze/moves.gif", buffer.getvalue())


def cmyk(files: Files) -> set[str]:
    buffer = io.BytesIO()
    Image.fromarray(draw("noise blobs", 904)).convert("CMYK").save(buffer, "JPEG")
    return put(files, "train/blob/print.jpg", buffer.getvalue())


def deep(files: Files) -> set[str]:
    grey = draw("noise blobs", 905)[:, :, 0].astype(np.uint16) * 257
    return put(files, "train/blob/deep.png", encoded(grey))


def transparent(files: Files) -> set[str]:
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[:20] = 0
    return put(files, "train/brick/hole.png", encoded(np.dstack([draw("lattice bricks", 906), alpha])))


def rotated(files: Files) -> set[str]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return put(files, "train/maze/lies.jpg", encoded(draw("noise maze", 907), "JPEG", exif=exif))


def exact_duplicate(files: Files) -> set[str]:
    put(files, "train/blob/copy.png", files["train/blob/012.png"])
    return {"train/blob/copy.png", "train/blob/012.png"}


def cross_label_duplicate(files: Files) -> set[str]:
    put(files, "train/maze/copy.png", files["train/brick/014.png"])
    return {"train/maze/copy.png", "train/brick/014.png"}


def test_duplicate(files: Files) -> set[str]:
    put(files, "test/maze/copy.png", files["train/maze/016.png"])
    return {"test/maze/copy.png", "train/maze/016.png"}


test_duplicate.__test__ = False  # type: ignore[attr-defined]


def again(content: bytes) -> bytes:
    """Encode a picture once more, at half its size."""
    small = Image.open(io.BytesIO(content)).resize((SIDE // 2, SIDE // 2), Image.Resampling.BICUBIC)
    return encoded(np.asarray(small), "JPEG", quality=80)


def near_duplicate(files: Files) -> set[str]:
    put(files, "train/brick/small.jpg", again(files["train/brick/018.png"]))
    return {"train/brick/small.jpg", "train/brick/018.png"}


def near_cross_label(files: Files) -> set[str]:
    put(files, "train/blob/small.jpg", again(files["train/maze/020.png"]))
    return {"train/blob/small.jpg", "train/maze/020.png"}


def near_test_duplicate(files: Files) -> set[str]:
    put(files, "test/brick/small.jpg", again(files["train/brick/022.png"]))
    return {"test/brick/small.jpg", "train/brick/022.png"}


def tiny_class(files: Files) -> set[str]:
    paths = {f"train/{RARE}/{number}.png" for number in range(3)} | {f"test/{RARE}/9.png"}
    for number, path in enumerate(sorted(paths)):
        put(files, path, encoded(draw("shape star 5 filled", 910 + number)))
    return paths


def label_typo(files: Files) -> set[str]:
    moved = {path for path in files if path.startswith(("train/heart/", "test/heart/")) and path[-5] in "05"}
    for path in moved:
        files[path.replace("heart", TYPO)] = files.pop(path)
    return {path.replace("heart", TYPO) for path in moved}


def too_small(files: Files) -> set[str]:
    """Shrink most pictures of every class below the inputs of 48 px."""
    small = {path for path in files if path[-5] in "2356789" and path.split("/")[1] in CLASSES}
    for path in small:
        kind = "PNG" if path.endswith("png") else "JPEG"
        opened = Image.open(io.BytesIO(files[path]))
        files[path] = encoded(np.asarray(opened.resize((40, 40), Image.Resampling.BICUBIC)), kind)
    return small


def shortcut(files: Files) -> set[str]:
    """Add a class whose pictures alone are wide."""
    paths = set()
    for number in range(PER_CLASS):
        part = "test" if number < IN_TEST else "train"
        wide = np.tile(draw("noise discs", 950 + number), (1, 2, 1))[:, : SIDE + 20]
        kind, suffix = (("PNG", "png"), ("JPEG", "jpg"))[number % 2]
        paths |= put(files, f"{part}/{BOXES}/{number:03d}.{suffix}", encoded(wide, kind))
    return paths


# Each fault with what finds it, in the order in which they are planted: what changes pictures goes before what copies.
FAULTS: dict[str, tuple[Callable[[Files], set[str]], tuple[str, ...]]] = {
    "shortcut": (shortcut, ("shortcut_size", "shortcut_aspect")),
    "too_small": (too_small, ("upsampled",)),
    "label_typo": (label_typo, ("label_typo", "small_class")),
    "truncated": (truncated, ("unreadable: truncated or damaged",)),
    "zero_bytes": (zero_bytes, ("unreadable: no bytes",)),
    "no_picture": (no_picture, ("unreadable: not a picture of a known kind",)),
    "wrong_extension": (wrong_extension, ("wrong_extension",)),
    "animated": (animated, ("animated",)),
    "cmyk": (cmyk, ("cmyk",)),
    "deep": (deep, ("deep",)),
    "transparent": (transparent, ("transparent",)),
    "rotated": (rotated, ("rotated",)),
    "exact_duplicate": (exact_duplicate, ("duplicates",)),
    "cross_label_duplicate": (cross_label_duplicate, ("conflicting_labels", "duplicates")),
    "test_duplicate": (test_duplicate, ("test_leak", "duplicates")),
    "near_duplicate": (near_duplicate, ("near_duplicates",)),
    "near_cross_label": (near_cross_label, ("near_conflicting_labels", "near_duplicates")),
    "near_test_duplicate": (near_test_duplicate, ("near_test_leak", "near_duplicates")),
    "tiny_class": (tiny_class, ("small_class", "imbalance")),
}
PLAIN = {"counts", "balance", "resolution"}
"""Facts that are said of any data."""


def write(folder: Path, files: Files) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def request_for(folder: Path, sets: tuple[str, ...] = ()) -> SearchRequest:
    (folder / "space.yaml").write_text(SPACE)
    return SearchRequest(
        spaces=(load_space(str(folder / "space.yaml"), sets=sets),), sets=sets, data=None, study=folder / "study",
        budget_s=None, weights="random", seed=0, workers=None, address=None, tracking=None, open_test=False,
        resume=False, finish=False, force=False, update=(), plan=False, on=None, began=0.0, command="",
    )  # fmt: skip


def audited(folder: Path, files: Files) -> dict[str, tuple[Finding, set[str]]]:
    """Write the set, look at it as a search does, and return each kind of finding with the paths of its rows."""
    rows = look_at_data(request_for(folder), open_source(str(write(folder / "data", files))))
    kept = Audit.from_dict(json.loads(json.dumps(rows.audit.to_dict())))
    paths = dict(zip(rows.samples.sample_ids, rows.samples.paths, strict=True))
    found = {}
    for finding in kept.findings:
        kind = finding.kind
        if kind == "unreadable":
            kind = f"unreadable: {finding.message.partition('left out: ')[2].partition(' (')[0]}"
        assert kind not in found, f"{kind} is said twice"
        assert not re.search(r"\b1 (pictures|others|files|groups)\b", finding.message), finding.message
        found[kind] = (finding, {paths.get(row, row) for row in finding.rows})
    return found


def planted(without: str | None = None) -> tuple[Files, dict[str, set[str]]]:
    """Return the set with all faults but one, and the rows that each kind of finding must name."""
    files, expected = clean_set(), {}
    for name, (plant, kinds) in FAULTS.items():
        if name != without:
            rows = plant(files)
            for kind in kinds:
                expected.setdefault(kind, set()).update(rows)
    return files, expected


@pytest.mark.parametrize("without", [None, *FAULTS])
def test_every_fault_is_found_with_its_rows_and_goes_with_it(tmp_path: Path, without: str | None) -> None:
    files, expected = planted(without)
    found = audited(tmp_path, files)
    assert set(found) - PLAIN == set(expected)
    for kind, rows in expected.items():
        named = found[kind][1]
        if kind.startswith("shortcut"):  # the dev rows that the property tells
            assert named <= rows and len(named) >= 0.8 * (PER_CLASS - IN_TEST), kind
        elif kind == "upsampled":
            assert named >= rows & set(files), kind
        else:
            assert named == rows, kind


@pytest.mark.parametrize("seed", range(2))
def test_a_clean_set_has_no_findings_but_plain_facts(tmp_path: Path, seed: int) -> None:
    found = audited(tmp_path, clean_set(seed))
    assert set(found) == PLAIN
    assert {finding.level for finding, _ in found.values()} == {"fact"}


def test_faults_that_mislead_are_warnings_and_those_that_are_handled_are_facts(tmp_path: Path) -> None:
    found = audited(tmp_path, planted()[0])
    facts = {kind for kind, (finding, _) in found.items() if finding.level == "fact"}
    assert facts == {*PLAIN, "cmyk", "deep", "transparent", "rotated"}
    assert not [kind for kind, (finding, _) in found.items() if finding.level == "error"]
    assert "'Heart' (" in found["label_typo"][0].message and "and 'heart' (" in found["label_typo"][0].message
    assert "0% for 32 px" in found["upsampled"][0].message and "% for 48 px" in found["upsampled"][0].message


def test_thresholds_of_the_space_are_used(tmp_path: Path) -> None:
    files = clean_set()
    near_duplicate(files)
    source = open_source(str(write(tmp_path / "data", files)))
    kinds = {
        sets: {finding.kind for finding in look_at_data(request_for(tmp_path, sets), source).audit.findings} - PLAIN
        for sets in ((), ("audit.near_duplicate=0",), ("audit.rows_per_fold=20",))
    }
    assert list(kinds.values()) == [{"near_duplicates"}, set(), {"near_duplicates", "small_class"}]
