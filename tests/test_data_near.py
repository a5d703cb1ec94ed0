import io
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from benchmarks.copies import ALTERED, half, jpeg, pieces, source_of, textures
from spine_ray.data.audit import audit
from spine_ray.data.digits import digits_source
from spine_ray.data.evidence import Evidence
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import Inspection, inspect_source
from spine_ray.data.likeness import are_alike, print_of, shapes_of
from spine_ray.data.limits import AuditLimits
from spine_ray.data.near import MIN_CROWD, NearCopies, find_near_copies
from spine_ray.data.rows import Row, Source

LIMITS = AuditLimits()


@dataclass
class ListReader:
    contents: list[bytes]

    def read(self, index, path):
        return self.contents[index]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def inspected(images: list[Image.Image], **columns) -> Inspection:
    return inspect_source(source_of(images, **columns))


@pytest.fixture(scope="module")
def textured() -> list[Image.Image]:
    return textures(600, 64, 0)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    """Pieces of two photographs, without their skies."""
    return pieces(96)


LEAST_FOUND = {
    "JPEG quality 60": 0.9,
    "half the size": 0.97,
    "1.5 times the size": 0.97,
    "brightness x 1.2": 0.9,
    "brightness x 0.8": 0.97,
    "cropped by 2 %": 0.8,
}
"""By what is done to a copy, the least share of the copies that must be found."""


@pytest.mark.parametrize("name", LEAST_FOUND)
def test_altered_copies_are_found_and_nothing_else_is(photos, textured, name):
    alter, least = ALTERED[name], LEAST_FOUND[name]
    images = [each for each in [*photos, *textured[:150]] if print_of(each)]
    near = find_near_copies(inspected([*images, *map(alter, images)]), LIMITS)
    expected = {(index, index + len(images)) for index in range(len(images))}
    found = set(near.groups())
    assert found <= expected
    assert len(found) >= least * len(images)


def test_no_texture_is_a_near_copy_of_another(textured):
    assert find_near_copies(inspected(textured), LIMITS) == NearCopies()


def test_the_built_in_sample_has_no_near_copies_and_is_dealt_as_ever():
    inspection = inspect_source(digits_source())
    near = find_near_copies(inspection, LIMITS)
    assert near == NearCopies()
    ever, now = build_samples(inspection, folds=3), build_samples(inspection, folds=3, near=near.links)
    assert now.fold_fingerprint == ever.fold_fingerprint


def test_hardly_any_scan_is_a_near_copy_even_when_scaled_up():
    source = digits_source()
    scans = [Image.open(io.BytesIO(source.read(row))).resize((64, 64), Image.Resampling.BICUBIC) for row in range(1000)]
    assert len(find_near_copies(inspected(scans), LIMITS).links) <= 2


def test_flat_and_small_pictures_have_no_print(textured):
    assert print_of(Image.new("RGB", (64, 64), (10, 200, 30))) is None
    assert print_of(textured[0].resize((31, 64))) is None
    assert print_of(textured[0]) is not None


def compared_one_by_one(inspection: Inspection, limits: AuditLimits) -> tuple[list[tuple[int, int, int]], set]:
    """Return every pair of near copies with its distance, from the definition, and the groups that they make."""
    looks = inspection.looks
    first = {looks[row].digest: row for row in reversed(inspection.readable) if looks[row].likeness}
    rows = sorted(first.values())
    hashes = {row: int.from_bytes(looks[row].likeness.bits, "big") for row in rows}
    pairs = []
    for one in rows:
        for other in rows:
            distance = (hashes[one] ^ hashes[other]).bit_count()
            if one < other and distance <= limits.near_duplicate:
                both = np.frombuffer(looks[one].likeness.thumb + looks[other].likeness.thumb, np.uint8).reshape(2, -1)
                if are_alike(shapes_of(both), np.array([[0, 1]]), limits.near_shift)[0]:
                    pairs.append((one, other, distance))
    return pairs, joined(pairs)


def joined(pairs: list[tuple[int, int, int]]) -> set[frozenset[int]]:
    group_of: dict[int, frozenset[int]] = {}
    for one, other, _ in pairs:
        both = group_of.get(one, frozenset([one])) | group_of.get(other, frozenset([other]))
        group_of |= dict.fromkeys(both, both)
    return set(group_of.values())


def grain(number: int) -> list[Image.Image]:
    """Noise without low frequencies: nothing but the hashes tells these pictures apart."""
    rng = np.random.default_rng(5)
    noise = rng.normal(0.0, 30.0, (number, 64, 64))
    noise -= noise.reshape(number, 8, 8, 8, 8).mean(axis=(2, 4)).repeat(8, axis=1).repeat(8, axis=2)
    return [Image.fromarray(np.clip(128.0 + picture, 0, 255).astype(np.uint8)) for picture in noise]


@pytest.mark.parametrize(
    "limits",
    [
        LIMITS,
        AuditLimits(near_duplicate=20),
        AuditLimits(near_duplicate=127, near_shift=0.1),
        AuditLimits(near_shift=0.0),
    ],
)
def test_the_same_copies_are_found_as_by_comparing_all_with_all(photos, textured, limits):
    scene = Image.fromarray(load_sample_images().images[0]).resize((1280, 854))
    frames = [scene.crop((4 * step, 200, 4 * step + 400, 600)) for step in range(15)]
    images = [*photos[:15], *textured[:40], *grain(30), *frames]
    copies = [alter(image) for alter in ALTERED.values() for image in images[:85:9]]
    inspection = inspected([*images, *copies, *images[:5]])
    near = find_near_copies(inspection, limits)
    pairs, groups = compared_one_by_one(inspection, limits)
    assert near.crowds == ()
    assert set(map(frozenset, near.groups())) == groups
    distance_of = {(one, other): distance for one, other, distance in pairs}
    assert set(near.links) <= set(distance_of)
    assert len(near.links) == sum(len(group) - 1 for group in groups), "as few as that takes"
    for bar in range(0, limits.near_duplicate + 1, 4):
        kept = [(*link, distance_of[link]) for link in near.links if distance_of[link] <= bar]
        assert joined(kept) == joined([pair for pair in pairs if pair[2] <= bar])


