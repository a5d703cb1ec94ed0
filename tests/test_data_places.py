import zipfile

import pytest

from spine_ray.data.places import Place


@pytest.mark.parametrize(
    ("uri", "parent"),
    [
        ("/a/b/t.csv", "/a/b"),
        ("/t.csv", "/"),
        ("s3://bucket/t.csv", "s3://bucket"),
        ("s3://bucket/a/t.csv", "s3://bucket/a"),
        ("zip://a/t.csv::/b/c.zip", "zip://a::/b/c.zip"),
    ],
)
def test_parent_is_the_folder_that_holds_the_place(uri, parent):
    assert Place(uri=uri).parent == Place(uri=parent)


def test_relative_local_place_means_the_same_in_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = Place.of("pictures")
    monkeypatch.chdir("/")
    assert place.uri == str(tmp_path / "pictures")


@pytest.mark.parametrize("path", ["a/x.png", "./a/x.png", "b/../a/x.png", "/root/a/x.png", "/root/b/../a/x.png"])
def test_relative_cleans_paths_inside_the_folder(path):
    assert Place(uri="/root").relative(path) == "a/x.png"


@pytest.mark.parametrize(
    "path", ["../x.png", "a/../../x.png", "/rooted/x.png", "/root/../x.png", "/root", ".", "s3://other/x.png"]
)
def test_relative_refuses_paths_that_leave_the_folder(path):
    with pytest.raises(ValueError, match="leaves the data's folder /root"):
        Place(uri="/root").relative(path)


def test_relative_takes_the_uri_of_its_own_folder():
    assert Place(uri="memory://root").relative("memory://root/a/x.png") == "a/x.png"


def test_first_missing_names_the_first_absent_file(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    place = Place.of(str(tmp_path))
    assert place.first_missing(["a/x"]) is None
    assert place.first_missing(["a/x", "a/y", "b/z"]) == "a/y"
    assert place.first_missing(["a"]) == "a"


def test_read_reaches_into_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a/x", b"bytes")
    assert Place.of(f"zip://a::{tmp_path}/t.zip").read("x") == b"bytes"


def test_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="cannot open nowhere://x"):
        Place.of("nowhere://x").open()
