import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from spine_ray.data.sources import open_source


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 3), value).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data/in").mkdir(parents=True)
    for name in "abc":
        (tmp_path / f"data/in/{name}.png").write_bytes(png(ord(name)))
    return tmp_path / "data"


def csv_of(folder, text):
    (folder / "t.csv").write_text(text)
    return open_source(str(folder / "t.csv"))


def parquet_of(folder, columns, metadata=None):
    table = pa.table(columns).replace_schema_metadata(metadata)
    pq.write_table(table, folder / "t.parquet")
    return open_source(str(folder / "t.parquet"))


def test_csv_paths_are_relative_to_its_folder(folder):
    source = csv_of(folder, f"label,path\ny,in/b.png\nx,{folder}/in/a.png\n")
    assert [(row.class_name, row.path) for row in source.rows] == [("y", "in/b.png"), ("x", "in/a.png")]
    assert source.read(0) == png(ord("b"))


def test_paths_outside_the_folder_are_read_where_asked_for(folder):
    (folder.parent / "d.png").write_bytes(png(9))
    (folder / "t.csv").write_text(f"path,label\nin/a.png,x\n../d.png,y\n{folder.parent}/d.png,z\n")
    source = open_source(str(folder / "t.csv"), folder.parent)
    assert [row.path for row in source.rows] == ["in/a.png", "../d.png", "../d.png"]
    assert source.read(1) == source.read(2) == png(9)


def test_link_that_leaves_the_folder_is_refused_with_its_row(folder):
    (folder.parent / "d.png").write_bytes(png(9))
    (folder / "in/d.png").symlink_to("../../d.png")
    with pytest.raises(ValueError, match=r"row 1: 'in/d\.png' is a link that leaves the data's folder: .*--data-root"):
        csv_of(folder, "path,label\nin/a.png,x\nin/d.png,y\n")


def test_strange_class_names_are_names(folder):
    names = ["../../etc", "a/b", "x" * 300, "<script>", "new\nline", "\x1b[2J", "\u202egnp.tac", "🐈", "..", "."]
    columns = {"path": ["in/a.png"] * len(names), "label": names}
    assert parquet_of(folder, columns).classes == tuple(sorted(names))


def test_a_label_that_is_a_page_of_text_is_refused(folder):
    with pytest.raises(ValueError, match=r"a class name of 5000 characters \(at most 4096\): 'xxx"):
        parquet_of(folder, {"path": ["in/a.png"], "label": ["x" * 5000]})


def test_csv_column_image_holds_paths_too(folder):
    assert csv_of(folder, "image,label\nin/a.png,x\nin/b.png,y\n").read(1) == png(ord("b"))


def test_csv_labels_stay_as_they_are_spelt(folder):
    source = csv_of(folder, "path,label\nin/a.png,NA\nin/b.png,007\n\n")
    assert source.classes == ("007", "NA")


def test_csv_of_a_spreadsheet_may_begin_with_a_byte_order_mark(folder):
    assert len(csv_of(folder, "\ufeffpath,label\nin/a.png,x\nin/b.png,y\n").rows) == 2


def test_optional_columns_are_read(folder):
    text = "path,label,group,split,fold\nin/a.png,x,p,train,3\nin/b.png,y,,dev,0\nin/c.png,y,p,test,\n"
    rows = csv_of(folder, text).rows
    assert [(row.group, row.split, row.fold) for row in rows] == [
        ("p", "dev", 3),
        (None, "dev", 0),
        ("p", "test", None),
    ]


def test_parquet_spells_whole_numbers_like_csv(folder):
    columns = {
        "path": ["in/a.png", "in/b.png", "in/c.png"],
        "label": [10, 2, 2],
        "group": pa.array([1.0, None, 3.0]),
        "split": ["train", "dev", "test"],
        "fold": pa.array([1, 0, -1], type=pa.int8()),
    }
    text = "path,label,group,split,fold\nin/a.png,10,1,train,1\nin/b.png,2,,dev,0\nin/c.png,2,3,test,-1\n"
    assert parquet_of(folder, columns).rows == csv_of(folder, text).rows


def test_parquet_bytes_are_read_by_row(folder):
    source = parquet_of(folder, {"image": [png(1), png(2)], "label": ["x", "y"]})
    assert [row.path for row in source.rows] == ["row 0", "row 1"]
    assert source.read(1) == png(2)


def test_parquet_reader_is_small_when_pickled_and_reads_again(folder):
    source = parquet_of(folder, {"image": [png(1) + bytes(100_000), png(2)], "label": ["x", "y"]})
    assert source.read(1) == png(2)
    pickled = pickle.dumps(source)
    assert len(pickled) < 5_000
    assert pickle.loads(pickled).read(1) == png(2)


