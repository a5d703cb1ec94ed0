"""Probes: features kept in chunks, a head a fold, nothing of a held-out row in what scores it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from spine_ray.core import features as features_module
from spine_ray.core.cache import NoRoomError
from spine_ray.core.epoch_record import ALL_FOLDS
from spine_ray.core.features import sample_features, sample_order, scoring_features
from spine_ray.core.inner_folds import deal_inner_folds
from spine_ray.core.network import CHUNK
from spine_ray.core.probe import ProbeRun, refitted_head, sampled_log_loss, solve_head
from spine_ray.core.seeds import derive_seed

ROWS, FOLDS = 150, 3
FOLD_OF = np.random.default_rng(0).permutation(np.r_[np.full(30, -1), np.arange(120) % FOLDS]).astype(np.int8)
DEV = np.flatnonzero(FOLD_OF >= 0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(ROWS)


@pytest.fixture
def network(task, trial_config, make_network):
    return make_network(trial_config("test_resnet", freeze=1.0), task)


def passes(network):
    """Count the batches that go through a network from now on."""
    calls = []
    network.model.conv1.register_forward_hook(lambda *_: calls.append(1))
    return calls


def chunks(cache):
    return sorted(cache.glob("features/*/from-*.npy"))


def test_features_are_those_of_the_scoring_view_in_the_order_of_the_rows(network, task):
    from spine_ray.core.views import render, scoring_boxes

    found = scoring_features(network, task, DEV)
    pictures = render(task.pixels, DEV, scoring_boxes(len(DEV)), 32).numpy()
    np.testing.assert_array_equal(found.values, network.features(pictures))
    assert found.images_s > 0
    assert found.note == ""


def test_features_are_computed_once_and_read_as_the_same_bits(network, task, cache):
    first = scoring_features(network, task, DEV).values
    calls = passes(network)
    again = scoring_features(network, task, DEV)
    np.testing.assert_array_equal(again.values, first)
    assert len(calls) == 1  # one batch, to say how many images a second there are
    assert again.images_s > 0


def test_who_died_in_the_middle_leaves_its_chunks(network, task, cache, monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK_SECONDS", 0.0)  # a batch a file
    expected, calls = scoring_features(network, task, DEV).values, passes(network)
    files = chunks(cache)
    assert len(files) == -(-len(DEV) // CHUNK)
    for path in files[2:]:
        path.unlink()
    np.testing.assert_array_equal(scoring_features(network, task, DEV).values, expected)
    assert len(calls) == len(files) - 2


def test_a_sample_is_of_all_classes_and_the_beginning_of_the_whole(network, task, cache, monkeypatch):
    monkeypatch.setattr(features_module, "CHUNK_SECONDS", 0.0)  # a batch a file
    order, calls = sample_order(task, DEV), passes(network)
    sampled = sample_features(network, task, DEV, CHUNK + 3).values
    assert len(calls) == 2
    assert set(task.labels[DEV[order[: CHUNK + 3]]]) == set(task.labels)
    whole = scoring_features(network, task, DEV).values
    np.testing.assert_array_equal(sampled, whole[order[: CHUNK + 3]])
    assert len(calls) == 2 + -(-(len(DEV) - CHUNK - 3) // CHUNK)


def test_a_sampled_log_loss_is_that_of_a_head_on_held_out_rows_of_the_sample(network, task):
    count = 90
    sample = DEV[np.argsort(task.keys[DEV])[:count]]
    values = scoring_features(network, task, DEV).values[np.searchsorted(DEV, sample)]
    held_out = deal_inner_folds(task.labels[sample], sample, derive_seed(task.seed, "sample") % 2**32) == 0
    assert 0 < held_out.sum() < count / 2
    head = solve_head(values[~held_out], task, sample[~held_out], network)
    logits, labels = head.logits(values[held_out]).astype(np.float64), task.labels[sample[held_out]]

    def loss(log_temperature):
        scaled = logits / np.exp(log_temperature)
        log_probs = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        return -log_probs[np.arange(len(labels)), labels].mean()

    expected = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-8}).fun
    assert sampled_log_loss(task, DEV, network, count) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_chunk_is_computed_again(damage, network, task, cache):
    expected, path = scoring_features(network, task, DEV).values, None
    path = chunks(cache)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content[:-10] if damage == "cut" else content)
    np.testing.assert_array_equal(scoring_features(network, task, DEV).values, expected)


def test_where_the_disk_is_full_features_are_computed_and_it_is_said(network, task, cache, monkeypatch):
    expected = scoring_features(network, task, DEV[1:]).values

    def full(*_):
        raise NoRoomError("no room here")

    monkeypatch.setattr(features_module, "check_room", full)
    found = scoring_features(network, task, DEV)
    assert found.note == "no room here"
    np.testing.assert_array_equal(found.values[1:], expected)


def test_features_of_other_pictures_weights_or_resolutions_are_other_entries(task, trial_config, make_network, cache):
    for config, learnt in (
        (trial_config(freeze=1.0), task),
        (trial_config(freeze=1.0), replace(task, seed=1)),  # of the random weights
        (trial_config(freeze=1.0, resolution=48), task),
        (trial_config("test_vit", freeze=1.0), task),
    ):
        scoring_features(make_network(config, learnt), learnt, DEV[:5])
    scoring_features(make_network(trial_config(freeze=1.0), task), task, DEV[5:9])
    assert len([path for path in cache.glob("features/*") if path.is_dir()]) == 5


def test_features_that_are_not_finite_are_refused(network, task):
    with torch.no_grad():
        next(network.model.parameters())[:] = torch.nan
    with pytest.raises(ValueError, match="the features of test_resnet at 32 px are not finite"):
        scoring_features(network, task, DEV)


@pytest.fixture
def probe(task, network):
    run = ProbeRun(task, FOLD_OF, network, FOLDS)
    return run, run.next_epoch()


def test_a_probe_is_one_step_over_all_folds(probe):
    run, record = probe
    assert (record.step, record.epoch, record.fold, record.views) == (1, 1, ALL_FOLDS, 1)
    assert run.is_done
    assert record.train_images == len(DEV)
    assert min(record.seconds, record.train_images_s, record.score_images_s, record.peak_mb) > 0
    assert 0 < record.train_loss < record.log_loss
    with pytest.raises(ValueError, match="the probe is done"):
        run.next_epoch()


def test_oof_logits_are_those_of_the_fold_heads_on_the_rows_they_did_not_see(probe, task, network):
    run, record = probe
    values = scoring_features(network, task, DEV).values
    for fold in range(FOLDS):
        held_out = FOLD_OF[DEV] == fold
        head = solve_head(values[~held_out], task, DEV[~held_out], network)
        np.testing.assert_array_equal(run.oof_logits()[DEV[held_out]], head.logits(values[held_out]))
    assert np.isnan(run.oof_logits()[FOLD_OF < 0]).all()
    right = run.oof_logits()[DEV].argmax(axis=1) == task.labels[DEV]
    assert record.accuracy == pytest.approx(right.mean())


def test_the_labels_of_a_fold_do_not_touch_the_head_that_scores_it(probe, task, network):
    run, _ = probe
    labels = task.labels.copy()
    labels[FOLD_OF == 1] = (labels[FOLD_OF == 1] + 1) % 10
    other = ProbeRun(replace(task, labels=labels), FOLD_OF, network, FOLDS)
    other.next_epoch()
    assert other.heads[1].weight.tobytes() == run.heads[1].weight.tobytes()
    assert other.heads[0].weight.tobytes() != run.heads[0].weight.tobytes()
    mine = FOLD_OF == 1
    np.testing.assert_array_equal(other.oof_logits()[mine], run.oof_logits()[mine])


def test_shuffled_labels_stay_at_chance(task, network):
    shuffled = replace(task, labels=np.random.default_rng(1).permutation(task.labels))
    record = ProbeRun(shuffled, FOLD_OF, network, FOLDS).next_epoch()
    assert record.accuracy < 0.25


def test_one_fold_to_run_scores_one_fold(probe, task, network):
    run, _ = probe
    one = ProbeRun(task, FOLD_OF, network, 1)
    one.next_epoch()
    first = FOLD_OF == 0
    np.testing.assert_array_equal(one.oof_logits()[first], run.oof_logits()[first])
    assert np.isnan(one.oof_logits()[~first]).all()


def test_another_process_goes_on_after_the_step(probe, task, network):
    run, _ = probe
    other = ProbeRun(task, FOLD_OF, network, FOLDS)
    with pytest.raises(ValueError, match="it has no OOF logits yet"):
        other.oof_logits()
    other.resume(run.turns_done, run.state())
    assert other.is_done
    assert other.oof_logits().tobytes() == run.oof_logits().tobytes()
    with pytest.raises(ValueError, match="not those of a probe of these rows"):
        ProbeRun(task, FOLD_OF[:-1], network, FOLDS).resume(1, run.state())


def test_a_refitted_head_is_solved_on_all_rows(task, network):
    values = scoring_features(network, task, DEV).values
    found = refitted_head(task, DEV, network)
    assert found.weight.tobytes() == solve_head(values, task, DEV, network).weight.tobytes()
