"""What is thrown at the functions that read: valid inputs with a few things changed, and bytes without any meaning.

A target is a strategy and a check. A check may raise `ValueError`, which a command tells in one line; anything else
that it raises is a finding.
"""

import copy
import hashlib
import io
import json
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import save

from spine_ray.core.pixels import decode
from spine_ray.core.weights import weights_from_folder
from spine_ray.data.audit import audit
from spine_ray.data.evidence import Evidence
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.rows import Row, Source
from spine_ray.data.samples import Samples
from spine_ray.data.sources import open_source
from spine_ray.space.configs import start_configs
from spine_ray.space.load import load_space
from spine_ray.space.stand_ins import spaces_folder
from spine_ray.study.control import read_control, write_control
from spine_ray.study.events import EpochDone, TrialEnded, TrialStarted
from spine_ray.study.ledger import append_event, read_ledger
from spine_ray.study.oof import read_oof, write_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import Choices, StudyRecord, WeightsRecord, read_record, write_record
from spine_ray.study.shipped import is_fitted, read_refit, write_refit
from spine_ray.study.tables import read_costs, read_samples, write_costs, write_samples
from spine_ray.study.trials import trials_from_events

Check = Callable[[Any, Path], None]


@dataclass(frozen=True)
class Target:
    """Something that reads."""

    inputs: st.SearchStrategy[Any]
    check: Check
    share: float = 1.0
    """Of the cases of a target; what is slow gets fewer."""


def hunt(target: Target, folder: Path, cases: int, *, is_random: bool) -> int:
    """Run a target's cases; return how many ended in an answer and not in a `ValueError`."""
    answered = 0

    @settings(
        max_examples=max(1, round(cases * target.share)),
        deadline=None,
        database=None,
        derandomize=not is_random,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(target.inputs)
    def case(value: Any) -> None:
        nonlocal answered
        with suppress(ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.check(value, folder)
            answered += 1

    case()
    return answered


# -------- what is changed

SAME_CASES = 120
"""Of a target, before its share, that are the same at every run: together more than 2,000."""
NASTY = st.sampled_from(
    [
        "", " ", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "\x1b[2J", "cat\ndog", "\u202e", "🐈\u200d⬛",
        "x" * 300,
        "<script>", "1e999", "nan", "-1", "0", "01", "1.0", "true", "null", "~", "*", "&a", "!!python/object:os.system",
        "s3://x/y", "file:///etc/passwd", "zip://::x", "a::b", ".", "*.png", "[a]", "{", "\ud800", "\ufeff",
        "=1+1", "%s",
        "{0}", "in/a.png", "in", "in/", "./in/a.png", "tiers.mid.gate", "recipe",
    ]
)  # fmt: skip
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**400, 10**9]),
    st.floats(),
    NASTY,
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY | st.text(max_size=4), inner, max_size=3)
)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value inside nested lists and mappings."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, each in inside for place in places_in(each, (*path, key)))]


@st.composite
def changed_values(draw: st.DrawFn, originals: list[Any]) -> Any:
    """One of the originals with a few of its values replaced, moved, left out or under another name."""
    value = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places_in(value)))
        if not path:
            if draw(st.integers(0, 20)) == 0:
                return draw(VALUES)
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "rename", "swap"]))
        if kind == "remove":
            del holder[path[-1]]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(NASTY)] = holder.pop(path[-1])
        elif kind == "swap" and isinstance(holder, dict):
            other = draw(st.sampled_from(list(holder)))
            holder[path[-1]], holder[other] = holder[other], holder[path[-1]]
        else:
            holder[path[-1]] = draw(VALUES)
    return value