def test_struct_without_bytes_reads_as_none_at_all(folder):
    images = [{"bytes": png(1), "path": "a"}, {"bytes": None, "path": "b"}, None]
    source = parquet_of(folder, {"image": images, "label": ["x", "y", "y"]})
    assert [source.read(index) for index in range(3)] == [png(1), b"", b""]


def test_hugging_face_class_names_replace_numbers(folder):
    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    columns = {"image": [png(1), png(2)], "label": [1, 0]}
    source = parquet_of(folder, columns, {"huggingface": json.dumps(info)})
    assert [row.class_name for row in source.rows] == ["dog", "cat"]
    columns["label"] = [1, -1]
    with pytest.raises(ValueError, match="label -1 is none of the 2 classes"):
        parquet_of(folder, columns, {"huggingface": json.dumps(info)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\nin/a.png,x\n", r"no column `label` \(its columns: path, class\)"),
        ("file,label\nin/a.png,x\n", r"no column `path` or `image` \(its columns: file, label\)"),
        ("", r"no column `label` \(its columns: none\)"),
        ("path,path,label\n", "two columns of one name"),
        ("path,label\n", "holds no rows"),
        ("path,label\nin/a.png,x\nin/b.png,x\n", "only one class, 'x'"),
        ("path,label\nin/a.png,x\nin/b.png\n", "row 1: 1 values for 2 columns"),
        ("path,label\nin/a.png,x\nin/b.png,\n", "row 1: it has no label"),
        ("path,label\nin/a.png,x\n,y\n", "row 1: it has no path"),
        ("path,label\nin/a.png,x\nin/z.png,y\n", r"row 1: there is no file 'in/z\.png' in /"),
        ("path,label\n../a.png,x\n", r"row 0: the path '\.\./a\.png' leaves the data's folder"),
        ("path,label\n/etc/passwd,x\n", "row 0: the path '/etc/passwd' leaves the data's folder"),
        ("path,label,split\nin/a.png,x,val\n", "row 0: split must be one of train, dev, test, not 'val'"),
        ("path,label,split\nin/a.png,x,\n", "row 0: split must be one of train, dev, test, not ''"),
        ("path,label,fold\nin/a.png,x,0\nin/b.png,y,\n", "row 1: it has no fold"),
        ("path,label,fold\nin/a.png,x,one\n", "row 0: fold must be a whole number of at least 0, not 'one'"),
        (f"path,label,fold\nin/a.png,x,{2**63}\n", "row 0: fold must be a whole number of at least 0, not '92233"),
        (f"path,label,fold\nin/a.png,x,{'9' * 5000}\n", "row 0: fold must be a whole number of at least 0, not '99999"),
        ("path,label,split,fold\nin/a.png,x,test,1\n", "row 0: it is in the test split and has fold 1"),
    ],
)
def test_bad_csv_is_refused_in_one_line(folder, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        csv_of(folder, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "class": ["a"]}, r"no column `label` \(its columns: image, class\)"),
        ({"image": [1, 2], "label": ["a", "b"]}, "`image` must hold bytes, {bytes, path} or paths, not int64"),
        ({"path": ["in/a.png", None], "label": ["a", "b"]}, "row 1: it has no path"),
        ({"path": ["in/a.png", "in/b.png"], "label": ["a", None]}, "row 1: it has no label"),
        ({"path": ["in/a.png", "in/b.png"], "label": [[1], [2]]}, r"row 0: .* text or whole numbers, not \[1\]"),
    ],
)
def test_bad_parquet_is_refused(folder, columns, message):
    with pytest.raises(ValueError, match=message):
        parquet_of(folder, columns)


def test_files_that_are_not_what_their_names_say_are_refused(folder):
    (folder / "t.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(ValueError, match="not a Parquet table"):
        open_source(str(folder / "t.parquet"))
    (folder / "t.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(ValueError, match="not a CSV in UTF-8"):
        open_source(str(folder / "t.csv"))


@pytest.mark.parametrize(
    "kept", ["{", "null", "[]", '{"info": null}', '{"info": {"features": {"label": {"names": [7]}}}}']
)
def test_what_a_schema_keeps_in_another_form_is_no_class_name(folder, kept):
    columns = {"path": ["in/a.png", "in/b.png"], "label": [0, 1]}
    assert parquet_of(folder, columns, {"huggingface": kept}).classes == ("0", "1")


def test_a_column_of_pictures_that_is_damaged_is_refused_when_it_is_read(folder):
    parquet_of(folder, {"image": [png(1) * 50, png(2) * 50], "label": ["x", "y"]})
    content = bytearray((folder / "t.parquet").read_bytes())
    content[4:24] = bytes(20)
    (folder / "t.parquet").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.parquet is not a Parquet table that can be read: "):
        open_source(str(folder / "t.parquet")).read(0)
