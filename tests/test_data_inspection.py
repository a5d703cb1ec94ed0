import hashlib
import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from spine_ray.data import inspection as module
from spine_ray.data import problems
from spine_ray.data.inspection import Inspection, inspect_source, short_sides
from spine_ray.data.places import FileTooLargeError
from spine_ray.data.rows import Row, Source


@dataclass
class ListReader:
    contents: list[bytes | Exception]

    def read(self, index, path):
        content = self.contents[index]
        if isinstance(content, Exception):
            raise content
        return content


def picture(kind: str, width: int = 40, height: int = 30) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format=kind)
    return buffer.getvalue()


def inspect(*contents: bytes | Exception) -> Inspection:
    rows = tuple(Row(path=f"row {index}", class_name=str(index % 2)) for index in range(len(contents) + 1))
    reader = ListReader([*contents, picture("PNG")])
    return inspect_source(Source(name="x", kind="parquet", rows=rows, reader=reader))


def test_look_tells_content_and_size():
    content = picture("PNG", 40, 30)
    found = inspect(content, picture("JPEG", 20, 50))
    assert found.looks[0].digest == hashlib.sha256(content).hexdigest()[:16]
    assert [look.size for look in found.looks] == [(40, 30), (20, 50), (40, 30)]
    assert found.readable == (0, 1, 2)
    assert short_sides(found).tolist() == [30, 20, 30]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_picture_is_a_problem(kind):
    whole = picture(kind)
    found = inspect(whole[: len(whole) // 2], whole)
    assert found.looks[0].problem == problems.DAMAGED
    assert found.readable == (1, 2)


def test_flipped_bits_in_a_png_are_a_problem():
    broken = bytearray(picture("PNG"))
    broken[200] ^= 0xFF
    assert inspect(bytes(broken)).looks[0].problem == problems.DAMAGED


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", problems.NO_BYTES),
        (b"not a picture", problems.NOT_A_PICTURE),
        (FileNotFoundError("gone"), problems.NOT_OPENED),
        (PermissionError("closed"), problems.NOT_OPENED),
    ],
)
def test_unreadable_row_has_its_problem(content, problem):
    found = inspect(content)
    assert found.looks[0].problem == problem
    assert found.looks[0].size == (0, 0)
    assert found.readable == (1,)


def test_a_file_that_is_too_large_is_a_problem():
    assert inspect(FileTooLargeError("x")).looks[0].problem == problems.TOO_MANY_BYTES


def test_only_a_file_of_several_frames_has_more():
    frames = [Image.new("L", (40, 40), value) for value in (0, 99, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    found = inspect(buffer.getvalue(), picture("GIF"), picture("TIFF"), picture("JPEG"))
    assert [look.has_more_frames for look in found.looks] == [True, False, False, False, False]


def test_failing_storage_is_no_property_of_a_picture():
    with pytest.raises(OSError, match="timed out"):
        inspect(OSError("timed out"))


def test_batches_keep_the_order_of_rows(monkeypatch):
    monkeypatch.setattr(module, "BATCH_ROWS", 3)
    found = inspect(*(picture("PNG", 10 + index, 10) for index in range(10)))
    assert [look.size[0] for look in found.looks] == [*range(10, 20), 40]
