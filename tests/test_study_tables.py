import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from spine_ray.data.samples import Samples
from spine_ray.space.config import RECIPE_FIELDS, TrialConfig, probe_config
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import EpochDone, Status, TrialEnded, TrialStarted
from spine_ray.study.paths import StudyPaths, copy_of
from spine_ray.study.tables import (
    Cost,
    budget_units,
    read_costs,
    read_samples,
    write_costs,
    write_samples,
    write_trials,
)
from spine_ray.study.trials import Trial

RECIPE = [name for name in RECIPE_FIELDS if name != "epochs"]
CONTRACT = [
    *("trial_id", "tier", "backbone", "family", "resolution", "freeze", *RECIPE, "status", "reason", "note", "views"),
    *("micro_batch", "epochs", "seconds", "budget_units", "params", "macs", "latency_ms", "log_loss", "accuracy"),
    *("weights_source", "licence"),
]
CONFIG = TrialConfig(backbone="resnet18", resolution=64, freeze=0.5, recipe=start_recipe("pretrained"))


def trial(
    trial_id: str, losses: list[float], status: Status | None, reason: str = "", config: TrialConfig = CONFIG
) -> Trial:
    started = TrialStarted(
        trial_id=trial_id, tier="light", config=config, family="resnet", is_start=True, total_steps=4, params=11,
        macs=500_000_000, weights_source="hub", licence="apache-2.0", data_version="rows", time=0.0,
    )  # fmt: skip
    epochs = tuple(
        EpochDone(
            trial_id=trial_id, step=step, fold=0, epoch=step, train_loss=1.0, log_loss=loss, accuracy=0.25 * step,
            seconds=2.0, train_images=200, train_images_s=100.0, score_images_s=50.0 * 2**step, peak_mb=1.0,
            views=10, micro_batch=64 // step, note="out of memory" if step > 1 else "",
        )
        for step, loss in enumerate(losses, 1)
    )  # fmt: skip
    end = TrialEnded(
        trial_id=trial_id, status=status or "failed", reason=reason, step=len(losses), log_loss=None, accuracy=None,
        seconds=0.0, time=1.0,
    )  # fmt: skip
    return Trial(started=started, epochs=epochs, ended=end if status else None)


def cost(**changes: Any) -> Cost:
    values = {
        "backbone": "resnet18", "resolution": 64, "freeze": 0.5, "device": "cpu",
        "arithmetic": "float32 channels_last", "train_images_s": 12.5, "infer_images_s": 40.0, "score_images_s": 120.0,
        "prefix_images_s": 60.0, "activation_mb": 0.25, "peak_mb": 512.25, "macs": 500_000_000,
        "prefix_macs": 300_000_000,
        "prefix_params": 2_000_000,
    }  # fmt: skip
    return Cost(**{**values, **changes})


@pytest.fixture
def samples() -> Samples:
    return Samples(
        sample_ids=("aa", "bb", "bb-1", "cc", "dd", "ee"),
        paths=("x/a.png", "x/b.png", "x/ü.png", "row 3", "y/d.png", "y/e.png"),
        labels=np.array([0, 0, 0, 1, 1, 1]),
        classes=("left", "rïght"),
        groups=np.array([0, 1, 1, 2, 3, 4]),
        splits=("dev", "dev", "dev", "dev", "dev", "test"),
        folds=np.array([0, 1, 1, 0, 1, -1]),
    )


@pytest.fixture
def paths(tmp_path: Path) -> StudyPaths:
    return StudyPaths(tmp_path)


def test_samples_come_back_with_equal_fingerprints(paths: StudyPaths, samples: Samples) -> None:
    write_samples(paths.samples, samples)
    found = read_samples(paths.samples)
    assert found.data_fingerprint == samples.data_fingerprint
    assert found.fold_fingerprint == samples.fold_fingerprint
    assert (found.paths, found.classes, found.splits) == (samples.paths, samples.classes, samples.splits)
    np.testing.assert_array_equal(found.groups, samples.groups)
    assert pq.read_table(paths.samples).column("class").to_pylist()[2:4] == ["left", "rïght"]


def test_a_damaged_table_of_samples_is_refused_by_name(paths: StudyPaths) -> None:
    with pytest.raises(ValueError, match=r"samples\.parquet cannot be read"):
        read_samples(paths.samples)
    pq.write_table(pa.table({"sample_id": ["a"]}), paths.samples)
    with pytest.raises(ValueError, match=r"samples\.parquet cannot be read"):
        read_samples(paths.samples)


def test_the_table_of_trials_has_the_columns_of_the_contract(paths: StudyPaths) -> None:
    write_trials(paths, [trial("a", [0.9, 0.5], "completed")], {})
    found = [name for name in pq.read_table(paths.trials).column_names if name in CONTRACT]
    assert found == CONTRACT


def test_a_row_says_what_the_trial_did(paths: StudyPaths) -> None:
    costs = {cost().key: cost(), ("resnet18", 64, 0.0): cost(freeze=0.0, infer_images_s=1.0)}
    write_trials(paths, [trial("a", [0.9, 0.5, 0.25], "stopped", "above the cut")], costs)
    (row,) = pq.read_table(paths.trials).to_pylist()
    assert (row["trial_id"], row["status"], row["reason"]) == ("a", "stopped", "above the cut")
    assert (row["backbone"], row["resolution"], row["freeze"]) == ("resnet18", 64, 0.5)
    assert {name: row[name] for name in RECIPE} == {name: getattr(CONFIG.recipe, name) for name in RECIPE}
    assert row["fold_epochs"] == CONFIG.recipe.epochs  # beside the epochs that were trained
    assert (row["epochs"], row["seconds"], row["log_loss"], row["accuracy"]) == (3, 6.0, 0.25, 0.75)
    assert row["latency_ms"] == pytest.approx(25.0)  # measured: 40 images/s, whatever the trial scored a second
    assert row["budget_units"] == budget_units(trial("a", [0.9, 0.5, 0.25], None))
    assert (row["note"], row["views"], row["micro_batch"]) == ("out of memory", 10, 21)  # as the last epoch says


