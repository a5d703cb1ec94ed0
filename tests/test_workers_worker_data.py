from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spine_ray.data.samples import Samples
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.worker_data import depot_of, shuffled_labels

ROWS = 200
FOLDS = np.where(np.arange(ROWS) % 4 == 0, -1, np.arange(ROWS) % 2)
SAMPLES = Samples(
    sample_ids=tuple(f"id{row:03d}" for row in range(ROWS)),
    paths=tuple(f"{row}.png" for row in range(ROWS)),
    labels=np.arange(ROWS) // 100,
    classes=("ant", "bee"),
    groups=np.arange(ROWS),
    splits=tuple("test" if fold < 0 else "dev" for fold in FOLDS),
    folds=FOLDS,
)


def spec(*weights: tuple[str, Path, str]) -> WorkerSpec:
    return WorkerSpec(
        study=Path("study"), holder="", pixels=Path("pixels"), seed=0, weights=weights, device="cpu", threads=1
    )


def test_a_backbone_finds_its_weights_and_their_hash() -> None:
    given = spec(("a.tag", Path("a.safetensors"), "aaa"), ("b", Path("b.safetensors"), "bbb"))
    assert given.weights_file("b") == Path("b.safetensors")
    assert given.frozen_hash("a.tag") == "aaa"


def test_a_backbone_without_weights_is_random() -> None:
    assert spec().weights_file("a") is None
    assert spec().frozen_hash("a") == "random"


def test_equal_specs_open_the_same_work() -> None:
    assert hash(spec(("a", Path("a"), "h"))) == hash(spec(("a", Path("a"), "h")))


def test_shuffled_labels_are_dealt_among_the_dev_rows_alone() -> None:
    labels = shuffled_labels(SAMPLES, seed=3)
    np.testing.assert_array_equal(labels[SAMPLES.test], SAMPLES.labels[SAMPLES.test])
    np.testing.assert_array_equal(np.sort(labels[SAMPLES.dev]), np.sort(SAMPLES.labels[SAMPLES.dev]))
    # 150 labels of two even classes dealt anew: half of them meet their own, give or take 6 standard deviations.
    agreeing = float((labels == SAMPLES.labels)[SAMPLES.dev].mean())
    assert agreeing == pytest.approx(0.5, abs=6 * 0.5 / np.sqrt(len(SAMPLES.dev)))


def test_shuffled_labels_follow_from_the_seed() -> None:
    np.testing.assert_array_equal(shuffled_labels(SAMPLES, 3), shuffled_labels(SAMPLES, 3))
    assert not np.array_equal(shuffled_labels(SAMPLES, 3), shuffled_labels(SAMPLES, 4))


def test_a_study_at_a_uri_has_a_folder_on_each_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path))
    assert depot_of(spec()).paths.root == Path("study")
    far = depot_of(replace(spec(), uri="s3://bucket/study"))
    assert far.paths.root.is_relative_to(tmp_path)
    assert far.paths.root != depot_of(replace(spec(), uri="s3://bucket/other")).paths.root