@st.composite
def changed_bytes(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """One of the originals cut, with bytes changed, parts doubled, put in or overwritten by numbers."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        # Headers decide more than what follows them.
        reach = draw(st.sampled_from([32, 128, 1024, len(content)]))
        at = draw(st.integers(0, max(0, min(reach, len(content)) - 1)))
        match draw(st.sampled_from(["flip", "number", "cut", "double", "insert", "remove"])):
            case "flip" if content:
                content[at] ^= draw(st.integers(1, 255))
            case "number":
                number = draw(st.sampled_from([0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 50_000]))
                order = draw(st.sampled_from(["little", "big"]))
                width = max(draw(st.sampled_from([1, 2, 4])), (number.bit_length() + 7) // 8)
                content[at : at + width] = number.to_bytes(width, order)
            case "cut":
                del content[at:]
            case "double":
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case "insert":
                content[at:at] = draw(st.binary(min_size=1, max_size=16))
            case _:
                del content[at : at + draw(st.integers(1, 64))]
    return bytes(content)


# -------- spaces

SPACES = [file.read_bytes() for file in sorted(spaces_folder().glob("*.yaml"))]
SETS = [
    "recipe.epochs=3", "tiers.mid.gate=always", "trials=2", "freeze=[0.0, 1.0]", "recipe.lr={around_start: 3}",
    "folds=3",
    "audit.crowd=0.1", "overrides.resnet50.lr=1e-3", "budget=30m", "cost_matrix={a: {b: 2}}", "backbone=test_vit",
]  # fmt: skip


@st.composite
def changed_sets(draw: st.DrawFn) -> list[str]:
    """Words after `--set`."""
    keys = st.sampled_from([text.partition("=")[0] for text in SETS]) | NASTY | st.text(max_size=12)
    values = st.sampled_from([text.partition("=")[2] for text in SETS]) | NASTY | st.text(max_size=12)
    pairs = st.tuples(keys, st.sampled_from(["=", "=", "=", "", "=="]), values).map("".join)
    return draw(st.lists(st.sampled_from(SETS) | pairs, max_size=2))


def check_space(content: bytes, folder: Path, sets: list[str] | None = None) -> None:
    """What is accepted can be searched, and reads back as what it was."""
    file = folder / "space.yaml"
    file.write_bytes(content)
    space = load_space(str(file), sets=sets or [])
    for tier in space.tiers:
        for kind in ("random", "pretrained"):
            start_configs(tier, kind)
    try:
        file.write_text(space.text, encoding="utf-8")
        assert load_space(str(file)).tiers == space.tiers
    except ValueError as error:
        raise AssertionError(f"its own text is refused: {error}") from error


def space_bytes(value: Any) -> bytes:
    """Write values as YAML; what YAML cannot say is spelt out."""
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode(errors="backslashreplace")


# -------- data


def picture(kind: str, value: int, mode: str = "RGB", size: tuple[int, int] = (40, 36), **options: Any) -> bytes:
    """An encoded picture with something to see."""
    noise = np.random.default_rng(value).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def animation(kind: str) -> bytes:
    """A file of three frames."""
    frames = [Image.new("L", (33, 33), value) for value in (0, 99, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format=kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    """EXIF that says how a picture lies."""
    found = Image.Exif()
    found[0x0112] = orientation
    return found


PICTURES = [
    picture("PNG", 0), picture("PNG", 1, "P"), picture("PNG", 2, "LA"), picture("PNG", 3, "RGBA"),
    picture("PNG", 4, "1"), picture("PNG", 5, "L", (5, 3)), picture("JPEG", 6), picture("JPEG", 7, "CMYK"),
    picture("JPEG", 8, exif=exif(6)), picture("JPEG", 9, progressive=True), picture("GIF", 10, "P"),
    animation("GIF"), picture("BMP", 11), picture("PPM", 12), picture("TIFF", 13),
    picture("TIFF", 14, compression="tiff_lzw"), picture("TIFF", 15, "F"), animation("TIFF"),
    picture("WEBP", 16), animation("WEBP"), picture("TGA", 17), picture("JPEG2000", 18),
    picture("AVIF", 19, size=(32, 32)),
]  # fmt: skip
FILES = ["in/a.png", "in/b.png", "in/c.png", "in/d.png", "in/e.png", "in/f.png", "in/bad.png"]
TABLE = {
    "path": FILES[:6] * 2,
    "label": ["cat", "dog"] * 6,
    "group": ["1", "2", "3", "4", "5", "6"] * 2,
    "split": ["train"] * 10 + ["test"] * 2,
    "fold": ["0", "0", "1", "1"] * 2 + ["0", "1", "", ""],
}
TABLES = [TABLE, {key: TABLE[key] for key in ("path", "label")}, {"image": TABLE["path"], "label": TABLE["label"]}]
CSVS = [
    ("\n".join([",".join(table), *map(",".join, zip(*table.values(), strict=True))]) + "\n").encode()
    for table in TABLES
]


@dataclass
class Contents:
    """Reads rows from a list."""

    contents: list[bytes]

    def read(self, index: int, path: str) -> bytes:
        """Return the bytes of a row."""
        return self.contents[index]


def data_folder(folder: Path) -> Path:
    """Return a folder with the files of the tables."""
    data = folder / "data"
    if not data.exists():
        (data / "in").mkdir(parents=True)
        for place, name in enumerate(FILES):
            (data / name).write_bytes(PICTURES[place % 5] if name != "in/bad.png" else b"no picture")
    return data


def check_source(source: Source) -> None:
    """Every table that is accepted can be looked at, dealt and judged."""
    inspection = inspect_source(source)
    samples = build_samples(inspection, folds=2)
    found = audit(Evidence(inspection=inspection, samples=samples, resolutions=(32,)))
    json.dumps(found.to_dict()).encode()


def check_csv(content: bytes, folder: Path) -> None:
    """A CSV of any kind."""
    table = data_folder(folder) / "t.csv"
    table.write_bytes(content)
    check_source(open_source(str(table)))


@st.composite
def changed_cells(draw: st.DrawFn) -> dict[str, list[Any]]:
    """A valid table with other class names and groups, which may be anything."""
    table = copy.deepcopy(draw(st.sampled_from(TABLES)))
    names = draw(st.lists(NASTY | st.text(max_size=8), min_size=2, max_size=3))
    table["label"] = [names[row % len(names)] for row in range(12)]
    if "group" in table:
        table["group"] = [draw(NASTY) if draw(st.booleans()) else str(row) for row in range(12)]
    return table


@st.composite
def changed_csv(draw: st.DrawFn) -> bytes:
    """A valid table with a few other cells, as text."""
    table = draw(changed_values(list(TABLES)) | changed_cells())
    if not isinstance(table, dict):
        return str(table).encode(errors="replace")
    columns = [
        [str(cell) for cell in column] if isinstance(column, list) else [str(column)] for column in table.values()
    ]
    rows = zip(*columns, strict=False)
    quoted = draw(st.booleans())
    lines = [
        ",".join('"' + cell.replace('"', '""') + '"' if quoted else cell for cell in line)
        for line in [tuple(map(str, table)), *rows]
    ]
    return draw(st.sampled_from(["\n", "\r\n"])).join(lines).encode(errors="replace")


ARROW = st.sampled_from(
    [
        pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.int8(), pa.float64(), pa.bool_(), pa.null(),
        pa.dictionary(pa.int32(), pa.string()), pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
        pa.list_(pa.string()), pa.timestamp("s"), pa.decimal128(9, 2), pa.struct([("bytes", pa.int64())]),
        pa.dictionary(pa.int8(), pa.binary()), pa.binary(3), pa.date32(), pa.struct([("bytes", pa.string())]),
    ]
)  # fmt: skip
INFO = {"info": {"features": {"label": {"names": ["cat", "dog", "cow"], "_type": "ClassLabel"}}}}


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """A Parquet table whose columns may be of any kind, with or without what a Hugging Face export says of labels."""
    table = dict(draw(st.sampled_from(TABLES)))
    rows = len(table["label"])
    if draw(st.booleans()):
        table["image"] = [draw(st.sampled_from(PICTURES)) for _ in range(rows)]
        if draw(st.booleans()):
            table["image"] = [{"bytes": content, "path": "x"} for content in table["image"]]
    if draw(st.booleans()):
        table["label"] = [0, 1] * (rows // 2)
    columns = {}
    for name, cells in table.items():
        with suppress(pa.ArrowException):
            columns[name] = pa.array(cells)
    for name in draw(st.lists(st.sampled_from([*columns, "label", "fold", "image"]), max_size=2)):
        kind = draw(ARROW)
        plain = draw(st.lists(SCALARS, min_size=rows, max_size=rows)) if draw(st.booleans()) else [None] * rows
        with suppress(Exception):  # no such value of that kind: another case
            columns[name] = columns[name].cast(kind) if name in columns else pa.array(plain, kind)
            continue
        with suppress(Exception):
            columns[name] = pa.array(plain, kind)
    built = pa.table(columns)
    if draw(st.booleans()):
        info = json.dumps(draw(changed_values([INFO]))) if draw(st.booleans()) else json.dumps(INFO)
        built = built.replace_schema_metadata({"huggingface": draw(st.sampled_from([info, info, "{", "", "\\xff"]))})
    return parquet_of(built)


def check_parquet(content: bytes, folder: Path) -> None:
    """A Parquet table of any kind."""
    table = data_folder(folder) / "t.parquet"
    table.write_bytes(content)
    check_source(open_source(str(table)))


def parquet_of(columns: dict[str, Any] | pa.Table) -> bytes:
    """Return a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), buffer)
    return buffer.getvalue()


