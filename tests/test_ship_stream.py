"""The stream of pictures, with a committee of real models."""

import io
import os
import resource
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from spine_ray.climb.artefact import study_artefact, with_cascade
from spine_ray.climb.pick import open_stored
from spine_ray.data.albums import Picture, open_album
from spine_ray.data.problems import DAMAGED, NO_BYTES, NOT_A_PICTURE, NOT_OPENED, TOO_LARGE
from spine_ray.ship.committee import Committee
from spine_ray.ship.stream import Pace, Predictions, predictions
from spine_ray.ship.table import open_table

PACE = Pace(block=16, computing=2, threads=1, decoding=2)


@pytest.fixture(scope="module")
def artefact(shipped_study):
    study = open_stored(shipped_study.root)
    return with_cascade(study, study_artefact(study)[0])


@pytest.fixture(scope="module")
def committee(shipped_study, artefact):
    tensors = study_artefact(open_stored(shipped_study.root))[1]
    return Committee(artefact, tensors, torch.device("cpu"), 16)


def png(seed: int = 0, side: int = 20) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def gather(pictures, artefact, committee, pace: Pace = PACE, answer=None) -> Predictions:
    blocks = list(predictions(pictures, artefact.stored_side, committee, answer or committee.say, pace))
    return Predictions(
        sum((block.names for block in blocks), ()),
        sum((block.problems for block in blocks), ()),
        *(np.concatenate([getattr(block, name) for block in blocks]) for name in ("log_probs", "disagreement", "seen")),
    )


def test_it_says_what_the_search_measured_in_the_order_of_the_pictures(shipped_study, artefact, committee) -> None:
    found = gather(open_album(str(shipped_study.pictures)).pictures(), artefact, committee)
    assert list(found.names) == sorted(shipped_study.names, key=lambda name: (name.split("/")[0], name))
    order = [found.names.index(name) for name in shipped_study.names]
    np.testing.assert_allclose(found.log_probs[order], shipped_study.log_probs, atol=1e-5)
    assert set(found.seen) == {4}
    assert (found.disagreement > 0).all()


def test_members_of_one_frozen_prefix_share_it(committee) -> None:
    assert committee.num_prefixes == 2  # one of two members, and that of the head alone
    assert committee.resolutions == (32, 48)


def test_a_shared_prefix_is_computed_once_a_block(shipped_study, artefact) -> None:
    committee = Committee(artefact, study_artefact(open_stored(shipped_study.root))[1], torch.device("cpu"), 16)
    calls = []
    for name, prefix in committee._prefixes.items():
        prefix.register_forward_hook(lambda *_, name=name: calls.append(name))
    gather((Picture(str(row), lambda: png()) for row in range(16)), artefact, committee)
    assert sorted(calls) == sorted(committee._prefixes)


def test_how_the_work_is_laid_out_changes_nothing_that_matters(shipped_study, artefact, committee) -> None:
    pictures = list(open_album(str(shipped_study.pictures)).pictures())
    one = gather(pictures, artefact, committee)
    other = gather(pictures, artefact, committee, Pace(block=7, computing=1, threads=1, decoding=1))
    assert one.names == other.names
    np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


def test_pictures_that_cannot_be_read_are_rows_with_an_error(artefact, committee) -> None:
    broken = bytearray(png())
    broken[60] ^= 255

    def missing() -> bytes:
        raise FileNotFoundError("gone")

    def refused() -> bytes:
        raise OSError("the storage\nis away")

    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    contents = {
        "fine": png, "empty": lambda: b"", "text": lambda: b"text", "cut": lambda: png()[:80],
        "checksum": lambda: bytes(broken), "missing": missing, "refused": refused, "large": buffer.getvalue,
    }  # fmt: skip
    found = gather([Picture(name, read) for name, read in contents.items()], artefact, committee)
    assert dict(zip(found.names, found.problems, strict=True)) == {
        "fine": "", "empty": NO_BYTES, "text": NOT_A_PICTURE, "cut": DAMAGED, "checksum": DAMAGED,
        "missing": NOT_OPENED, "refused": "cannot be read: the storage is away", "large": TOO_LARGE,
    }  # fmt: skip
    assert np.isfinite(found.log_probs[0]).all()
    assert np.isnan(found.log_probs[1:]).all()
    assert found.is_known.tolist() == [True] + 7 * [False]


def test_damaged_members_of_a_zip_are_rows_with_an_error(tmp_path, artefact, committee) -> None:
    path = tmp_path / "pictures.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("checksum", "encrypted", "fine"):
            archive.writestr(f"{name}.png", png())
        archive.writestr("packed.png", bytes(5000), zipfile.ZIP_DEFLATED)
        infos = {info.filename.removesuffix(".png"): info for info in archive.infolist()}
    content = bytearray(path.read_bytes())
    begins = {name: info.header_offset + 30 + len(info.filename) for name, info in infos.items()}
    content[begins["checksum"] + 60] ^= 255
    content[begins["packed"]] = 0xFF  # a kind of block that there is not
    content[infos["encrypted"].header_offset + 6] |= 1
    content[content.index(b"encrypted.png", infos["packed"].header_offset) - 46 + 8] |= 1
    path.write_bytes(content)
    found = gather(open_album(f"zip://::{path}").pictures(), artefact, committee)
    told = dict(zip(found.names, found.problems, strict=True))
    assert told.pop("fine.png") == ""
    assert [told[f"{name}.png"].partition("'")[0] for name in ("checksum", "encrypted", "packed")] == [
        "cannot be read: Bad CRC-32 for file ",
        "cannot be read: File ",
        "cannot be read: Error -3 while decompressing data: invalid block type",
    ]


