"""A worker with pretrained weights: the probe's heads, the fine-tunes that begin with them, and the refits of both."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from spine_ray.core.backbone import make_model
from spine_ray.core.features import scoring_features
from spine_ray.core.freeze import classifier_names
from spine_ray.core.inputs import scoring_pictures
from spine_ray.core.network import Network
from spine_ray.core.probe import refitted_head, solve_head
from spine_ray.core.score import logits_of
from spine_ray.space.config import TrialConfig, probe_config
from spine_ray.study.control import read_control
from spine_ray.study.hold import held
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.shipped import read_heads, read_refit, write_heads
from spine_ray.study.tables import write_samples
from spine_ray.workers.failures import WorkFailedError
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.trial_steps import EpochReport
from spine_ray.workers.worker import TrainWorker, run_task
from spine_ray.workers.worker_data import open_work, setup_of, shuffled_labels
from tests.support.tier_study import CLASSES, FOLDS, SIDE, TierStudy, request_of, write_tier_study

BACKBONE, TWO_HEADED = "test_vit", "deit_tiny_distilled_patch16_224"
"""Without batch norm, whose running means would move where nothing else is trained."""
FILE = Path(__file__).parents[1] / "search_spaces" / "small_weights" / f"{BACKBONE}.safetensors"
PROBE = probe_config(BACKBONE, SIDE)
STILL = 1e-12
"""A learning rate with which a model ends as it began."""
NEAR = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def still(trial_config: Callable[..., TrialConfig]) -> TrialConfig:
    """A fine-tune that says what its start says."""
    return trial_config(BACKBONE, resolution=SIDE, lr=STILL, epochs=1, batch_size=16, weight_decay=0.0)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., TierStudy]]:
    """Return a function that opens another study of the same pictures with the small weights, on labels of its own."""
    root, digest = tmp_path_factory.mktemp("studies"), hashlib.sha256(FILE.read_bytes()).hexdigest()
    with ExitStack() as holds:
        first = StudyPaths(root / "study")
        written = write_tier_study(root, first, holds.enter_context(held(first)).token)

        def study(labels: np.ndarray | None = None) -> TierStudy:
            paths = StudyPaths(tmp_path_factory.mktemp("another") / "study")
            token = holds.enter_context(held(paths)).token
            samples = written.samples if labels is None else replace(written.samples, labels=labels)
            write_samples(paths.samples, samples)
            spec = replace(written.spec, study=paths.root, holder=token, weights=((BACKBONE, FILE, digest),))
            return TierStudy(paths, samples, spec)

        yield study


@pytest.fixture(scope="module")
def probed(studies: Callable[..., TierStudy]) -> TierStudy:
    """A study whose probe is made; tests leave it and its heads as they are."""
    study = studies()
    train(study, PROBE)
    return study


@pytest.fixture
def study(studies: Callable[..., TierStudy]) -> TierStudy:
    """A study to change."""
    return studies()


def train(study: TierStudy, config: TrialConfig, *, is_control: bool = False) -> EpochReport:
    """Run a trial to its end and return its last epoch."""
    worker, request = TrainWorker(), request_of(config, is_control=is_control)
    worker.begin(study.spec, request)
    while not (report := worker.next_epoch(study.spec, request)).is_last:
        pass
    return report


def oof(study: TierStudy, config: TrialConfig) -> np.ndarray:
    """Train and return the OOF logits of all rows."""
    train(study, config)
    found = np.full((len(study.samples.labels), len(CLASSES)), np.nan, np.float32)
    found[study.samples.dev] = read_oof(study.paths, config.trial_id, study.samples)
    return found


def heads_of(study: TierStudy) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    spec = study.spec
    return read_heads(
        study.paths, PROBE.trial_id, frozen_hash=spec.frozen_hash(BACKBONE), data_version=study.samples.version
    )


def write_zeros(study: TierStudy, *, data_version: str) -> None:
    """Write heads that say nothing."""
    zeros = {fold: (np.zeros_like(weight), np.zeros_like(bias)) for fold, (weight, bias) in solved(study).items()}
    frozen = study.spec.frozen_hash(BACKBONE)
    write_heads(study.paths, PROBE.trial_id, zeros, frozen_hash=frozen, data_version=data_version)


def network_of(spec: WorkerSpec, config: TrialConfig) -> Network:
    return Network(config, len(CLASSES), spec.seed, setup_of(spec, config))


def solved(study: TierStudy, labels: np.ndarray | None = None) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Solve every fold's head here, from the rows of the other folds alone."""
    samples, task = open_work(study.spec)
    task, network = replace(task, labels=samples.labels if labels is None else labels), network_of(study.spec, PROBE)
    found = {}
    for fold in range(FOLDS):
        rows = samples.training(fold)
        head = solve_head(scoring_features(network, task, rows).values, task, rows, network)
        found[fold] = (head.weight, head.bias)
    return found


def features(study: TierStudy, rows: np.ndarray) -> np.ndarray:
    return scoring_features(network_of(study.spec, PROBE), open_work(study.spec)[1], rows).values