@pytest.mark.parametrize(("place", "most"), [(3, 6), (20, 15), (40, 6)])
def test_few_things_before_one_background_are_taken_for_copies(photos, textured, place, most):
    """A studio: the same large picture, another thing of a third of its side in the middle of each."""
    background = photos[place].resize((256, 256), Image.Resampling.BICUBIC)
    shown = []
    for thing in textured[:40]:
        image = background.copy()
        image.paste(thing.resize((80, 80)), (88, 88))
        shown.append(jpeg(image, 85))
    assert len(find_near_copies(inspected(shown), LIMITS).links) <= most


def test_copies_in_another_orientation_are_found_once_exif_turns_them(photos):
    turned = photos[5].transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    contents = [png(half(photos[5])), buffer.getvalue(), png(photos[6])]
    rows = tuple(Row(path=str(index), class_name="ab"[index % 2]) for index in range(3))
    source = Source(name="x", kind="parquet", rows=rows, reader=ListReader(contents))
    assert find_near_copies(inspect_source(source), LIMITS).groups() == ((0, 1),)


def with_copies(photos: list[Image.Image]) -> tuple[list[Image.Image], list[tuple[int, int]]]:
    """Return photographs, of which the first 30 come three times, and the pairs of copies."""
    images = [each for each in photos if print_of(each)]
    extra = [alter(each) for alter in (half, lambda image: jpeg(image, 75)) for each in images[:30]]
    first, second = len(images), len(images) + 30
    pairs = [pair for n in range(30) for pair in ((n, first + n), (n, second + n), (first + n, second + n))]
    return [*images, *extra], pairs


def crossing(inspection: Inspection, pairs: list[tuple[int, int]], **settings) -> int:
    """Count pairs in different folds, or in the test split and outside it."""
    samples = build_samples(inspection, **settings)
    fold = dict(zip(samples.paths, samples.folds.tolist(), strict=True))
    return sum(fold[f"row {one}"] != fold[f"row {other}"] for one, other in pairs)


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_near_copies_never_cross_folds_nor_into_the_test_split(photos, folds):
    images, pairs = with_copies(photos)
    inspection = inspected(images)
    near = find_near_copies(inspection, LIMITS)
    known = [pair for pair in pairs if any(set(pair) <= set(group) for group in near.groups())]
    assert len(known) >= 0.9 * len(pairs)
    leaks = [crossing(inspection, known, folds=folds, seed=seed, near=near.links) for seed in range(8)]
    assert leaks == [0] * 8
    assert all(crossing(inspection, known, folds=folds, seed=seed) > 20 for seed in range(8)), "they did before"


def test_near_copies_join_groups_and_exact_copies(photos):
    # 0 and 1 share a patient, 1 is a near copy of 2, and 3 has the bytes of 2: one group of four.
    images = [photos[0], photos[9], half(photos[9]), half(photos[9]), *photos[10:40]]
    inspection = inspected(images, group=["p", "p", *[None] * (len(images) - 2)])
    samples = build_samples(inspection, folds=2, near=find_near_copies(inspection, LIMITS).links)
    group = dict(zip(samples.paths, samples.groups.tolist(), strict=True))
    assert len({group[f"row {row}"] for row in range(4)}) == 1
    assert len(set(group.values())) == len(images) - 3


def test_groups_do_not_depend_on_the_order_of_rows(photos):
    images, _ = with_copies(photos)
    order = np.random.default_rng(1).permutation(len(images))
    one = find_near_copies(inspected(images), LIMITS).groups()
    other = find_near_copies(inspected([images[row] for row in order]), LIMITS).groups()
    assert {frozenset(group) for group in one} == {frozenset(int(order[row]) for row in group) for group in other}


def test_a_chain_of_likeness_does_not_become_one_group(photos, textured):
    """A camera pans: each frame is near the next, the first and the last have nothing in common."""
    scene = Image.fromarray(load_sample_images().images[0]).resize((1280, 854))
    frames = [scene.crop((4 * step, 200, 4 * step + 400, 600)) for step in range(150)]
    images = [*frames, *textured[:150], half(photos[9]), photos[9]]
    inspection = inspected(images)
    near = find_near_copies(inspection, LIMITS)
    crowded = {row for crowd in near.crowds for row in crowd}
    assert crowded <= set(range(150)) and len(crowded) > 100
    assert max(len(group) for group in near.groups()) <= MIN_CROWD
    assert (300, 301) in near.groups(), "other copies keep their group"
    samples = build_samples(inspection, folds=3, near=near.links)
    told = {
        finding.kind: finding for finding in audit(Evidence(inspection=inspection, samples=samples, near=near)).findings
    }
    assert told["near_crowd"].level == "warning" and len(told["near_crowd"].rows) == len(crowded)


def test_no_near_copies_are_looked_for_at_zero_bits(photos):
    assert find_near_copies(inspected([photos[9], half(photos[9])]), AuditLimits(near_duplicate=0)) == NearCopies()