def test_a_picture_whose_reading_says_nothing_has_the_name_of_its_error(artefact, committee) -> None:
    def cut() -> bytes:
        raise EOFError

    assert gather([Picture("a", cut)], artefact, committee).problems == ("cannot be read: EOFError",)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_name_that_is_not_utf8_is_written_escaped(tmp_path, artefact, committee, suffix: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in (b"\xff.png", b"\xfe.png"):
        (folder / os.fsdecode(name)).write_bytes(png() if name[0] == 0xFF else b"")
    found = gather(open_album(str(folder)).pictures(), artefact, committee)
    assert found.names == ("\\udcfe.png", "\\udcff.png")
    assert found.problems == (NO_BYTES, "")
    with open_table(tmp_path / f"found.{suffix}", artefact.classes) as table:
        table.write(found)
    assert b"\\udcff.png" in (tmp_path / f"found.{suffix}").read_bytes()


def test_a_block_without_a_single_picture_has_its_rows(artefact, committee) -> None:
    found = gather([Picture("a", lambda: b"")] * 20, artefact, committee)
    assert found.log_probs.shape == (20, 10)


def test_torch_has_its_threads_back_afterwards(artefact, committee) -> None:
    before = torch.get_num_threads()
    gather([Picture("a", png)], artefact, committee, replace(PACE, threads=2))
    assert torch.get_num_threads() == before


def test_a_few_blocks_are_held_whatever_comes(artefact, committee) -> None:
    """Pictures are drawn from the source only as predictions leave: at most some blocks are ahead."""
    drawn, ahead = 0, []

    def pictures() -> Iterator[Picture]:
        nonlocal drawn
        for row in range(600):
            drawn += 1
            yield Picture(str(row), lambda: png(side=48))

    done = 0
    for block in predictions(pictures(), artefact.stored_side, committee, committee.say, PACE):
        done += len(block.names)
        ahead.append(drawn - done)
    assert done == 600
    assert max(ahead) <= (2 * PACE.computing + 1) * PACE.block


@pytest.mark.timeout(120)
def test_memory_does_not_grow_with_the_number_of_pictures(artefact, committee) -> None:
    content = png(side=48)

    def peak_after(rows: int) -> int:
        for _ in predictions(
            (Picture(str(row), lambda: content) for row in range(rows)), artefact.stored_side, committee, committee.say,
            PACE,
        ):  # fmt: skip
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first = peak_after(200)
    assert peak_after(1500) - first < 30_000  # kB; 1300 decoded pictures would be 15 MB, their views and logits more


def test_decoding_runs_beside_computing(artefact, committee) -> None:
    names = set()

    def read() -> bytes:
        names.add(threading.current_thread().name)
        return png()

    def answer(views):
        names.add(threading.current_thread().name)
        return committee.say(views)

    gather([Picture(str(row), read) for row in range(64)], artefact, committee, answer=answer)
    assert threading.current_thread().name not in names
    assert len(names) >= 3


def test_cheap_members_first_say_what_all_say_where_nobody_is_sure(artefact, committee) -> None:
    pictures = [Picture(str(row), lambda row=row: png(row)) for row in range(20)]
    never = replace(artefact.cascade, threshold=2.0)
    every = gather(pictures, artefact, committee)
    slowly = gather(pictures, artefact, committee, answer=lambda views: committee.say_cheap_first(views, never))
    np.testing.assert_allclose(slowly.log_probs, every.log_probs, atol=1e-5)
    np.testing.assert_allclose(slowly.disagreement, every.disagreement, atol=1e-5)
    assert set(slowly.seen) == {4}


def test_pictures_leave_the_cascade_where_its_members_are_sure(artefact, committee) -> None:
    pictures = [Picture(str(row), lambda row=row: png(row)) for row in range(40)]
    always = replace(artefact.cascade, threshold=0.0)
    first = gather(pictures, artefact, committee, answer=lambda views: committee.say_cheap_first(views, always))
    assert set(first.seen) == {1}
    np.testing.assert_allclose(first.disagreement, 0.0, atol=1e-9)
    middle = float(np.median(np.exp(first.log_probs.max(axis=1))))
    half = replace(artefact.cascade, threshold=middle)
    found = gather(pictures, artefact, committee, answer=lambda views: committee.say_cheap_first(views, half))
    assert {1} < set(found.seen)
    left = found.seen == 1
    np.testing.assert_allclose(found.log_probs[left], first.log_probs[left], atol=1e-5)
