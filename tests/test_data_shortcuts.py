"""Properties of the files that tell the class, each by itself, on files of noise that hold nothing else."""

import io

import numpy as np
import pytest
from PIL import Image

from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Finding
from spine_ray.data.folds import build_samples
from spine_ray.data.inspection import inspect_source
from spine_ray.data.shortcuts import shortcut_findings
from spine_ray.data.sources import open_source

PER_CLASS = 40


def encoded(seed, size=(40, 40), kind="PNG", mode="RGB", **options):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def found(tmp_path, file_of, classes="abc") -> dict[str, Finding]:
    """Write files of (path, content) for each (class, number), and run the test."""
    for place, name in enumerate(classes):
        for number in range(PER_CLASS):
            path, content = file_of(name, number, 1000 * place + number)
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
    inspection = inspect_source(open_source(str(tmp_path)))
    samples = build_samples(inspection, folds=3)
    return {each.kind: each for each in shortcut_findings(Evidence(inspection=inspection, samples=samples))}


@pytest.mark.parametrize(
    ("kinds", "options"),
    [
        ({"shortcut_size", "told_by_byte_size"}, lambda name: {"size": (50, 50) if name == "a" else (40, 40)}),
        (
            {"shortcut_size", "shortcut_aspect", "told_by_byte_size"},
            lambda name: {"size": (50, 32) if name == "a" else (40, 40)},
        ),
        ({"shortcut_format", "told_by_byte_size"}, lambda name: {"kind": "JPEG" if name == "a" else "PNG"}),
        ({"shortcut_kind_of_pixels", "told_by_byte_size"}, lambda name: {"mode": "L" if name == "a" else "RGB"}),
        (
            {"shortcut_JPEG_quality", "told_by_byte_size"},
            lambda name: {"kind": "JPEG", "quality": 50 if name == "a" else 90},
        ),
    ],
)
def test_the_property_that_tells_a_class_is_named(tmp_path, kinds, options):
    told = found(tmp_path, lambda name, number, seed: (f"{number}.img.png", encoded(seed, **options(name))))
    assert set(told) == kinds
    for kind, finding in told.items():
        assert finding.level == ("warning" if kind.startswith("shortcut") else "fact")
        assert " a (at least" in finding.message
        assert len(finding.rows) >= 0.8 * 32


@pytest.mark.parametrize("seed", range(5))
def test_properties_that_have_nothing_to_do_with_the_class_are_not_said(tmp_path, seed):
    rng = np.random.default_rng(seed)

    def file_of(name, number, picture):
        kind = str(rng.choice(["PNG", "JPEG"]))
        options = {"quality": int(rng.choice([60, 75, 90]))} if kind == "JPEG" else {}
        size = (int(rng.integers(30, 60)), int(rng.integers(30, 60)))
        mode = str(rng.choice(["L", "RGB"]))
        return f"{number}.{kind.lower()}", encoded(picture, size, kind, mode, **options)

    assert found(tmp_path, file_of) == {}


def test_names_that_tell_the_class_are_a_fact(tmp_path):
    told = found(tmp_path, lambda name, number, seed: (f"{name * 3}_{number:03d}.png", encoded(seed)))
    assert {kind: finding.level for kind, finding in told.items()} == {"told_by_file_name": "fact"}


def test_running_numbers_and_folders_are_looked_at_too(tmp_path):
    told = found(tmp_path, lambda name, number, seed: (f"img_{seed}.png", encoded(seed)))
    assert set(told) == {"told_by_file_name"}