def check_picture(content: bytes, folder: Path) -> None:
    """What the audit calls readable can be trained on, and nothing else is found out there."""
    rows = tuple(Row(path=f"row {place}", class_name=str(place)) for place in range(2))
    source = Source(name="x", kind="parquet", rows=rows, reader=Contents([content, PICTURES[0]]))
    if inspect_source(source).looks[0].problem is None:
        try:
            decoded = decode(content, 32)
        except ValueError as error:
            raise AssertionError("readable, and not to be decoded") from error
        assert min(decoded.shape[:2]) == 32
        assert decoded.shape[2] == 3


# -------- studies

IDS = tuple(f"{row:016x}" for row in range(12))
SAMPLES = Samples(
    sample_ids=IDS,
    paths=tuple(f"{row}.png" for row in range(12)),
    labels=np.arange(12) // 4,
    classes=("ant", "bee", "cow"),
    groups=np.arange(12),
    splits=("dev", "dev", "test") * 4,
    folds=np.array([0, 1, -1] * 4),
)


def write_study(root: Path) -> StudyPaths:
    """Write a whole small study."""
    from spine_ray.space.config import TrialConfig
    from spine_ray.space.recipes import start_recipe
    from spine_ray.study.tables import Cost

    paths = StudyPaths(root)
    config = TrialConfig(backbone="resnet18", resolution=64, freeze=0.5, recipe=start_recipe("pretrained"))
    events = [
        TrialStarted(
            trial_id="a", tier="light", config=config, family="resnet", is_start=True, total_steps=30, params=11,
            macs=1_800, weights_source="hub", licence="apache-2.0", data_version="rows", time=5.0,
        ),
        EpochDone(
            trial_id="a", step=1, fold=0, epoch=1, train_loss=1.5, log_loss=0.3, accuracy=0.6, seconds=2.0,
            train_images=200, train_images_s=100.0, score_images_s=300.0, peak_mb=512.0, views=10, micro_batch=16,
            note="",
        ),
        TrialEnded(
            trial_id="a", status="completed", reason="", step=1, log_loss=0.3, accuracy=0.6, seconds=2.0, time=9.0
        ),
    ]  # fmt: skip
    paths.root.mkdir(parents=True)
    for event in events:
        append_event(paths.ledger, event)
    record = StudyRecord(
        seed=7, data="photos", data_fingerprint="d" * 64, fold_fingerprint="f" * 64, classes=SAMPLES.classes,
        versions={"torch": "2.10.0"}, device="cpu",
        weights=WeightsRecord(kind="pretrained", source="hub", hashes={"resnet18": "a" * 64}),
        choices=Choices(activation_bytes=10**10, arithmetic={"resnet18": "float32 channels_last"}),
    )  # fmt: skip
    write_record(paths, record)
    write_samples(paths.samples, SAMPLES)
    logits = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    write_oof(paths, "a", SAMPLES, logits)
    write_control(paths, SAMPLES, SAMPLES.labels, logits)
    arrays = {"fc.weight": np.ones((3, 4), np.float32)}
    write_refit(paths, "a", arrays, frozen_hash="random", data_version="rows")
    cost = Cost(
        backbone="resnet18", resolution=64, freeze=0.5, device="cpu", arithmetic="float32", train_images_s=1.0,
        infer_images_s=2.0, score_images_s=3.0, prefix_images_s=None, activation_mb=None, peak_mb=5.0, macs=6,
        prefix_macs=0, prefix_params=0,
    )  # fmt: skip
    write_costs(paths, [cost])
    return paths


