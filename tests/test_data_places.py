import zipfile

import fsspec
import pytest

from spine_ray.data.places import FileTooLargeError, Place


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
    (tmp_path / "loop").symlink_to("loop")
    for path in ("x" * 300 + "/y", "loop/x", "a/x/y"):
        assert place.first_missing([path]) == path


def test_read_reaches_into_an_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a/x", b"bytes")
    assert Place.of(f"zip://a::{tmp_path}/t.zip").read("x") == b"bytes"


@pytest.mark.parametrize(
    ("path", "found"),
    [("../x.png", "../x.png"), ("/data/x.png", "../x.png"), ("a/../../b/x.png", "../b/x.png"), ("a.png", "a.png")],
)
def test_relative_takes_paths_inside_the_root_that_was_asked_for(path, found):
    assert Place(uri="/data/tables").relative(path, Place(uri="/data")) == found


@pytest.mark.parametrize("path", ["../../x.png", "/database/x.png", "/data", "s3://data/x.png"])
def test_relative_refuses_paths_that_leave_the_root(path):
    with pytest.raises(ValueError, match="leaves --data-root /data: only paths inside it are read"):
        Place(uri="/data/tables").relative(path, Place(uri="/data"))


def test_links_that_lead_out_are_found(tmp_path):
    (tmp_path / "root/in").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for name in ("root/in/x", "outside/y"):
        (tmp_path / name).touch()
    (tmp_path / "root/file").symlink_to("../outside/y")
    (tmp_path / "root/folder").symlink_to("../outside")
    (tmp_path / "root/inside").symlink_to("in/x")
    place = Place.of(str(tmp_path / "root"))
    assert place.first_leaving(["in/x", "inside"]) is None
    assert place.first_leaving(["in/x", "file"]) == "file"
    assert place.first_leaving(["folder/y"]) == "folder/y"
    assert place.first_leaving(["file", "folder/y"], Place.of(str(tmp_path))) is None
    assert Place(uri="memory://root").first_leaving(["a"]) is None


@pytest.mark.parametrize("name", ["a.png", "b c#1?.png", "ü/é.png", "deep/er/x", "~/x", "100%25.png"])
def test_a_local_file_is_read_as_fsspec_reads_it(tmp_path, name):
    content = name.encode() * 100
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(content)
    for uri in (f"{tmp_path}", f"{tmp_path}/", f"file://{tmp_path}"):
        assert Place(uri=uri).read(name) == content


@pytest.mark.parametrize(("name", "error"), [("missing", FileNotFoundError), ("folder", IsADirectoryError)])
def test_what_is_no_local_file_is_no_file_to_fsspec_either(tmp_path, name, error):
    (tmp_path / "folder").mkdir()
    for uri in (f"{tmp_path}", f"file://{tmp_path}"):
        with pytest.raises(error):
            Place(uri=uri).read(name)


def test_the_root_of_a_machine_is_a_place(tmp_path):
    (tmp_path / "x").write_bytes(b"bytes")
    assert Place.of("/").read(str(tmp_path / "x")[1:]) == b"bytes"


@pytest.mark.parametrize("kind", ["local", "archive", "memory"])
def test_no_more_is_read_than_a_picture_may_have(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("spine_ray.data.places.MAX_BYTES", 1000)
    (tmp_path / "x").write_bytes(b"0" * 1001)
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "x", "x")
    fsspec.filesystem("memory").pipe("/large/x", b"0" * 1001)
    uri = {"local": str(tmp_path), "archive": f"zip://::{tmp_path}/t.zip", "memory": "memory://large"}[kind]
    with pytest.raises(FileTooLargeError, match=r"x in .* has more than 1000 bytes"):
        Place.of(uri).read("x")
    monkeypatch.setattr("spine_ray.data.places.MAX_BYTES", 1001)
    assert Place.of(uri).read("x") == b"0" * 1001


def test_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="cannot open nowhere://x"):
        Place.of("nowhere://x").open()


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive_is_refused(kind, tmp_path):
    (tmp_path / "x").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=rf"cannot open {kind}://::"):
        Place.of(f"{kind}://::{tmp_path}/x").open()


def test_an_object_store_needs_no_package_of_its_own(object_store, tmp_path):
    place = Place(uri=f"s3://{object_store.make_bucket()}/pictures")
    fs, root = place.open()
    fs.pipe_file(f"{root}/cat/1.png", b"one")
    fs.pipe_file(f"{root}/dog/2.png", b"two")
    assert sorted(path[len(root) :] for path in fs.find(root)) == ["/cat/1.png", "/dog/2.png"]
    assert place.read("cat/1.png") == b"one"
    assert place.first_missing(["cat/1.png", "dog/3.png"]) == "dog/3.png"


def test_a_file_in_an_object_store_is_read_no_further_than_a_picture_goes(object_store, monkeypatch):
    place = Place(uri=f"s3://{object_store.make_bucket()}/pictures")
    fs, root = place.open()
    fs.pipe_file(f"{root}/1.png", bytes(20))
    monkeypatch.setattr("spine_ray.data.places.MAX_BYTES", 10)
    with pytest.raises(FileTooLargeError, match="more than 10 bytes"):
        place.read("1.png")


def test_a_store_that_nothing_opens_is_named():
    with pytest.raises(ValueError, match="cannot open nosuch://bucket"):
        Place(uri="nosuch://bucket/pictures").open()
