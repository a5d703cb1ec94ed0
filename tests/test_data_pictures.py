import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from spine_ray.core.pixels import decode
from spine_ray.data.pictures import UnsafePictureError, open_picture

ROOT = Path(__file__).parents[1]
LOOK = """
import resource, sys
from spine_ray.data.inspection import inspect_source
from spine_ray.data.sources import open_source
import PIL.Image; PIL.Image.init()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
inspection = inspect_source(open_source(sys.argv[1]))
for row, look in zip(inspection.source.rows, inspection.looks):
    print(row.path, look.problem)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
"""A process that looks at a folder and says by how much its memory grew at most, kB."""


def encoded(kind: str, size: tuple[int, int], **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size, 7).save(buffer, format=kind, **options)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header says so many pixels, and whose data holds a few."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header says so many pixels."""
    content = bytearray(encoded("JPEG", (16, 16)))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


BOMBS = {
    "png": png_of(50_000, 50_000),
    "png of 2**31": png_of(2**31 - 1, 2**31 - 1),
    "jpeg": jpeg_of(50_000, 50_000),
    "gif": encoded("GIF", (16, 16)).replace(struct.pack("<HH", 16, 16), struct.pack("<HH", 50_000, 50_000), 1),
    "ppm": b"P6 50000 50000 255 ",
    "bmp": encoded("BMP", (16, 16)).replace(struct.pack("<ii", 16, 16), struct.pack("<ii", 50_000, 50_000), 1),
    "just too many pixels": png_of(10_000, 8_948),
    "a side too long": png_of(30_001, 2_000),
    "a thread": encoded("PNG", (29_000, 3)),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS.keys())
def test_what_would_take_too_much_memory_is_refused_by_its_header(content):
    with pytest.raises(UnsafePictureError):
        open_picture(content)


@pytest.mark.parametrize("size", [(9_999, 8_948), (30_000, 470), (64, 1), (1, 64), (1, 1)])
def test_what_is_large_and_safe_is_opened(size):
    assert open_picture(png_of(*size)).size == size


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PCX", "PDF", "SGI"])
def test_formats_that_no_data_set_needs_are_not_opened(kind):
    with pytest.raises(UnidentifiedImageError):
        open_picture(encoded(kind, (16, 16)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA", "JPEG2000", "AVIF"])
def test_formats_of_pictures_are_opened(kind):
    assert open_picture(encoded(kind, (16, 16))).format == kind


def test_training_opens_pictures_by_the_same_rule():
    with pytest.raises(UnsafePictureError):
        decode(BOMBS["a thread"], 32)


@pytest.mark.timeout(120)
def test_bombs_among_pictures_are_problems_and_take_no_memory(tmp_path):
    for place, content in enumerate(BOMBS.values()):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / f"a/{place}.png").write_bytes(content)
    (tmp_path / "b").mkdir()
    (tmp_path / "b/good.png").write_bytes(encoded("PNG", (40, 40)))
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    )
    *problems, grown = done.stdout.splitlines()
    bad = [f"a/{place}.png too many pixels, or too long a side, to decode safely" for place in range(len(BOMBS))]
    assert problems == [*bad, "b/good.png None"]
    assert int(grown) < 100_000, f"{grown} kB more"
    assert done.stderr == ""
