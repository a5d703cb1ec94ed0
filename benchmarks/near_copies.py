"""How well the audit tells near copies from likenesses, and what it costs: `python -m benchmarks.near_copies`.

False pairs are counted on scans and textures in which nothing is a copy, true ones on altered copies of pieces of two
photographs and of textures. Then 20,000 generated pictures are written, looked at and judged.
"""

import io
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.copies import ALTERED, pieces, source_of, textures
from benchmarks.textures import drawings, picture
from spine_ray.data.audit import audit
from spine_ray.data.digits import digits_source
from spine_ray.data.evidence import Evidence
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.likeness import print_of
from spine_ray.data.limits import AuditLimits
from spine_ray.data.near import find_near_copies
from spine_ray.data.sources import open_source

PICTURES, SIDE = 20_000, 48


def groups_of(images: list[Image.Image]) -> tuple[tuple[int, ...], ...]:
    return find_near_copies(inspect_source(source_of(images)), AuditLimits()).groups()


def digits(side: int) -> list[Image.Image]:
    source = digits_source()
    scans = [Image.open(io.BytesIO(source.read(row))) for row in range(len(source.rows))]
    return [scan.resize((side, side), Image.Resampling.BICUBIC) if side > 8 else scan for scan in scans]


def show_likeness() -> None:
    sets = {f"digits at {side} px": digits(side) for side in (8, 32, 64)}
    sets |= {
        "textures at 48 px": textures(3000, 48, 48),
        "textures at 96 px": textures(1500, 96, 96),
        "pieces": pieces(),
    }
    for name, images in sets.items():
        grouped = sum(map(len, groups_of(images)))
        print(f"{name}: {grouped} of {len(images)} pictures in groups, though none is a copy")
    for name, originals in (("pieces", pieces()), ("textures", textures(436, 64, 64))):
        images = [image for image in originals if print_of(image)]
        for what, alter in ALTERED.items():
            groups = groups_of([*images, *map(alter, images)])
            true = sum(group == (group[0], group[0] + len(images)) for group in groups)
            print(f"{name}, {what}: {true / len(images):.1%} of {len(images)} found, {len(groups) - true} false groups")


def show_cost(folder: Path) -> None:
    rng, names = np.random.default_rng(0), list(drawings().items())
    for index in range(PICTURES):
        name, draw = names[index % len(names)]
        (folder / name).mkdir(exist_ok=True)
        suffix = ("png", "jpg")[index // len(names) % 2]
        Image.fromarray(picture(draw, rng, SIDE)).save(folder / name / f"{index:05d}.{suffix}")
    source, limits = open_source(str(folder)), AuditLimits()
    began = [time.perf_counter()]
    inspection = inspect_source(source)
    began.append(time.perf_counter())
    near = find_near_copies(inspection, limits)
    began.append(time.perf_counter())
    samples = build_samples(inspection, near=near.links)
    audit(Evidence(inspection=inspection, samples=samples, near=near, limits=limits, resolutions=(224,)))
    began.append(time.perf_counter())
    looked, compared, judged = np.diff(began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{PICTURES} pictures of {SIDE} px: inspection {looked:.1f} s, near copies {compared:.1f} s, "
        f"dealing and judging {judged:.1f} s; {len(near.links)} near copies; peak {peak:.0f} MB"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        show_cost(Path(folder))
    show_likeness()
