import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import fsspec
import pytest
from PIL import Image

from spine_ray.data.inspection import NOT_OPENED, inspect_source
from spine_ray.data.rows import Row, Source
from spine_ray.data.sources import open_source


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 3), value).save(buffer, format="PNG")
    return buffer.getvalue()


def fill(root: Path, paths: list[str]) -> Path:
    for value, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(png(value))
    return root


def described(source: Source) -> list[tuple[str, str, str | None]]:
    return [(row.path, row.class_name, row.split) for row in source.rows]


def test_top_folders_are_classes_and_deeper_ones_are_not(tmp_path):
    source = open_source(str(fill(tmp_path, ["dog/1.PNG", "cat/deep/2.jpg", "cat/1.png"])))
    assert described(source) == [
        ("cat/1.png", "cat", None),
        ("cat/deep/2.jpg", "cat", None),
        ("dog/1.PNG", "dog", None),
    ]
    assert source.read(2) == png(0)
    assert source.classes == ("cat", "dog")


def test_train_and_test_folders_are_splits(tmp_path):
    source = open_source(str(fill(tmp_path, ["train/a/1.png", "train/b/1.png", "test/a/2.png"])))
    assert described(source) == [
        ("test/a/2.png", "a", "test"),
        ("train/a/1.png", "a", "dev"),
        ("train/b/1.png", "b", "dev"),
    ]


def test_train_is_a_class_when_it_holds_pictures_itself(tmp_path):
    source = open_source(str(fill(tmp_path, ["train/1.png", "tram/1.png"])))
    assert source.classes == ("train", "tram")


def test_folder_beside_train_is_refused(tmp_path):
    fill(tmp_path, ["train/a/1.png", "train/b/1.png", "val/a/2.png"])
    with pytest.raises(ValueError, match="holds val/ beside train/"):
        open_source(str(tmp_path))


def test_hidden_files_are_passed_over_and_other_files_are_listed(tmp_path):
    fill(tmp_path, ["a/1.png", "b/1.png", "loose.png", ".cache/c/1.png", "a/._1.png", "a/notes.txt"])
    source = open_source(str(tmp_path))
    assert [row.path for row in source.rows] == ["a/1.png", "b/1.png"]
    assert source.skipped == ("a/notes.txt", "loose.png")


def test_unlabelled_test_folder_gives_no_rows_but_is_listed(tmp_path):
    source = open_source(str(fill(tmp_path, ["train/a/1.png", "train/b/1.png", "test/9.png"])))
    assert [row.class_name for row in source.rows] == ["a", "b"]
    assert source.skipped == ("test/9.png",)


def test_linked_file_is_read_where_asked_for_and_linked_folder_is_refused(tmp_path):
    fill(tmp_path, ["root/a/1.png", "root/b/1.png", "blobs/x"])
    (tmp_path / "root/b/2.png").symlink_to(tmp_path / "blobs/x")
    with pytest.raises(ValueError, match=r"root: 'b/2.png' is a link that leaves the data's folder: .*--data-root DIR"):
        open_source(str(tmp_path / "root"))
    source = open_source(str(tmp_path / "root"), tmp_path)
    assert source.read(2) == png(2)
    (tmp_path / "root/c").symlink_to(tmp_path / "root/a")
    with pytest.raises(ValueError, match="c is a link to a folder"):
        open_source(str(tmp_path / "root"))


def test_link_inside_the_folder_is_read(tmp_path):
    fill(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "b/2.png").symlink_to("../a/1.png")
    assert open_source(str(tmp_path)).read(2) == png(0)


def test_a_linked_data_folder_is_the_folder(tmp_path):
    fill(tmp_path, ["there/a/1.png", "there/b/1.png"])
    (tmp_path / "here").symlink_to("there")
    assert len(open_source(str(tmp_path / "here")).rows) == 2


@pytest.mark.timeout(20)
def test_pipes_and_dead_links_are_no_pictures(tmp_path):
    fill(tmp_path, ["a/1.png", "b/1.png"])
    os.mkfifo(tmp_path / "a/2.png")  # whoever opens it waits for ever
    (tmp_path / "a/3.png").symlink_to("nowhere")
    (tmp_path / "b/4.png").symlink_to("../a/2.png")
    assert [row.path for row in open_source(str(tmp_path)).rows] == ["a/1.png", "b/1.png"]


def test_a_name_that_is_not_unicode_is_refused(tmp_path):
    fill(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / os.fsdecode(b"a/\xff.png")).write_bytes(png(0))
    with pytest.raises(ValueError, match=r"the path 'a/\\udcff.png' is not valid Unicode; rename it to UTF-8"):
        open_source(str(tmp_path))


