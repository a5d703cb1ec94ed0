import io
import shutil
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spine_ray.core.cache import RESERVE, NoRoomError, evict
from spine_ray.core.pixels import build_pixels, damaged_pictures, decode, open_pixels, short_side

WIDTH, HEIGHT = 24, 16
GREY = np.linspace(0, 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
THREE_GREYS = np.repeat(GREY[:, :, None], 3, axis=2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path))
    return tmp_path


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(value, width=2, height=2):
    return encoded(Image.fromarray(np.full((height, width), value % 256, np.uint8)))


def with_alpha(pixels):
    return Image.fromarray(np.dstack([pixels, np.full((HEIGHT, WIDTH), 90, np.uint8)]))


def palette():
    """Sixteen colours, each with a transparency of its own."""
    return Image.fromarray(COLOUR).quantize(16)


def on_white(pixels, alpha):
    """Lay a picture on white; alpha is 0 (white shows) to 255."""
    share = np.broadcast_to(np.asarray(alpha) / 255, pixels.shape[:2])[:, :, None]
    return 255 + share * (pixels - 255.0)


def with_hole(pixels):
    """Make the colour of one pixel white wherever it is."""
    return np.where((pixels == pixels[3, 5]).all(axis=2, keepdims=True), 255, pixels)


INDEX = np.asarray(palette())
PALETTE = np.asarray(palette().convert("RGB"))
SIXTEEN_BITS = GREY.astype(np.uint16) * 256 + 77


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.fromarray(COLOUR)), COLOUR),
        (encoded(Image.fromarray(COLOUR), transparency=tuple(map(int, COLOUR[3, 5]))), with_hole(COLOUR)),
        (encoded(with_alpha(COLOUR)), on_white(COLOUR, 90)),
        (encoded(Image.fromarray(COLOUR), "WEBP", lossless=True), COLOUR),
        (encoded(Image.fromarray(GREY)), THREE_GREYS),
        (encoded(with_alpha(GREY)), on_white(THREE_GREYS, 90)),
        (encoded(Image.fromarray(GREY > 127)), (THREE_GREYS > 127) * 255),
        (encoded(palette()), np.asarray(palette().convert("RGB"))),
        (encoded(palette(), transparency=3), on_white(PALETTE, np.where(INDEX == 3, 0, 255))),
        (encoded(palette(), transparency=bytes(range(0, 256, 16))), on_white(PALETTE, INDEX * 16)),
        (encoded(Image.fromarray(SIXTEEN_BITS)), THREE_GREYS),
        (encoded(Image.fromarray(SIXTEEN_BITS), "TIFF"), THREE_GREYS),
        (encoded(Image.fromarray(SIXTEEN_BITS.astype(np.int32)), "TIFF"), THREE_GREYS),
        (encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), THREE_GREYS),
        (encoded(Image.fromarray(COLOUR), "GIF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]),
         np.asarray(Image.fromarray(COLOUR).quantize(256).convert("RGB"))),
        (encoded(Image.fromarray(255 - np.dstack([COLOUR, np.full_like(GREY, 255)]), "CMYK"), "TIFF"), COLOUR),
    ],
    ids=[
        "png", "png transparent colour", "png alpha", "webp", "grey", "grey alpha", "1 bit", "palette",
        "palette transparent colour", "palette alpha", "png 16 bit", "tiff 16 bit", "tiff 32 bit", "tiff fractions",
        "first frame of a gif", "cmyk tiff",
    ],
)  # fmt: skip
def test_every_kind_of_lossless_picture_becomes_rgb(data, expected):
    decoded = decode(data, HEIGHT)
    assert decoded.dtype == np.uint8
    np.testing.assert_allclose(decoded, expected, atol=1)  # alpha is rounded


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY), THREE_GREYS),
        (Image.fromarray(COLOUR).convert("CMYK"), COLOUR),
    ],
    ids=["colour", "grey", "cmyk"],
)
def test_a_jpeg_becomes_rgb(picture, expected):
    decoded = decode(encoded(picture, "JPEG", quality=95, subsampling=0), HEIGHT)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 4


