import os
import shutil
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.data.albums import listed_album, open_album
from spine_ray.data.pictures import MAX_BYTES
from spine_ray.data.places import FileTooLargeError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.png", "a.JPG", "b/10.jpg", "b/notes.txt", ".hidden.png", ".cache/3.png"):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "pictures"


def seen(given: str) -> dict[str, bytes]:
    return {picture.name: picture.read() for picture in open_album(given).pictures()}


def test_a_folder_is_gone_through_in_a_stable_order_without_what_is_hidden(folder: Path) -> None:
    album = open_album(str(folder))
    assert album.count == 3
    assert list(seen(str(folder))) == ["a.JPG", "b/10.jpg", "b/2.png"]
    assert seen(str(folder))["b/2.png"] == b"b/2.png"


def test_a_uri_holds_the_same_pictures(folder: Path) -> None:
    assert seen(f"file://{folder}") == seen(str(folder))


def test_a_csv_names_paths_beside_it_or_absolute_ones_and_may_hold_more(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "c.png"
    elsewhere.write_bytes(b"c")
    (folder / "list.csv").write_text(f"note,path\nx,b/2.png\ny,{elsewhere}\n")
    assert seen(str(folder / "list.csv")) == {"b/2.png": b"b/2.png", str(elsewhere): b"c"}


def test_a_parquet_holds_bytes_structs_or_paths(folder: Path) -> None:
    cases = {
        "bytes": ({"image": [b"x", b"y"]}, {"row 0": b"x", "row 1": b"y"}),
        "structs": (
            {"image": [{"bytes": b"x", "path": "p"}, {"bytes": b"y", "path": None}]},
            {"p": b"x", "row 1": b"y"},
        ),
        "paths": ({"path": ["b/2.png"], "label": ["z"]}, {"b/2.png": b"b/2.png"}),
        "nothing": ({"image": pa.array([None], pa.binary())}, {"row 0": b""}),
    }
    for name, (columns, expected) in cases.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
        assert seen(str(folder / f"{name}.parquet")) == expected
        assert open_album(str(folder / f"{name}.parquet")).count == len(expected)


def test_one_picture_and_a_list_of_paths_and_bytes(folder: Path) -> None:
    path = folder / "b" / "2.png"
    assert list(seen(str(path)).values()) == [b"b/2.png"]
    found = {picture.name: picture.read() for picture in listed_album([path, b"abc"]).pictures()}
    assert found == {str(path): b"b/2.png", "row 1": b"abc"}


def test_a_missing_file_is_found_out_when_it_is_read_and_no_sooner(folder: Path) -> None:
    (folder / "list.csv").write_text("path\nnowhere.png\n")
    (picture,) = open_album(str(folder / "list.csv")).pictures()
    with pytest.raises(FileNotFoundError):
        picture.read()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("nowhere", None, "there is nothing at"),
        ("x.txt", b"", "not a file of type '.txt'"),
        ("x.csv", b"species\nant\n", "no column `path` or `image` (its columns: species)"),
        ("x.csv", b"", "its columns: none"),
        ("x.parquet", b"abc", "not a Parquet table"),
        ("empty", "folder", "holds no pictures"),
        ("linked", "link", "is a link to a folder"),
    ],
)
def test_what_holds_no_pictures_is_refused(tmp_path: Path, name: str, content: object, told: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        path.mkdir()
        if content == "link":
            (path / "inner").symlink_to(tmp_path)
    with pytest.raises(ValueError) as caught:
        open_album(str(path))
    assert told in str(caught.value)


def test_a_csv_that_breaks_off_is_refused_where_it_does(folder: Path) -> None:
    (folder / "list.csv").write_text("path,note\na.JPG,x\nb/2.png\n")
    with pytest.raises(ValueError, match="row 1: 1 values for 2 columns"):
        list(open_album(str(folder / "list.csv")).pictures())


def test_a_table_may_name_what_lies_above_it(folder: Path) -> None:
    (folder / "b" / "list.csv").write_text("path\n../a.JPG\n")
    assert seen(str(folder / "b" / "list.csv")) == {"../a.JPG": b"a.JPG"}


def test_a_table_in_a_store_names_nothing_above_it_and_is_not_advised_to(folder: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/albums/above/list.csv", b"path\n../a.png\n")
    (picture,) = open_album("memory://albums/above/list.csv").pictures()
    with pytest.raises(ValueError, match="leaves the data's folder memory://albums/above") as caught:
        picture.read()
    assert "--data-root" not in str(caught.value)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_pipe_is_no_picture_of_a_folder(folder: Path, prefix: str) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("a.JPG")
    assert list(seen(f"{prefix}{folder}")) == ["a.JPG", "link.jpg", "b/10.jpg", "b/2.png"]
    assert open_album(f"{prefix}{folder}").count == 4


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["/dev/zero", "pipe.jpg", "link.jpg", "b", "nowhere.png", "file://{folder}/pipe.jpg", ""]
)
def test_what_a_table_names_is_read_only_if_it_is_a_file(folder: Path, name: str) -> None:
    os.mkfifo(folder / "pipe.jpg")
    (folder / "link.jpg").symlink_to("pipe.jpg")
    (folder / "list.csv").write_text(f"path,note\n{name.format(folder=folder)},x\n")
    scheme = "file://" if "://" in name else ""
    (picture,) = open_album(f"{scheme}{folder}/list.csv").pictures()
    with pytest.raises(FileNotFoundError):
        picture.read()


def test_a_file_is_read_no_further_than_a_picture_goes(folder: Path) -> None:
    with (folder / "large.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)  # no block of it is on the disk
    (folder / "list.csv").write_text(f"path\n{folder / 'large.png'}\n")
    (picture,) = open_album(str(folder / "list.csv")).pictures()
    with pytest.raises(FileTooLargeError):
        picture.read()


def test_a_folder_that_cannot_be_listed_is_told_and_not_left_out(folder: Path) -> None:
    pictures = open_album(str(folder)).pictures()
    assert next(pictures).name == "a.JPG"
    shutil.rmtree(folder / "b")
    with pytest.raises(ValueError, match="the folder 'b/' cannot be listed"):
        list(pictures)


def test_a_folder_of_a_store_that_cannot_be_listed_is_told_too() -> None:
    store = fsspec.filesystem("memory")
    for name in ("a.png", "b/c/2.png", "b/1.png"):
        store.pipe_file(f"/albums/gone/{name}", b"x")
    names = [picture.name for picture in open_album("memory://albums/gone").pictures()]
    assert names == ["a.png", "b/1.png", "b/c/2.png"]
    pictures = open_album("memory://albums/gone").pictures()
    assert [next(pictures).name, next(pictures).name] == names[:2]
    store.rm("/albums/gone/b/c", recursive=True)
    with pytest.raises(ValueError, match="the folder 'b/c/' cannot be listed"):
        list(pictures)


@pytest.mark.parametrize("place", ["footer", "page"])
def test_a_parquet_that_is_damaged_inside_is_one_clear_error(tmp_path: Path, place: str) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": [bytes([row]) * 99 for row in range(200)]}), path)
    content = bytearray(path.read_bytes())
    if place == "footer":
        content[-40:-8] = b"\xff" * 32
    else:
        content[4:40] = b"\xff" * 36
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not a Parquet table that can be read"):
        list(open_album(str(path)).pictures())