STRANGE = ("..a", ".b" * 99, "<b>bold", "cat\ndog", "\x1b[31mred\x07", "🐈\u200d⬛", "x" * 250)


def test_strange_class_names_are_names(tmp_path):
    names = [name for name in STRANGE if not name.startswith(".")]
    fill(tmp_path, [f"{name}/1.png" for name in names])
    source = open_source(str(tmp_path))
    assert source.classes == tuple(sorted(names))
    assert [source.read(place) for place in range(len(source.rows))]


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "data.TGZ"])
def test_archive_is_refused_with_what_to_do(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="archives are not unpacked here; unpack it and name the folder"):
        open_source(str(tmp_path / name))


def test_members_of_a_named_archive_cannot_leave_it(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("a/1.png", "b/1.png", "../../b/2.png", "/etc/c/3.png"):
            archive.writestr(name, png(7))
    found = inspect_source(open_source(f"zip://::{tmp_path}/data.zip"))
    assert [(row.path, look.problem) for row, look in zip(found.source.rows, found.looks, strict=True)] == [
        ("a/1.png", None),
        ("b/1.png", None),
        ("etc/c/3.png", NOT_OPENED),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.zip"]


def test_data_root_must_be_a_folder(tmp_path):
    with pytest.raises(ValueError, match=r"--data-root .*/nowhere is not a folder"):
        open_source(str(tmp_path), tmp_path / "nowhere")


def test_no_data_or_digits_is_the_sample(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert open_source().is_sample
    assert open_source("digits").is_sample


def test_digits_is_the_users_folder_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path, ["digits/a/1.png", "digits/b/1.png"])
    assert open_source("digits").classes == ("a", "b")


def test_memory_uri_gives_the_rows_of_a_local_folder(tmp_path):
    paths = ["train/a/1.png", "train/b/1.png", "test/a/2.png"]
    local = open_source(str(fill(tmp_path, paths)))
    fs = fsspec.filesystem("memory")
    for path in paths:
        fs.pipe(f"/pictures/{path}", (tmp_path / path).read_bytes())
    remote = open_source("memory://pictures")
    assert remote.rows == local.rows
    assert [remote.read(index) for index in range(3)] == [local.read(index) for index in range(3)]


def test_pickled_source_reads_in_another_process_and_folder(tmp_path, monkeypatch):
    fill(tmp_path, ["pictures/a/1.png", "pictures/b/1.png"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "source").write_bytes(pickle.dumps(open_source("pictures")))
    code = (
        "import pickle, pathlib, sys; source = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); "
        "sys.stdout.write(source.read(1).hex())"
    )
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "source")],
        cwd="/",
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert bytes.fromhex(done.stdout) == png(1)


def test_locate_finds_rows_by_path(tmp_path):
    source = open_source(str(fill(tmp_path, ["a/1.png", "b/1.png", "b/2.png"])))
    assert source.locate(["b/2.png", "a/1.png"]).tolist() == [2, 0]
    with pytest.raises(ValueError, match=r"no picture 'c\.png' any more"):
        source.locate(["c.png"])


def test_missing_path_is_refused():
    with pytest.raises(ValueError, match="there is nothing at '/no/such/data': data must be a folder"):
        open_source("/no/such/data")


def test_unsupported_file_is_refused(tmp_path):
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(ValueError, match=r"not a file of type '\.xlsx'"):
        open_source(str(tmp_path / "data.xlsx"))


@pytest.mark.parametrize("paths", [[], ["a/notes.txt"]])
def test_folder_without_pictures_is_refused(tmp_path, paths):
    with pytest.raises(ValueError, match="it holds no pictures; expected class folders"):
        open_source(str(fill(tmp_path, paths)))


def test_folder_without_class_folders_is_refused(tmp_path):
    with pytest.raises(ValueError, match="its pictures lie in no class folder"):
        open_source(str(fill(tmp_path, ["1.png", "2.png"])))


def test_single_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match="only one class, 'a'"):
        open_source(str(fill(tmp_path, ["a/1.png", "a/2.png"])))


def test_source_without_rows_is_refused():
    with pytest.raises(ValueError, match="x holds no pictures"):
        Source(name="x", kind="folder", rows=(), reader=open_source().reader)


def test_rows_are_values():
    assert Row(path="x", class_name="a") == Row(path="x", class_name="a", group=None, split=None, fold=None)