def test_the_inverted_inks_of_adobe_are_turned():
    data = encoded(Image.fromarray(COLOUR).convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert b"Adobe" in data, "such a file keeps 255 minus ink"
    assert np.abs(decode(data, HEIGHT).astype(int) - COLOUR).mean() < 4


# What a viewer does to the stored picture for each orientation, by the EXIF standard.
TURNS = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored.swapaxes(0, 1)[::-1, ::-1],
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_its_exif_says(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(Image.fromarray(COLOUR), exif=exif), HEIGHT)
    np.testing.assert_array_equal(decoded, TURNS[orientation](COLOUR))


@pytest.mark.parametrize(("width", "height"), [(30, 10), (10, 30), (7, 9), (100, 63), (21, 21), (1, 1), (400, 399)])
def test_the_short_side_is_as_asked_and_the_aspect_is_kept(width, height):
    decoded = decode(flat(9, width, height), 21)
    short, long = sorted(decoded.shape[:2])
    assert short == 21
    assert abs(long - 21 * max(width, height) / min(width, height)) <= 0.5
    assert (decoded.shape[1] > decoded.shape[0]) == (long > short and width > height)


def test_a_large_jpeg_is_decoded_as_if_in_full():
    rows, columns = np.mgrid[0:800, 0:1200]
    pixels = np.stack([columns / 1200, rows / 800, (columns + rows) / 2000], axis=-1)
    picture = Image.fromarray((255 * pixels).astype(np.uint8))
    decoded = decode(encoded(picture, "JPEG", quality=95), 100).astype(int)
    expected = np.asarray(picture.resize((150, 100), Image.Resampling.BOX)).astype(int)
    assert np.abs(decoded - expected).mean() < 3


@pytest.mark.parametrize(("resolution", "side"), [(10, 13), (32, 42), (100, 130), (224, 292), (384, 500)])
def test_the_stored_short_side_is_the_resolution_and_three_tenths_rounded_up(resolution, side):
    assert short_side(resolution) == side


def test_pictures_of_all_shapes_come_back_in_their_rows(cache):
    rows = 300  # more than are decoded at once
    shapes = [(2 + row % 5, 2 + row % 3) for row in range(rows)]
    folder = build_pixels(lambda row: flat(row, *shapes[row]), [str(row) for row in range(rows)], 3).folder
    pixels = open_pixels(folder)
    for row, shape in enumerate(shapes):
        picture = pixels.picture(row)
        np.testing.assert_array_equal(picture, decode(flat(row, *shape), 3))
    assert not pixels.pixels.flags.writeable


def test_a_pixel_file_is_built_once_whoever_asks(cache):
    reads = []

    def read(row):
        reads.append(row)
        return flat(row)

    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda _: build_pixels(read, ["a", "b", "c"], 8).folder, range(4)))
    assert len(set(folders)) == 1
    assert build_pixels(read, ["a", "b", "c"], 8).folder == folders[0]
    assert sorted(reads) == [0, 1, 2]
    assert folders[0].is_relative_to(cache)


def test_other_pictures_another_order_or_another_size_are_another_pixel_file(cache):
    contents = [(["a", "b"], 8), (["a", "c"], 8), (["b", "a"], 8), (["a"], 8), (["a", "b"], 9)]
    assert len({build_pixels(flat, content, side).folder for content, side in contents}) == len(contents)


def test_progress_counts_to_the_end(cache):
    seen = []
    build_pixels(flat, [str(row) for row in range(300)], 2, progress=lambda done, rows: seen.append((done, rows)))
    assert seen == [(row + 1, 300) for row in range(300)]


def test_a_build_that_failed_leaves_nothing_that_is_taken_for_whole(cache):
    def broken(row):
        if row == 2:
            raise OSError("the disk is gone")
        return flat(row)

    names = ["a", "b", "c"]
    with pytest.raises(OSError, match="the disk is gone"):
        build_pixels(broken, names, 8)
    pixels = build_pixels(flat, names, 8)
    assert [int(pixels.picture(row)[0, 0, 0]) for row in range(3)] == [0, 1, 2]


def test_what_a_killed_build_left_is_cleared_away(cache):
    folder = build_pixels(flat, ["a", "b"], 8).folder
    whole = (folder / "pixels.bin").read_bytes()
    shutil.move(folder, folder.with_name(f"{folder.name}.part"))
    (folder.with_name(f"{folder.name}.part") / "pixels.bin").write_bytes(whole[:50])
    assert build_pixels(flat, ["a", "b"], 8).folder == folder
    assert (folder / "pixels.bin").read_bytes() == whole
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == [folder.name]


BUILDER = """
import io, sys
import numpy as np
from PIL import Image
from spine_ray.core.pixels import build_pixels

rows, stop = map(int, sys.argv[1:])

def read(row):
    if row == stop:
        print("stopped", flush=True)
        sys.stdin.read()
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2), row % 256, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()

def progress(done, rows):
    if done == rows:
        print("written", flush=True)

build_pixels(read, [str(row) for row in range(rows)], 3, progress=progress)
"""


