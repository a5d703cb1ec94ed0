from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from spine_ray.data.samples import Samples
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ladder.evidence import Evidence, gather
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.events import Status, TrialEnded, TrialStarted
from spine_ray.study.oof import write_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import Trial

ROWS = 60
FOLDS = np.where(np.arange(ROWS) % 5 == 0, -1, np.arange(ROWS) % 2)
SAMPLES = Samples(
    sample_ids=tuple(f"id{row:02d}" for row in range(ROWS)),
    paths=tuple(f"{row}.png" for row in range(ROWS)),
    labels=np.arange(ROWS) // 20,
    classes=("ant", "bee", "cow"),
    groups=np.arange(ROWS) // 2,
    splits=tuple("test" if fold < 0 else "dev" for fold in FOLDS),
    folds=FOLDS,
)
CONFIG = TrialConfig(backbone="resnet18", resolution=64, freeze=0.0, recipe=start_recipe("random"))


def trial(trial_id: str, status: Status | None = "completed", tier: str = "light") -> Trial:
    started = TrialStarted(
        trial_id=trial_id, tier=tier, config=CONFIG, family="resnet", is_start=True, total_steps=4, params=1, macs=1,
        weights_source="random", licence="unknown", data_version="rows", time=0.0,
    )  # fmt: skip
    end = TrialEnded(
        trial_id=trial_id, status=status or "failed", reason="", step=4, log_loss=0.5, accuracy=0.5, seconds=1.0,
        time=1.0,
    )  # fmt: skip
    return Trial(started=started, ended=end if status else None)


def logits(sharpness: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(ROWS, 3))
    return np.asarray(sharpness * (np.eye(3)[SAMPLES.labels] + noise), np.float32)


def gathered(root: Path, trials: Sequence[Trial], values: Sequence[np.ndarray]) -> Evidence:
    paths = StudyPaths(root)
    for each, stored in zip(trials, values, strict=True):
        if each.is_completed:
            write_oof(paths, each.trial_id, SAMPLES, stored)
    return gather(paths, SAMPLES, {each.trial_id: each for each in trials})


def test_only_completed_trials_are_evidence_and_in_their_order(tmp_path: Path) -> None:
    trials = [trial("b"), trial("s", "stopped"), trial("a"), trial("f", "failed"), trial("i", None)]
    found = gathered(tmp_path, trials, [logits(1.0, seed) for seed in range(5)])
    assert [each.trial_id for each in found.trials] == ["b", "a"]
    np.testing.assert_array_equal(found.logits, np.stack([logits(1.0, 0), logits(1.0, 2)])[:, SAMPLES.dev])


def test_losses_are_those_of_each_trials_own_temperature(tmp_path: Path) -> None:
    values = [logits(1.0), logits(5.0, 1)]
    found = gathered(tmp_path, [trial("a"), trial("b")], values)
    labels = SAMPLES.labels[SAMPLES.dev]
    for place, raw in enumerate(values):
        scaled = raw[SAMPLES.dev] / fit_temperature(raw[SAMPLES.dev], labels)
        naive = [np.log(np.exp(row).sum()) - row[label] for row, label in zip(scaled, labels, strict=True)]
        np.testing.assert_allclose(found.losses[place], naive, rtol=1e-5)


def test_a_timid_and_a_bold_copy_of_one_model_say_the_same(tmp_path: Path) -> None:
    found = gathered(tmp_path, [trial("timid"), trial("bold")], [logits(0.25), logits(4.0)])
    np.testing.assert_allclose(found.losses[0], found.losses[1], rtol=1e-4)
    np.testing.assert_allclose(found.calibrated(0), found.calibrated(1), rtol=1e-3, atol=1e-4)


def test_calibrated_log_probabilities_are_those_that_the_losses_are_of(tmp_path: Path) -> None:
    found = gathered(tmp_path, [trial("a")], [logits(3.0)])
    values = found.calibrated(0)
    np.testing.assert_allclose(np.exp(values).sum(axis=1), 1.0)
    np.testing.assert_allclose(-values[np.arange(len(found.labels)), found.labels], found.losses[0])
    assert found.losses[0].mean() <= -log_probs(found.logits[0])[np.arange(len(found.labels)), found.labels].mean()


def test_labels_folds_and_groups_are_those_of_the_dev_rows(tmp_path: Path) -> None:
    found = gathered(tmp_path, [trial("a")], [logits(1.0)])
    np.testing.assert_array_equal(found.labels, SAMPLES.labels[SAMPLES.dev])
    np.testing.assert_array_equal(found.folds, SAMPLES.folds[SAMPLES.dev])
    np.testing.assert_array_equal(found.groups, SAMPLES.groups[SAMPLES.dev])
    assert found.folds.min() == 0


def test_the_places_of_some_trials_leave_out_those_without_logits(tmp_path: Path) -> None:
    trials = [trial("a"), trial("b", tier="mid"), trial("c", "stopped"), trial("d")]
    found = gathered(tmp_path, trials, [logits(1.0, seed) for seed in range(4)])
    places = found.places([trials[3], trials[2], trials[0]])
    assert places.tolist() == [0, 2]
    assert places.dtype == np.int64
    assert found.places([]).tolist() == []
    assert found.places([trials[2]]).dtype == np.int64


def test_the_best_has_the_lowest_loss_and_ties_fall_to_the_first(tmp_path: Path) -> None:
    values = [logits(1.0, 3), 2.0 * np.eye(3, dtype=np.float32)[SAMPLES.labels], logits(1.0, 3)]
    found = gathered(tmp_path, [trial("a"), trial("b"), trial("c")], values)
    assert found.best(range(3)) == 1
    assert found.best(np.array([2, 0])) == 0


def test_a_study_without_completed_trials_has_empty_evidence(tmp_path: Path) -> None:
    found = gathered(tmp_path, [trial("a", "failed")], [logits(1.0)])
    assert found.trials == ()
    assert found.logits.shape == (0, len(SAMPLES.dev), 3)
    assert found.losses.shape == (0, len(SAMPLES.dev))


def test_a_completed_trial_whose_logits_are_gone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read"):
        gather(StudyPaths(tmp_path), SAMPLES, {"a": trial("a")})
