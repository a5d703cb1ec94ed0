import io
import random
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import Inspection, inspect_source
from spine_ray.data.rows import Row, Source
from spine_ray.data.samples import Samples
from spine_ray.data.sources import open_source


@dataclass
class ListReader:
    contents: list[bytes]

    def read(self, index, path):
        return self.contents[index]


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (3, 2), value % 256).resize((3, 2 + value // 256)).save(buffer, format="PNG")
    return buffer.getvalue()


def row(class_name: str, **extra) -> Row:
    return Row(path=extra.pop("path", "x"), class_name=class_name, **extra)


def inspected(rows: list[Row], values: list[int] | None = None) -> Inspection:
    contents = [png(value) for value in (values if values is not None else range(len(rows)))]
    return inspect_source(Source(name="x", kind="parquet", rows=tuple(rows), reader=ListReader(contents)))


def assert_same(one: Samples, other: Samples) -> None:
    assert one.sample_ids == other.sample_ids
    assert one.classes == other.classes
    assert one.labels.tolist() == other.labels.tolist()
    assert one.groups.tolist() == other.groups.tolist()
    assert one.splits == other.splits
    assert one.folds.tolist() == other.folds.tolist()
    assert one.data_fingerprint == other.data_fingerprint
    assert one.fold_fingerprint == other.fold_fingerprint


def crossing(samples: Samples, *, dev_only: bool = False) -> set[int]:
    """Groups on both sides of a cut, counted naively."""
    parts: dict[int, set[int]] = {}
    for group, fold in zip(samples.groups.tolist(), samples.folds.tolist(), strict=True):
        if fold >= 0 or not dev_only:
            parts.setdefault(group, set()).add(fold)
    return {group for group, folds in parts.items() if len(folds) > 1}


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> dict[str, Samples]:
    """The same 40 pictures (two of them twice, once with another label) in four forms, each in another order."""
    root = tmp_path_factory.mktemp("forms")
    cells = [(f"{'ab'[index % 2]}", index) for index in range(40)] + [("a", 0), ("b", 2)]
    (root / "folder/a").mkdir(parents=True)
    (root / "folder/b").mkdir()
    names = []
    for name, value in cells:
        path = f"{name}/{random.Random(len(names)).random()}.png"
        (root / "folder" / path).write_bytes(png(value))
        names.append(path)
    order = list(range(len(cells)))
    random.Random(1).shuffle(order)
    lines = [f"folder/{names[index]},{cells[index][0]}" for index in order]
    (root / "t.csv").write_text("\n".join(["path,label", *lines]))
    labels = [cells[index][0] for index in reversed(order)]
    images = [png(cells[index][1]) for index in reversed(order)]
    pq.write_table(pa.table({"image": images, "label": labels}), root / "bytes.parquet")
    structs = [{"bytes": image, "path": None} for image in images[::-1]]
    pq.write_table(pa.table({"image": structs, "label": labels[::-1]}), root / "structs.parquet")
    paths = ("folder", "t.csv", "bytes.parquet", "structs.parquet")
    return {path: build_samples(inspect_source(open_source(str(root / path))), folds=3, seed=5) for path in paths}


@pytest.mark.parametrize("form", ["t.csv", "bytes.parquet", "structs.parquet"])
def test_same_pictures_give_the_same_table_from_every_source(forms, form):
    assert_same(forms["folder"], forms[form])


def test_rows_are_sorted_by_class_and_id_and_copies_are_numbered(forms):
    samples = forms["folder"]
    keys = [(samples.classes[label], name) for label, name in zip(samples.labels, samples.sample_ids, strict=True)]
    assert keys == sorted(keys)
    assert sorted(name[16:] for name in samples.sample_ids if "-" in name) == ["-1", "-1"]


def test_copies_share_a_group_and_never_cross(forms):
    samples = forms["folder"]
    for copy in (name for name in samples.sample_ids if "-" in name):
        one, other = samples.sample_ids.index(copy), samples.sample_ids.index(copy[:16])
        assert samples.groups[one] == samples.groups[other]
    assert len(set(samples.groups.tolist())) == 40
    assert not crossing(samples)


def test_every_row_is_in_one_part_and_parts_are_stratified():
    samples = build_samples(inspected([row("ab"[index >= 60]) for index in range(100)]), folds=4, seed=1)
    counts = {
        part: np.bincount(samples.labels[samples.folds == part]).tolist() for part in range(-1, samples.num_folds)
    }
    # 60 and 40 rows: a fifth to the test split, then quarters of what is left.
    assert counts == {-1: [12, 8], 0: [12, 8], 1: [12, 8], 2: [12, 8], 3: [12, 8]}


def test_other_seed_gives_other_folds_of_the_same_data():
    looked = inspected([row("ab"[index % 2]) for index in range(40)])
    one, again, other = (build_samples(looked, folds=2, seed=seed) for seed in (0, 0, 1))
    assert_same(one, again)
    assert one.data_fingerprint == other.data_fingerprint
    assert one.fold_fingerprint != other.fold_fingerprint


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("given_split", [False, True])
def test_user_groups_never_cross_what_is_cut_here(seed, given_split):
    rng = np.random.default_rng(seed)
    rows = [
        row(
            "abc"[rng.integers(3)],
            group=f"patient {rng.integers(40)}",
            split=("test" if index < 30 else "dev") if given_split else None,
        )
        for index in range(200)
    ]
    samples = build_samples(inspected(rows), folds=3, seed=seed)
    assert not crossing(samples, dev_only=given_split)
    assert samples.num_folds == 3
    share = 0.15 if given_split else 0.2
    assert abs(len(samples.test) / 200 - share) < 0.04


def test_groups_join_over_copies():
    # Rows 0 and 1 share a patient, 1 and 2 the bytes, 2 and 3 a patient: one group of four.
    groups = ["p", "p", "q", "q"] + [None] * 36
    values = [0, 1, 1, 3, *range(4, 40)]
    rows = [row("ab"[index % 2], group=group, path=str(index)) for index, group in enumerate(groups)]
    samples = build_samples(inspected(rows, values), folds=2)
    of_path = dict(zip(samples.paths, samples.groups.tolist(), strict=True))
    assert len({of_path[str(index)] for index in range(4)}) == 1
    assert len(set(of_path.values())) == 37
    assert not crossing(samples)


def test_few_copies_never_cross_and_keep_the_parts_stratified():
    values = [*range(98), 0, 2]
    samples = build_samples(inspected([row("ab"[index % 2]) for index in range(100)], values), folds=4)
    assert not crossing(samples)
    sizes = [len(samples.held_out(fold)) for fold in range(4)]
    assert sum(sizes) + len(samples.test) == 100
    assert max(sizes) - min(sizes) <= 3


def test_given_split_is_kept():
    rows = [row("ab"[index % 2], split="test" if index < 10 else "dev", path=str(index)) for index in range(40)]
    samples = build_samples(inspected(rows), folds=3)
    assert {samples.paths[index] for index in samples.test} == {str(index) for index in range(10)}


def test_split_without_test_rows_leaves_the_choice_open():
    rows = [row("ab"[index % 2], split="dev") for index in range(40)]
    assert len(build_samples(inspected(rows), folds=3).test) == 8


def test_given_folds_are_kept_and_numbered_from_zero():
    rows = [
        row("ab"[index % 2], path=str(index), split="dev" if index < 30 else "test", fold=fold)
        for index, fold in enumerate([10 * (index // 10 + 1) for index in range(30)] + [None] * 10)
    ]
    samples = build_samples(inspected(rows), folds=5)
    assert samples.num_folds == 3
    by_path = dict(zip(samples.paths, samples.folds.tolist(), strict=True))
    assert [by_path[str(index)] for index in range(40)] == [0] * 10 + [1] * 10 + [2] * 10 + [-1] * 10


def test_given_folds_without_a_test_split_give_up_a_share_to_it():
    rows = [row("ab"[index % 2], path=str(index), fold=index % 4 // 2) for index in range(40)]
    samples = build_samples(inspected(rows))
    assert len(samples.test) == 8
    assert all(samples.folds[index] == int(samples.paths[index]) % 4 // 2 for index in samples.dev)


def test_unreadable_rows_are_no_samples():
    rows = [row("ab"[index % 2], path=str(index)) for index in range(30)]
    contents = [png(index) for index in range(29)] + [b"broken"]
    source = Source(name="x", kind="parquet", rows=tuple(rows), reader=ListReader(contents))
    samples = build_samples(inspect_source(source), folds=3)
    assert len(samples.sample_ids) == 29
    assert "29" not in samples.paths


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (["a"] * 20 + ["b"] * 4, {}, "class 'b' has 4 dev pictures, too few for 5 folds and a test split: at least 6"),
        (["a"] * 90 + ["b"] * 9, {"folds": 2, "test_share": 0.01}, "test_share 0.01 of 99 pictures is 1, fewer than"),
        (["a"] * 20 + ["b"] * 20, {"folds": 1}, "folds must be 2 to 100, not 1"),
        (["a"] * 20 + ["b"] * 20, {"test_share": 0.0}, "test_share must be above 0 and at most 0.5, not 0"),
        (["a"] * 20 + ["b"] * 20, {"seed": -1}, "seed must be 0 to"),
    ],
)
def test_impossible_wishes_are_refused(rows, settings, message):
    with pytest.raises(ValueError, match=message):
        build_samples(inspected([row(name) for name in rows]), **settings)


def test_class_with_too_few_dev_rows_is_named_when_the_split_is_given():
    rows = [row("a", split="dev") for _ in range(10)] + [row("b", split="dev") for _ in range(3)]
    rows += [row("b", split="test") for _ in range(7)]
    with pytest.raises(ValueError, match="class 'b' has 3 dev pictures, too few for 5 folds: at least 5"):
        build_samples(inspected(rows))


def test_class_with_too_few_groups_is_named():
    rows = [row("a") for _ in range(10)] + [row("b", group=f"{index % 2}") for index in range(10)]
    with pytest.raises(ValueError, match="class 'b' has 10 dev pictures in 2 groups, too few for 3 folds"):
        build_samples(inspected(rows), folds=3)


def test_class_in_one_given_fold_is_refused():
    rows = [row("ab"[index < 8], split="dev", fold=int(index < 8)) for index in range(20)]
    rows.append(row("a", split="test"))
    with pytest.raises(ValueError, match="class 'a' has its dev pictures all in fold 0"):
        build_samples(inspected([*rows, row("a", split="dev", fold=0), row("b", split="dev", fold=0)]))


def test_single_given_fold_is_refused():
    rows = [row("ab"[index % 2], split="dev", fold=4) for index in range(20)] + [row("a", split="test")]
    with pytest.raises(ValueError, match="must name 2 to 100 folds, not 1"):
        build_samples(inspected(rows))


def test_source_in_which_nothing_can_be_decoded_is_refused():
    source = Source(name="x", kind="parquet", rows=(row("a"), row("b")), reader=ListReader([b"", b"?"]))
    with pytest.raises(ValueError, match="x: none of its 2 pictures can be decoded"):
        build_samples(inspect_source(source))
