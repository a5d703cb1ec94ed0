from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.data.albums import listed_album, open_album


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