READERS: dict[str, tuple[Callable[[StudyPaths], Path], Callable[[StudyPaths], Any]]] = {
    "ledger": (lambda paths: paths.ledger, lambda paths: trials_from_events(read_ledger(paths.ledger))),
    "record": (lambda paths: paths.record, lambda paths: read_record(paths.root)),
    "samples": (lambda paths: paths.samples, lambda paths: read_samples(paths.samples)),
    "oof": (lambda paths: paths.oof("a"), lambda paths: read_oof(paths, "a", SAMPLES)),
    "control": (lambda paths: paths.control, read_control),
    "costs": (lambda paths: paths.costs, read_costs),
    "refit": (lambda paths: paths.refit("a"), lambda paths: (is_fitted(paths, "a", "rows"), read_refit(paths, "a"))),
}
"""Which file, and how it is read."""


def fingerprint(root: Path) -> dict[str, str]:
    """Return the hash of every file of a study."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def study_check(name: str) -> Check:
    """Return the check of one file of a study: read or refused, and nothing of the study is changed by it."""
    place, read = READERS[name]

    def check(content: bytes, folder: Path) -> None:
        paths = StudyPaths(folder / "study")
        if not paths.root.exists():
            write_study(paths.root)
        place(paths).write_bytes(content)
        before = fingerprint(paths.root)
        try:
            read(paths)
        finally:
            assert fingerprint(paths.root) == before

    return check


def as_lines(events: Any) -> bytes:
    """Write a ledger, an event a line."""
    listed = events if isinstance(events, list) else [events]
    return "".join(json.dumps(event) + "\n" for event in listed).encode()


def table_bytes(columns: Any) -> bytes:
    """Write what can be written of columns as Parquet."""
    kept = {}
    for name, cells in columns.items() if isinstance(columns, dict) else ():
        with suppress(Exception):
            kept[str(name)] = pa.array(cells if isinstance(cells, list) else [cells])
        with suppress(Exception):
            kept["logits"] = kept["logits"].cast(pa.list_(pa.float32(), 3))
    length = max(map(len, kept.values()), default=0)
    try:
        return parquet_of({name: cells for name, cells in kept.items() if len(cells) == length})
    except (pa.ArrowException, UnicodeEncodeError):  # there is no such Parquet
        return b""


def study_targets(root: Path) -> dict[str, Target]:
    """Return the targets that read a study, from a study written for them."""
    paths = write_study(root)
    contents = {name: place(paths).read_bytes() for name, (place, _) in READERS.items()}
    ledger = [json.loads(line) for line in contents["ledger"].splitlines()]
    values: dict[str, st.SearchStrategy[bytes]] = {
        "ledger": changed_values([ledger]).map(as_lines),
        "record": changed_values([json.loads(contents["record"])]).map(lambda value: json.dumps(value).encode()),
    }
    for name in ("samples", "oof", "control", "costs"):
        columns = {key: list(cells) for key, cells in pq.read_table(io.BytesIO(contents[name])).to_pydict().items()}
        values[name] = changed_values([columns]).map(table_bytes)
    found = {f"{name}, other values": Target(each, study_check(name)) for name, each in values.items()}
    for name, content in contents.items():
        found[f"{name}, other bytes"] = Target(changed_bytes([content]) | st.binary(max_size=64), study_check(name))
    return found


def check_weights(content: bytes, folder: Path) -> None:
    """A folder of weights whose file and sums are anything."""
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "test_vit.safetensors").write_bytes(content)
    (weights / "SHA256SUMS").write_bytes(content[:80])
    weights_from_folder(weights, ["test_vit"])


SPACE_VALUES = [yaml.safe_load(content) for content in SPACES]
DATA_TARGETS: dict[str, Target] = {
    "space, other values": Target(changed_values(SPACE_VALUES).map(space_bytes), check_space, 0.5),
    "space, other bytes": Target(changed_bytes(SPACES) | st.binary(max_size=64), check_space, 0.5),
    "space, words of --set": Target(changed_sets(), lambda sets, folder: check_space(SPACES[0], folder, sets), 0.5),
    "csv, other values": Target(changed_csv(), check_csv),
    "csv, other bytes": Target(changed_bytes(CSVS) | st.binary(max_size=64), check_csv),
    "parquet, other values": Target(tables(), check_parquet, 0.7),
    "parquet, other bytes": Target(
        changed_bytes([parquet_of(TABLE), parquet_of({"image": PICTURES[:6], "label": ["a", "b"] * 3})]), check_parquet
    ),
    "picture, other bytes": Target(changed_bytes(PICTURES) | st.binary(max_size=64), check_picture, 2.0),
    "weights, other bytes": Target(
        changed_bytes([save({"weight": np.ones((2, 2), np.float32)})]) | st.binary(max_size=64), check_weights, 0.5
    ),
}
NAMES = (
    *DATA_TARGETS,
    *(f"{name}, other values" for name in ("ledger", "record", "samples", "oof", "control", "costs")),
    *(f"{name}, other bytes" for name in READERS),
)