def says(head: tuple[np.ndarray, np.ndarray], values: np.ndarray) -> np.ndarray:
    return values @ head[0].T + head[1]


def test_a_probe_is_one_step_and_its_oof_logits_are_those_of_each_folds_own_head(probed: TierStudy) -> None:
    logits = read_oof(probed.paths, PROBE.trial_id, probed.samples)
    expected = np.full((len(probed.samples.labels), len(CLASSES)), np.nan)
    for fold, head in solved(probed).items():
        rows = probed.samples.held_out(fold)
        expected[rows] = says(head, features(probed, rows))
    np.testing.assert_allclose(logits, expected[probed.samples.dev], **NEAR)


def test_the_heads_are_kept_with_the_probe(probed: TierStudy) -> None:
    kept, expected = heads_of(probed), solved(probed)
    assert kept.keys() == expected.keys() == set(range(FOLDS))
    for fold, (weight, bias) in expected.items():
        np.testing.assert_allclose(kept[fold][0], weight, **NEAR)
        np.testing.assert_allclose(kept[fold][1], bias, **NEAR)


def test_a_fine_tune_begins_with_the_heads_that_are_kept(study: TierStudy, still: TrialConfig) -> None:
    write_zeros(study, data_version=study.samples.version)
    np.testing.assert_allclose(oof(study, still)[study.samples.dev], 0.0, atol=1e-6)


def test_every_fold_of_a_fine_tune_begins_as_good_as_its_probe(
    probed: TierStudy, still: TrialConfig, study: TierStudy
) -> None:
    expected = read_oof(probed.paths, PROBE.trial_id, probed.samples)
    np.testing.assert_allclose(oof(probed, still)[probed.samples.dev], expected, **NEAR)
    unprobed = oof(study, still)[study.samples.dev]  # where the fine-tune came first, the heads are solved then
    np.testing.assert_allclose(unprobed, expected, **NEAR)


def test_with_random_weights_a_fine_tune_begins_with_the_networks_own_head(
    study: TierStudy, still: TrialConfig
) -> None:
    random = replace(study, spec=replace(study.spec, weights=()))
    train(random, PROBE)
    logits = oof(random, still)
    np.testing.assert_allclose(logits[study.samples.dev], own_start(random.spec, still, study.samples.dev), **NEAR)


def own_start(spec: WorkerSpec, config: TrialConfig, rows: np.ndarray) -> np.ndarray:
    """Return what a network says before anything is trained."""
    network = network_of(spec, config)
    network.learner(config.training.batch_size)
    network.model.eval()
    return logits_of(network.model, scoring_pictures(network, open_work(spec)[1]), rows, network.setup)


@pytest.mark.parametrize("lr", [STILL, 1e-3])
def test_a_folds_start_and_end_know_the_labels_of_its_training_rows_and_no_held_out_one(
    lr: float, studies: Callable[..., TierStudy], still: TrialConfig
) -> None:
    config = replace(still, recipe=replace(still.training, lr=lr))
    before = studies()
    turned = before.samples.labels.copy()
    first, second = before.samples.held_out(0), before.samples.held_out(1)
    turned[first] = (turned[first] + 1) % len(CLASSES)
    after = studies(turned)
    for each in (PROBE, config):
        told, again = oof(before, each), oof(after, each)
        np.testing.assert_array_equal(again[first], told[first])
        assert np.abs(again[second] - told[second]).mean() > 0.1
    np.testing.assert_array_equal(heads_of(after)[0][0], heads_of(before)[0][0])
    assert not np.allclose(heads_of(after)[1][0], heads_of(before)[1][0], atol=1e-3)


@pytest.mark.parametrize("loss", ["missing", "cut", "flipped", "of other rows", "of another file"])
def test_heads_that_are_missing_damaged_or_of_something_else_are_solved_again(
    loss: str, studies: Callable[..., TierStudy], still: TrialConfig
) -> None:
    study = studies()
    train(study, PROBE)
    path, expected = study.paths.probe_heads(PROBE.trial_id), heads_of(study)
    content = bytearray(path.read_bytes())
    if loss == "missing":
        path.unlink()
    elif loss == "cut":
        path.write_bytes(content[:-100])
    elif loss == "flipped":
        content[-5] ^= 1
        path.write_bytes(content)
    elif loss == "of other rows":
        write_zeros(study, data_version="rows that were")
    else:
        spec = replace(study.spec, weights=((BACKBONE, FILE, "0" * 64),))
        write_zeros(replace(study, spec=spec), data_version=study.samples.version)
    told = oof(study, still)[study.samples.dev]
    np.testing.assert_allclose(told, read_oof(study.paths, PROBE.trial_id, study.samples), **NEAR)
    for fold, kept in heads_of(study).items():
        for found, solved_first in zip(kept, expected[fold], strict=True):
            np.testing.assert_array_equal(found, solved_first)


