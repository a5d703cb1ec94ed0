import hashlib
import io
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from spine_ray.data import inspection as module
from spine_ray.data import problems
from spine_ray.data.inspection import Inspection, inspect_source, short_sides
from spine_ray.data.pictures import open_picture
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


def png(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def small_pngs() -> dict[str, bytes]:
    """PNGs of several kinds, each of few bytes."""
    rng = np.random.default_rng(1)
    colours = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (6, 5), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    text = PngInfo()
    text.add_text("title", "a picture")
    text.add_itxt("title", "another", zip=True)
    frames = [Image.fromarray(rng.integers(0, 256, (6, 5, 4), dtype=np.uint8)) for _ in range(3)]
    return {
        "colours": png(colours),
        "several chunks of pixels": split_pixels(png(colours, compress_level=0)),
        "palette": png(colours.quantize(8), transparency=bytes(range(0, 256, 32))),
        "16 bits": png(deep),
        "rotated": png(colours, exif=exif),
        "text": png(colours, pnginfo=text),
        "animated": png(frames[0], save_all=True, append_images=frames[1:]),
        "animated behind a still picture": png(frames[0], save_all=True, append_images=frames[1:], default_image=True),
    }


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def split_pixels(content: bytes) -> bytes:
    """Return the PNG with its one chunk of pixels as several, one of them empty."""
    start = content.index(b"IDAT") - 4
    length = int.from_bytes(content[start : start + 4], "big")
    pixels = content[start + 8 : start + 8 + length]
    parts = (pixels[:20], b"", pixels[20:21], pixels[21:])
    return content[:start] + b"".join(chunk(b"IDAT", part) for part in parts) + content[start + length + 12 :]


def as_pillow_verifies(content: bytes) -> tuple[str | None, tuple[int, int]]:
    """Return the problem and the size of a picture that is opened twice: to be verified, and to be decoded."""
    try:
        open_picture(content).verify()
        with open_picture(content) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened)
    except Exception as error:
        return problems.problem_of(error), (0, 0)
    return None, upright.size


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", small_pngs())
def test_a_damaged_png_is_found_as_by_verifying_it_first(kind):
    whole = small_pngs()[kind]
    broken = [whole]
    for position in range(8, len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        broken += [bytes(changed), whole[:position]]
    looks = inspect(*broken).looks[: len(broken)]
    assert [(look.problem, look.size) for look in looks] == list(map(as_pillow_verifies, broken))
    assert looks[0].problem is None
    assert sum(look.problem is not None for look in looks) > 0.9 * len(looks)


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