def test_trials_of_every_kind_share_the_table(paths: StudyPaths) -> None:
    trials = [
        trial("a", [0.9, math.nan], "stopped", "the loss is nan at epoch 2"),
        trial("b", [], "failed", "RuntimeError: no memory"),
        trial("c", [0.5], None),
        trial("d", [0.5, 0.25], "completed"),
    ]
    write_trials(paths, trials, {cost(freeze=0.0).key: cost(freeze=0.0)})
    rows = pq.read_table(paths.trials).to_pylist()
    assert [row["trial_id"] for row in rows] == ["a", "b", "c", "d"]
    assert [row["status"] for row in rows] == ["stopped", "failed", "interrupted", "completed"]
    assert math.isnan(rows[0]["log_loss"])
    assert (rows[1]["log_loss"], rows[1]["epochs"]) == (None, 0)
    assert (rows[1]["note"], rows[1]["views"], rows[1]["micro_batch"]) == ("", None, None)
    assert [row["latency_ms"] for row in rows] == [None] * 4  # nothing was measured at this freeze depth


def test_columns_keep_their_types_when_nothing_was_measured(paths: StudyPaths) -> None:
    write_trials(paths, [trial("a", [0.5], "completed")], {cost().key: cost()})
    measured = pq.read_schema(paths.trials)
    write_trials(paths, [trial("b", [], "failed", "killed")], {})
    assert pq.read_schema(paths.trials).equals(measured)
    types = {
        name: str(measured.field(name).type) for name in ("fold_epochs", "lr", "class_weighting", "trivial_augment")
    }
    assert types == {"fold_epochs": "int64", "lr": "double", "class_weighting": "string", "trivial_augment": "bool"}


def test_a_probe_is_a_row_without_a_recipe(paths: StudyPaths) -> None:
    probe = trial("p", [0.4], "completed", config=probe_config("resnet18", 64))
    for trials in ([probe], [probe, trial("a", [0.5], "completed")]):
        write_trials(paths, trials, {})
        row, *others = pq.read_table(paths.trials).to_pylist()
        assert (row["freeze"], row["epochs"], row["log_loss"]) == (1.0, 1, 0.4)
        assert {row[name] for name in (*RECIPE, "fold_epochs")} == {None}
        assert all(other["fold_epochs"] == CONFIG.training.epochs for other in others)
    mixed = pq.read_schema(paths.trials)
    write_trials(paths, [probe], {})
    assert pq.read_schema(paths.trials).equals(mixed)


def test_a_study_without_trials_has_no_table(paths: StudyPaths) -> None:
    write_trials(paths, [], {})
    assert not paths.trials.exists()


def test_budget_units_are_three_forward_passes_of_every_image() -> None:
    # 3 epochs of 200 images are 600 images of 0.5 giga-MACs, three times over.
    assert budget_units(trial("a", [0.9, 0.5, 0.3], None)) == pytest.approx(3 * 600 * 0.0005)
    assert budget_units(trial("a", [], None)) == 0.0


def test_budget_units_of_a_probe_are_one_forward_pass_of_every_image() -> None:
    probe = trial("p", [0.4], "completed", config=probe_config("resnet18", 64))
    assert budget_units(probe) == pytest.approx(200 * 0.0005)


def test_costs_come_back_equal_by_what_they_belong_to(paths: StudyPaths) -> None:
    none = {"prefix_images_s": None, "activation_mb": None, "prefix_macs": 0, "prefix_params": 0}
    whole = cost(freeze=0.0, train_images_s=1.5, **none)
    for costs in ([whole], [cost(), whole, cost(backbone="vit", resolution=224, freeze=1.0)]):
        write_costs(paths, costs)
        assert read_costs(paths) == {each.key: each for each in costs}
    assert cost().key == ("resnet18", 64, 0.5)


def test_no_costs_are_no_file_and_read_as_none(paths: StudyPaths) -> None:
    write_costs(paths, [])
    assert not paths.costs.exists()
    assert read_costs(paths) == {}


def test_costs_with_more_columns_are_read_and_with_fewer_refused(paths: StudyPaths) -> None:
    write_costs(paths, [cost()])
    table = pq.read_table(paths.costs)
    pq.write_table(table.append_column("note", pa.array(["x"])), paths.costs)
    assert list(read_costs(paths).values()) == [cost()]
    pq.write_table(table.drop_columns(["peak_mb"]), paths.costs)
    assert list(read_costs(paths).values()) == [cost()], "from the copy"
    pq.write_table(table.drop_columns(["peak_mb"]), copy_of(paths.costs))
    with pytest.raises(ValueError, match=r"costs\.parquet cannot be read: .*peak_mb"):
        read_costs(paths)


def test_a_whole_numbered_freeze_finds_its_measured_cost(paths: StudyPaths) -> None:
    write_costs(paths, [cost(freeze=1), cost(freeze=0.5)])
    assert set(read_costs(paths)) == {("resnet18", 64, 1.0), ("resnet18", 64, 0.5)}
    assert replace(cost(), freeze=1).key in read_costs(paths)