def test_a_probe_whose_worker_died_after_its_step_ends_without_another_and_a_fine_tune_solves_the_heads(
    study: TierStudy, still: TrialConfig, probed: TierStudy
) -> None:
    worker, request = TrainWorker(), request_of(PROBE)
    worker.begin(study.spec, request)
    report = worker.next_epoch(study.spec, request)
    for path in (study.paths.oof(PROBE.trial_id), study.paths.probe_heads(PROBE.trial_id)):
        path.unlink()  # as if it had died between its checkpoint and these
    other = TrainWorker()
    assert other.begin(study.spec, request).step == 1
    again = other.next_epoch(study.spec, request)
    assert again.is_known and again.is_last and again.epoch == report.epoch
    expected = read_oof(probed.paths, PROBE.trial_id, probed.samples)
    np.testing.assert_array_equal(read_oof(study.paths, PROBE.trial_id, study.samples), expected)
    assert heads_of(study) == {}
    np.testing.assert_allclose(oof(study, still)[study.samples.dev], expected, **NEAR)
    assert set(heads_of(study)) == set(range(FOLDS))


def test_the_refit_of_a_probe_is_the_head_solved_on_all_dev_rows(study: TierStudy) -> None:
    samples, task = open_work(study.spec)
    head = refitted_head(task, samples.dev, network_of(study.spec, PROBE))
    worker = TrainWorker()
    worker.refit(study.spec, PROBE)
    tensors = read_refit(study.paths, PROBE.trial_id)
    assert set(tensors) == set(classifier_names(network_of(study.spec, PROBE).model)), "nothing else was trained"
    weight, bias = (next(tensors[name] for name in tensors if name.endswith(end)) for end in ("weight", "bias"))
    np.testing.assert_array_equal(weight, head.weight)
    np.testing.assert_array_equal(bias, head.bias)
    told = worker.score(study.spec, PROBE, samples.test)
    np.testing.assert_allclose(told, head.logits(features(study, samples.test)), **NEAR)


def test_the_refit_of_a_fine_tune_begins_with_the_head_solved_on_all_dev_rows(
    study: TierStudy, still: TrialConfig
) -> None:
    worker, rows = TrainWorker(), study.samples.test
    worker.refit(study.spec, still)
    worker.refit(study.spec, PROBE)
    np.testing.assert_allclose(worker.score(study.spec, still, rows), worker.score(study.spec, PROBE, rows), **NEAR)


def test_the_control_of_a_probe_solves_one_fold_on_shuffled_labels_and_keeps_no_heads(study: TierStudy) -> None:
    train(study, PROBE, is_control=True)
    assert not study.paths.probe_heads(PROBE.trial_id).exists()
    assert not study.paths.oof(PROBE.trial_id).exists()
    found = read_control(study.paths)
    assert found is not None
    labels, logits = found
    held_out, dealt = study.samples.held_out(0), shuffled_labels(study.samples, study.spec.seed)
    np.testing.assert_array_equal(labels, dealt[held_out])
    np.testing.assert_allclose(logits, says(solved(study, dealt)[0], features(study, held_out)), **NEAR)


def test_the_control_of_a_fine_tune_begins_with_no_head_that_has_seen_the_true_labels(
    probed: TierStudy, still: TrialConfig
) -> None:
    before = heads_of(probed)
    train(probed, still, is_control=True)
    found = read_control(probed.paths)
    assert found is not None
    np.testing.assert_allclose(found[1], own_start(probed.spec, still, probed.samples.held_out(0)), **NEAR)
    assert heads_of(probed).keys() == before.keys()


@pytest.fixture(scope="module")
def two_headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a backbone with two classifiers."""
    path = tmp_path_factory.mktemp("weights") / "two_headed.safetensors"
    model = make_model(TWO_HEADED, SIDE, len(CLASSES))
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name not in classifier_names(model)}
    save_file(tensors, path)
    return path


def test_a_backbone_whose_classifier_is_not_one_linear_layer_is_fine_tuned_from_its_own_start_and_not_probed(
    study: TierStudy, two_headed: Path, still: TrialConfig
) -> None:
    odd = replace(study, spec=replace(study.spec, weights=((TWO_HEADED, two_headed, "1" * 64),)))
    probe, worker = probe_config(TWO_HEADED, SIDE), TrainWorker()
    worker.begin(odd.spec, request_of(probe))
    for task, asked in (("next_epoch", request_of(probe)), ("refit", probe)):
        with pytest.raises(WorkFailedError, match=rf"{TWO_HEADED} cannot be probed") as failure:
            run_task(worker, task, odd.spec, asked)
        assert failure.value.kind == "hopeless"
        assert "its classifier is not one linear layer with a bias" in failure.value.reason
    config = replace(still, backbone=TWO_HEADED)
    logits = oof(odd, config)[study.samples.dev]
    np.testing.assert_allclose(logits, own_start(odd.spec, config, study.samples.dev), **NEAR)
    assert not study.paths.probe_heads(probe.trial_id).exists()
    worker.refit(odd.spec, config)
    rows = study.samples.test
    np.testing.assert_allclose(worker.score(odd.spec, config, rows), own_start(odd.spec, config, rows), **NEAR)