def builder(rows, stop):
    """Start a process that builds the pixel file of `flat` for some rows, and stops at one of them."""
    command = [sys.executable, "-c", BUILDER, str(rows), str(stop)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def folders(cache):
    return [path for path in (cache / "pixels").iterdir() if path.is_dir()]


@pytest.mark.parametrize("stop", [0, 100, 256, 599, 600])
def test_a_builder_killed_at_any_moment_leaves_nothing_that_a_reader_accepts(cache, stop):
    names = [str(row) for row in range(600)]
    with builder(600, stop) as process:
        process.stdout.readline()
        process.kill()
    if stop < 600:  # else it may just have ended
        assert [folder.suffix for folder in folders(cache)] == [".part"]
        with pytest.raises(ValueError, match="no whole pixel file"):
            open_pixels(folders(cache)[0])
    folder = build_pixels(flat, names, 3).folder
    assert folders(cache) == [folder]
    pixels = open_pixels(folder)
    assert [int(pixels.picture(row)[0, 0, 0]) for row in range(600)] == [row % 256 for row in range(600)]


def test_an_open_pixel_file_is_never_evicted(cache):
    with builder(2, 2) as process:
        process.communicate()
    (folder,) = folders(cache)
    pixels = open_pixels(folder)
    evict(0)
    assert folders(cache) == [folder]
    assert int(pixels.picture(1)[0, 0, 0]) == 1


def test_old_pixel_files_go_when_another_is_built(cache, monkeypatch):
    with builder(2, 2) as process:
        process.communicate()
    (old,) = folders(cache)
    monkeypatch.setenv("SPINE_RAY_CACHE_GB", "2e-6")
    new = build_pixels(flat, ["a", "b"], 8)
    assert set(folders(cache)) == {old, new.folder}, "2,000 bytes are room for the old file"
    monkeypatch.setenv("SPINE_RAY_CACHE_GB", "1e-9")
    newer = build_pixels(flat, ["c", "d"], 8)
    assert set(folders(cache)) == {new.folder, newer.folder}, "an open file stays"


def test_a_pixel_file_that_nobody_has_open_any_more_goes_too(cache, monkeypatch):
    monkeypatch.setenv("SPINE_RAY_CACHE_GB", "1e-9")
    closed = build_pixels(flat, ["a", "b"], 8).folder
    assert folders(cache) == [closed]
    newer = build_pixels(flat, ["c", "d"], 8)
    assert folders(cache) == [newer.folder]


Usage = namedtuple("Usage", "total used free")


def test_pictures_that_do_not_fit_are_refused_after_a_moment(cache, monkeypatch):
    reads = []

    def read(row):
        reads.append(row)
        return flat(row)

    needed = 344 * 8 * 8 * 3
    names = [str(row) for row in range(600)]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * RESERVE, 0, RESERVE + needed - 1))
    with pytest.raises(NoRoomError, match="set SPINE_RAY_CACHE to a folder on another disk"):
        build_pixels(read, names, 8)
    assert sorted(reads) == list(range(256))
    assert folders(cache) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * RESERVE, 0, RESERVE + needed))
    build_pixels(read, names, 8)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_fills_up_is_said_and_nothing_is_left(cache):
    def read(row):
        (part,) = folders(cache)
        (part / "index.npz").symlink_to("/dev/full")
        return flat(row)

    with pytest.raises(NoRoomError, match=r"more is needed, but .* set SPINE_RAY_CACHE") as refusal:
        build_pixels(read, ["a"], 8)
    assert "\n" not in str(refusal.value)
    assert folders(cache) == []


def cut_pixels(folder: Path):
    (folder / "pixels.bin").write_bytes((folder / "pixels.bin").read_bytes()[:-1])


def cut_index(folder: Path):
    (folder / "index.npz").write_bytes((folder / "index.npz").read_bytes()[:100])


def fill_index_with_text(folder: Path):
    (folder / "index.npz").write_text("not an index")


@pytest.mark.parametrize(
    "damage",
    [
        cut_pixels,
        cut_index,
        fill_index_with_text,
        lambda folder: (folder / "pixels.bin").unlink(),
        lambda folder: (folder / "index.npz").unlink(),
        lambda folder: np.savez(folder / "index.npz", offsets=np.zeros(2, np.int64)),
        shutil.rmtree,
    ],
    ids=[
        "pixels cut",
        "index cut",
        "index is text",
        "no pixels",
        "no index",
        "index lacks a part",
        "no folder",
    ],
)
def test_a_damaged_pixel_file_is_refused_in_one_line(cache, damage):
    folder = build_pixels(flat, ["a", "b"], 8).folder
    damage(folder)
    with pytest.raises(ValueError, match="delete the folder to rebuild it") as refusal:
        open_pixels(folder)
    assert "\n" not in str(refusal.value)


def flip_a_byte(folder: Path):
    content = bytearray((folder / "pixels.bin").read_bytes())
    content[200] ^= 1
    (folder / "pixels.bin").write_bytes(content)


@pytest.mark.parametrize("damage", [cut_pixels, cut_index, fill_index_with_text, flip_a_byte])
def test_a_damaged_pixel_file_is_decoded_anew_before_it_is_used(cache, damage, caplog):
    before = build_pixels(flat, ["a", "b"], 8)
    whole = (before.folder / "pixels.bin").read_bytes()
    damage(before.folder)
    again = build_pixels(flat, ["a", "b"], 8)
    assert (again.folder / "pixels.bin").read_bytes() == whole
    assert damaged_pictures(again) == []
    (told,) = caplog.messages
    assert str(before.folder) in told
    assert told.endswith("; they are decoded anew")
    assert "\n" not in told


def test_the_damaged_picture_is_found(cache):
    pixels = build_pixels(flat, ["a", "b", "c"], 8)
    flip_a_byte(pixels.folder)
    assert damaged_pictures(open_pixels(pixels.folder)) == [1], "a picture takes 192 bytes"
